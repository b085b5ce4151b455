"""Models that PyTorch runs itself: as they are, or through ``torch.compile``."""

import copy
import os
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from export.base import first_line
from export.benchmark.engine import Bind, Bound, Engine, Setting
from export.parity import to_tensor
from zoo.errors import ZooError


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
    with torch.cuda.stream(
        stream
    ):  # libraries set themselves up when they first run, which no graph can hold
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
