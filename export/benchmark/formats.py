"""The formats of ``export.base.RUNTIMES`` and the libraries that run them."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import nn

from export._torch import TorchRuntime
from export.base import ExportOptions, Runtime
from export.benchmark import sessions
from export.benchmark.engine import Bind, Bound, FileEngine, Setting
from export.benchmark.networks import on_device
from export.onnx import OnnxRuntime
from export.pt2 import TorchExport
from export.torchscript import TorchScript


class Exported(FileEngine):
    """A file as ``python -m export.FORMAT`` writes it.

    Attributes:
        runtime: the format.
    """

    runtime: ClassVar[Runtime]

    def available(self, device: str) -> str | None:
        """Return what the format says."""
        return self.runtime.available(device)

    def write(self, model: nn.Module, options: ExportOptions, path: Path) -> None:
        """Write the file as the format does it."""
        self.runtime.export(model, path, options)

    def quantize(self, path: Path, options: ExportOptions, images: np.ndarray) -> None:
        """Rewrite the file as the format does it."""
        self.runtime.quantize(path, options, images)


class Onnx(Exported):
    """ONNX in onnxruntime; off the CPU, inputs and outputs are bound to memory of the device."""

    runtime: ClassVar[Runtime] = OnnxRuntime()
    kind: ClassVar[str] = OnnxRuntime.name
    suffix: ClassVar[str] = OnnxRuntime.suffix
    devices: ClassVar[tuple[str, ...]] = OnnxRuntime.providers
    dtypes: ClassVar[tuple[str, ...]] = OnnxRuntime.dtypes
    dtypes_of_cuda: ClassVar[tuple[str, ...]] = ()

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return a session with threads of its own."""
        graphs = setting.cuda_graphs and setting.device == "cuda"
        session = sessions.open_session(path, setting.device, setting.threads, cuda_graphs=graphs)
        if setting.device == "cpu":
            return lambda images: Bound(lambda: sessions.run(session, images), np.asarray)
        return lambda images: sessions.bound(session, images)


class InTorch(Exported):
    """A format that torch runs, in torch."""

    runtime: ClassVar[TorchRuntime]

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return the artifact as a module on the device."""
        return on_device(self.runtime.module(path, setting.device), setting)


class Script(InTorch):
    """TorchScript."""

    runtime: ClassVar[TorchRuntime] = TorchScript()
    kind: ClassVar[str] = TorchScript.name
    suffix: ClassVar[str] = TorchScript.suffix
    devices: ClassVar[tuple[str, ...]] = TorchScript.providers


class Program(InTorch):
    """A program of torch.export, run operator by operator."""

    runtime: ClassVar[TorchRuntime] = TorchExport()
    kind: ClassVar[str] = TorchExport.name
    suffix: ClassVar[str] = TorchExport.suffix
    devices: ClassVar[tuple[str, ...]] = TorchExport.providers
