"""OpenVINO on the CPU, from the file that ``python -m export.openvino`` writes."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from export.base import Runtime
from export.benchmark.engine import Bind, Bound, Setting
from export.benchmark.formats import Exported
from export.onnx import INPUT, LOGITS
from export.openvino import OpenVino, compiled


class OpenVinoEngine(Exported):
    """ONNX in OpenVINO, which computes in fp32 what the file has in fp16, and its int8 as the file says."""

    runtime: ClassVar[Runtime] = OpenVino()
    kind: ClassVar[str] = OpenVino.name
    suffix: ClassVar[str] = OpenVino.suffix
    devices: ClassVar[tuple[str, ...]] = OpenVino.providers
    dtypes: ClassVar[tuple[str, ...]] = OpenVino.dtypes
    dtypes_of_cuda: ClassVar[tuple[str, ...]] = ()

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return the model compiled for one request at a time."""
        request = compiled(path, setting.threads).create_infer_request()

        def bind(images: np.ndarray) -> Bound:
            def call() -> np.ndarray:
                return request.infer({INPUT: images}, share_inputs=True)[LOGITS]

            return Bound(call, np.asarray)

        return bind
