"""The ways to run a model, one row of ``ENGINES`` each: as it is, compiled, or exported to a format.

An engine is asked whether it runs here, may write a file, and turns a batch into a call to time. On CUDA the
batch lies on the device before the call and its result stays there, and a call ends when the device has
finished; formats whose runtime takes numpy arrays alone copy both ways within the call, which their
``copies`` says.
"""

import copy
import os
import shutil
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from export.base import RUNTIMES, ExportOptions, Runtime, first_line, runtime
from export.benchmark import sessions
from export.parity import to_tensor
from zoo.errors import ZooError


@dataclass(frozen=True)
class Setting:
    """How a model is to be run.

    Attributes:
        input_size: (channels, height, width).
        batch: images in one call.
        device, dtype: of the engine's.
        threads: that an operator may use.
        frozen: whether the artifact takes this batch size only.
        cuda_graphs: whether a call on CUDA replays a recorded graph, where the engine can.
    """

    input_size: tuple[int, int, int]
    batch: int = 1
    device: str = "cpu"
    dtype: str = "fp32"
    threads: int = 1
    frozen: bool = False
    cuda_graphs: bool = False


class Bound(NamedTuple):
    """A batch that lies where the engine wants it.

    Attributes:
        call: runs it once and returns when the result is there, in whatever form.
        fetch: turns what ``call`` returned into an array (N, classes).
    """

    call: Callable[[], Any]
    fetch: Callable[[Any], np.ndarray]


Bind = Callable[[np.ndarray], Bound]
"""Images (N, C, H, W), float32, to a call on them."""


class Engine(ABC):
    """One way to run a model.

    Attributes:
        dtypes: that it may be asked for.
        slow: whether preparing a model takes minutes, so that it is measured only when named.
        copies: whether a call on CUDA includes the copies there and back.
    """

    dtypes: ClassVar[tuple[str, ...]] = ("fp32",)
    slow: ClassVar[bool] = False
    copies: ClassVar[bool] = False

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that it may be asked for."""
        return "cpu", "cuda"

    @abstractmethod
    def available(self, device: str) -> str | None:
        """Return None when it runs on ``device`` here, otherwise the reason why not."""

    def artifact(self, setting: Setting, folder: Path) -> Path | None:
        """Return the file it runs, to be written in ``folder``; None where it runs the network itself."""
        return None

    def export(self, model: nn.Module, setting: Setting, path: Path) -> None:
        """Write what :meth:`artifact` names; ``model`` is lowered, folded, in evaluation mode, on the CPU.

        Raises:
            ZooError: the format cannot express the model.
        """
        raise NotImplementedError

    @abstractmethod
    def prepare(self, model: nn.Module, setting: Setting, folder: Path) -> Bind:
        """Return the function that binds batches, exporting first what is not there yet.

        Raises:
            ZooError: it cannot run this model.
        """


class Eager(Engine):
    """The network as PyTorch runs it."""

    dtypes: ClassVar[tuple[str, ...]] = ("fp32", "bf16")

    def available(self, device: str) -> str | None:
        """Return None where torch has the device."""
        return None if device == "cpu" or torch.cuda.is_available() else "torch finds no CUDA device"

    def prepare(self, model: nn.Module, setting: Setting, folder: Path) -> Bind:
        """Return the network on its device; bf16 is autocast."""
        network = self.network(copy.deepcopy(model).to(setting.device), setting)

        @torch.inference_mode()
        def forward(images: Tensor) -> Tensor:
            return network(images)

        def bind(images: np.ndarray) -> Bound:
            resident = to_tensor(images).to(setting.device)
            if setting.device == "cpu":
                return Bound(lambda: forward(resident), _to_array)
            return _on_cuda(forward, resident, setting.cuda_graphs)

        return bind

    def network(self, model: nn.Module, setting: Setting) -> Callable[[Tensor], Tensor]:
        """Return the function of tensors that is timed."""
        if setting.dtype != "bf16":
            return model

        @torch.autocast(setting.device, torch.bfloat16)
        def forward(images: Tensor) -> Tensor:
            return model(images)

        return forward


class Compiled(Eager):
    """The network through ``torch.compile``, for one batch size at a time."""

    dtypes: ClassVar[tuple[str, ...]] = ("fp32",)
    slow: ClassVar[bool] = True
    backend: ClassVar[str] = "inductor"

    def available(self, device: str) -> str | None:
        """Return None where there are the device and a compiler for it."""
        if reason := super().available(device):
            return reason
        if device == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
            return "torch.compile needs a C++ compiler"
        return None

    def network(self, model: nn.Module, setting: Setting) -> Callable[[Tensor], Tensor]:
        """Return the compiled network; it is compiled when it first runs."""
        compiled = torch.compile(_as_function(model), fullgraph=True, dynamic=False, backend=self.backend)

        def forward(images: Tensor) -> Tensor:
            try:
                return compiled(images)
            except Exception as error:  # dynamo, inductor and compilers each have their own
                raise ZooError(f"torch.compile cannot compile the model: {first_line(error)}") from error

        return forward


class Exported(Engine):
    """A format of ``export.base.RUNTIMES`` and the library that runs it.

    Args:
        name: the key there.
    """

    copies: ClassVar[bool] = True

    def __init__(self, name: str):
        self.name = name

    @property
    def runtime(self) -> Runtime:
        """The format."""
        return runtime(self.name)

    @property
    def devices(self) -> tuple[str, ...]:
        """What the format may run on."""
        return self.runtime.providers

    def available(self, device: str) -> str | None:
        """Return what the format says."""
        return self.runtime.available(device)

    def artifact(self, setting: Setting, folder: Path) -> Path | None:
        """Return a file in a folder of its own: some formats write several."""
        kind = f"{self.name}-b{setting.batch}" if setting.frozen else self.name
        return folder / kind / f"model{self.runtime.suffix}"

    def export(self, model: nn.Module, setting: Setting, path: Path) -> None:
        """Write the file, with the batch fixed or free."""
        options = ExportOptions(input_size=setting.input_size, batch=setting.batch if setting.frozen else None)
        path.parent.mkdir(parents=True)
        try:
            self.runtime.export(model, path, options)
        except BaseException:
            shutil.rmtree(path.parent)  # half an artifact must not be taken for one
            raise

    def prepare(self, model: nn.Module, setting: Setting, folder: Path) -> Bind:
        """Return the loaded artifact."""
        path = self.artifact(setting, folder)
        assert path is not None
        if not path.exists():
            self.export(model, setting, path)
        return self.load(path, setting)

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return the artifact as the format itself loads it."""
        predict = self.runtime.load(path, setting.device, setting.threads)
        return lambda images: Bound(lambda: predict(images), np.asarray)


