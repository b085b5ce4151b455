"""OpenVINO on the CPU, from the ONNX file that onnxruntime runs too.

Inside this file ``import openvino`` is the package of that name.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from export.benchmark.engine import Bind, Bound, Setting
from export.benchmark.formats import Onnx
from export.onnx import INPUT, OUTPUT
from zoo.errors import ZooError


class OpenVino(Onnx):
    """ONNX in OpenVINO, in fp32: on a CPU that has bf16 it would use that."""

    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    def available(self, device: str) -> str | None:
        """Return None where the package can be imported."""
        try:
            import openvino  # noqa: F401  (to see whether it can be)
        except ImportError as error:
            return f"openvino cannot be imported ({error}); pip install openvino"
        return super().available("cpu")  # for the packages that write ONNX

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return the model compiled for one request at a time."""
        request = _compiled(path, setting.threads).create_infer_request()

        def bind(images: np.ndarray) -> Bound:
            def call() -> np.ndarray:
                return request.infer({INPUT: images}, share_inputs=True)[OUTPUT]

            return Bound(call, np.asarray)

        return bind


def _compiled(path: Path, threads: int) -> Any:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    core = openvino.Core()
    try:
        return core.compile_model(core.read_model(path), "CPU", settings)
    except RuntimeError as error:  # its first lines name lines of its own sources
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise ZooError(f"openvino {openvino.__version__} cannot load {path.name}: {reason}") from error
