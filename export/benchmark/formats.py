"""The formats of ``export.base.RUNTIMES``, run as one would for speed."""

from pathlib import Path

import numpy as np
from torch import nn

from export._torch import TorchRuntime
from export.base import ExportOptions, Runtime
from export.benchmark import sessions
from export.benchmark.engine import Bind, Bound, FileEngine, Setting
from export.benchmark.networks import on_device
from export.onnx import INPUT, LOGITS
from export.openvino import compiled


class Exported(FileEngine):
    """A file as ``python -m export.FORMAT`` writes it, run as the format itself does.

    Args:
        runtime: the format.
    """

    runtime: Runtime
    dtypes_of_cuda: tuple[str, ...] = ()

    def __init__(self, runtime: Runtime):
        self.runtime = runtime
        self.kind, self.suffix = runtime.name, runtime.suffix
        self.devices, self.dtypes = runtime.providers, runtime.dtypes

    def available(self, device: str) -> str | None:
        """Return what the format says."""
        return self.runtime.available(device)

    def write(self, model: nn.Module, options: ExportOptions, path: Path) -> None:
        """Write the file as the format does it."""
        self.runtime.export(model, path, options)

    def quantize(self, path: Path, options: ExportOptions, images: np.ndarray) -> None:
        """Rewrite the file as the format does it."""
        self.runtime.quantize(path, options, images)

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return what the format does; a call then copies images to the device and answers back."""
        predict = self.runtime.load(path, setting.device, setting.threads)
        return lambda images: Bound(lambda: predict(images), np.asarray)


class InOnnxRuntime(Exported):
    """ONNX in onnxruntime; off the CPU, inputs and outputs are bound to memory of the device."""

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return a session with threads of its own."""
        graphs = setting.cuda_graphs and setting.device == "cuda"
        session = sessions.open_session(path, setting.device, setting.threads, cuda_graphs=graphs)
        if setting.device == "cpu":
            return lambda images: Bound(lambda: sessions.run(session, images), np.asarray)
        return lambda images: sessions.bound(session, images)


class InOpenVino(Exported):
    """ONNX in OpenVINO, which computes in fp32 what the file has in fp16, and its int8 as the file says."""

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return the model compiled for one request at a time."""
        request = compiled(path, setting.threads).create_infer_request()

        def bind(images: np.ndarray) -> Bound:
            def call() -> np.ndarray:
                return request.infer({INPUT: images}, share_inputs=True)[LOGITS]

            return Bound(call, np.asarray)

        return bind


class InTorch(Exported):
    """A format that torch runs, with images and answers on the device."""

    runtime: TorchRuntime
    dtypes_of_cuda: tuple[str, ...] = FileEngine.dtypes_of_cuda

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return the artifact as a module on the device."""
        return on_device(self.runtime.module(path, setting.device), setting)