class Onnx(Exported):
    """ONNX in onnxruntime, with the session's threads and, on CUDA, its input and output bound."""

    copies: ClassVar[bool] = False

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return a session that is alone on its threads."""
        graphs = setting.cuda_graphs and setting.device == "cuda"
        session = sessions.open_session(path, setting.device, setting.threads, cuda_graphs=graphs)
        if setting.device == "cpu":
            return lambda images: Bound(lambda: sessions.run(session, images), np.asarray)
        return lambda images: Bound(*sessions.bound(session, images, "cuda"))


def refusal(name: str, device: str, dtype: str) -> str | None:
    """Return None when the engine called ``name`` can be measured so, otherwise the reason why not."""
    engine = ENGINES[name]
    if device not in engine.devices:
        return f"there is no {device} for it"
    if dtype not in engine.dtypes:
        return f"there is no {dtype} for it yet"
    if dtype == "bf16" and device != "cuda":
        return "bf16 is measured on cuda alone"
    return engine.available(device)


def _as_function(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a function with a code object of its own that calls ``model``.

    ``torch.compile`` keeps what it has compiled by code object, eight variants at most: networks of one class
    would share the eight, and all further ones fail.
    """

    def forward(images: Tensor) -> Tensor:
        return model(images)

    return types.FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)


def _on_cuda(forward: Callable[[Tensor], Tensor], images: Tensor, graphs: bool) -> Bound:
    """Return a call that waits for the device."""
    if graphs:
        return _recorded(forward, images)

    def call() -> Tensor:
        result = forward(images)
        torch.cuda.synchronize()
        return result

    return Bound(call, _to_array)


def _recorded(forward: Callable[[Tensor], Tensor], images: Tensor) -> Bound:
    """Return a call that replays a CUDA graph of the forward pass."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries set themselves up when they first run, which no graph can hold
        for _ in range(3):
            forward(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = forward(images)

    def call() -> Tensor:
        graph.replay()
        torch.cuda.synchronize()
        return result

    return Bound(call, _to_array)


def _to_array(result: Tensor) -> np.ndarray:
    return result.float().cpu().numpy()


ENGINES: dict[str, Engine] = {
    "eager": Eager(),
    "compile": Compiled(),
    **{name: Onnx(name) if name == "onnx" else Exported(name) for name in RUNTIMES},
}
"""Every way to run a model, by name."""
