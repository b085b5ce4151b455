"""OpenVINO: ``python -m export.openvino --model resnet18_kw`` writes ``resnet18_kw.openvino.onnx``.

OpenVINO reads ONNX by itself, in Python, in C++ and in its model server, and computes the same from it as
from its own IR. The IR is two files that must match; ONNX is one, written whole or not at all. It is
certified in OpenVINO, and its lowerings are chosen for it. Run it with ``INFERENCE_PRECISION_HINT`` ``f32``,
as the certificate does: on a CPU that has bf16 OpenVINO would use that. The IR, without the fp16 weights
that are OpenVINO's default, is one line away::

    model = openvino.Core().read_model("resnet18_kw.openvino.onnx")
    openvino.save_model(model, "resnet18_kw.xml", compress_to_fp16=False)

Inside this file ``import openvino`` is the package of that name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from export import _flow, onnx
from export.base import FP32, ExportOptions, Predict
from export.certificate import Certificate
from export.onnx import INPUT, OLDEST_OPSET, OnnxRuntime
from zoo.cli import run
from zoo.errors import ZooError

_FIRST_BYTE = b"\x08"  # the tag of the field that holds the IR version


class OpenVino(OnnxRuntime):
    """ONNX, run by OpenVINO."""

    name: ClassVar[str] = "openvino"
    title: ClassVar[str] = "OpenVINO"
    suffix: ClassVar[str] = ".openvino.onnx"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "openvino")
    providers: ClassVar[tuple[str, ...]] = ("cpu",)
    own_softmax: ClassVar[bool] = True

    def obstacle(self, provider: str) -> str | None:
        """Return None where openvino can be imported, otherwise the reason it cannot."""
        try:
            import openvino  # noqa: F401  (to see whether it can be)
        except ImportError as error:
            return f"openvino cannot be imported ({error}); pip install openvino"
        return None

    def layout(self, options: ExportOptions) -> str | None:
        """Return None: OpenVINO blocks maps by itself."""
        return None

    def load(self, path: Path, provider: str = "cpu", threads: int | None = None) -> Predict:
        """Return the compiled model as a function of arrays."""
        if reason := self.available(provider):
            raise ZooError(f"cannot run {path} on {provider}: {reason}.")
        request = compiled(path, threads).create_infer_request()

        def predict(images: np.ndarray) -> np.ndarray:
            # The request keeps its output buffer, which the next call would overwrite.
            return request.infer({INPUT: images}, share_inputs=True)[0].copy()

        return predict


def export(
    model: nn.Module | str,
    path: str | Path,
    *,
    opset: int = OLDEST_OPSET,
    lowering: str = "auto",
    batch: int | None = None,
    input_size: tuple[int, int, int] | None = None,
    images: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    metadata: dict[str, str] | None = None,
    dtype: str = FP32,
    preprocess: bool = False,
) -> Certificate:
    """Write ``model`` for OpenVINO; arguments, result and errors as for :func:`export.onnx.export`."""
    options = ExportOptions(lowering, batch, input_size, opset, dtype, preprocess)
    return _flow.export(OpenVino(), model, path, options, images, class_names, metadata)


def compiled(path: Path, threads: int | None = None, clocked: bool = False) -> Any:
    """Return the file at ``path`` compiled for the CPU in fp32, for one request at a time.

    Args:
        path: an ONNX file.
        threads: how many threads an operator may use; None leaves it to the library.
        clocked: whether requests note what each operator takes.

    Raises:
        ZooError: OpenVINO cannot read it.
    """
    import openvino

    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": clocked,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        # Of what does not begin as ONNX does, OpenVINO would try and print every other reading.
        with path.open("rb") as file:
            if file.read(1) != _FIRST_BYTE:
                raise ZooError(f"openvino cannot load {path}: it is no ONNX file.")
        core = openvino.Core()
        # A name without the suffix tells OpenVINO nothing; the bytes do, at the price of a copy.
        network = core.read_model(path if path.suffix == ".onnx" else path.read_bytes())
        return core.compile_model(network, "CPU", settings)
    except (OSError, RuntimeError) as error:
        version = openvino.__version__
        raise ZooError(f"openvino {version} cannot load {path}: {_last_line(error)}") from error


def _last_line(error: BaseException) -> str:
    """Return the last line of what ``error`` says: OpenVINO's first ones name lines of its own sources."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return onnx.main(argv, OpenVino())


if __name__ == "__main__":
    raise SystemExit(run(main))
