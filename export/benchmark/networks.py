"""Models that PyTorch runs itself: as they are, or through ``torch.compile``."""

import copy
import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export._torch import no_device
from export.base import FP16, first_line
from export.benchmark.engine import Bind, Bound, Engine, Setting
from export.half import in_half
from export.parity import to_tensor
from zoo.errors import ZooError

Forward = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to logits (N, classes), both on one device."""


class Eager(Engine):
    """The network as PyTorch runs it; bf16 is autocast, fp16 the whole network."""

    dtypes: tuple[str, ...] = (*Engine.dtypes, "bf16")

    def available(self, device: str) -> str | None:
        """Return None where torch has the device."""
        return no_device(device)

    def prepare(self, model: nn.Module, setting: Setting, folder: Path) -> Bind:
        """Return a copy of the network on its device."""
        own = in_half(model) if setting.dtype == FP16 else copy.deepcopy(model)
        return on_device(self.network(own.to(setting.device), setting), setting)

    def network(self, model: nn.Module, setting: Setting) -> Forward:
        """Return the function of tensors that is timed."""
        if setting.dtype != "bf16":
            return model

        @torch.autocast(setting.device, torch.bfloat16)
        def forward(images: Tensor) -> Tensor:
            return model(images)

        return forward


class Compiled(Eager):
    """The network through ``torch.compile``, for one batch size at a time."""

    dtypes: tuple[str, ...] = Engine.dtypes
    slow: bool = True
    backend: str = "inductor"

    def available(self, device: str) -> str | None:
        """Return None where there are the device and a compiler for it."""
        return super().available(device) or (no_compiler() if device == "cpu" else None)

    def network(self, model: nn.Module, setting: Setting) -> Forward:
        """Return the compiled network; it is compiled when it first runs."""
        compiled = torch.compile(_as_function(model), fullgraph=True, dynamic=False, backend=self.backend)

        def forward(images: Tensor) -> Tensor:
            try:
                return compiled(images)
            except Exception as error:  # dynamo, inductor and compilers each have their own
                raise ZooError(f"torch.compile cannot compile the model: {first_line(error)}") from error

        return forward


def no_compiler() -> str | None:
    """Return None where there is a C++ compiler, which inductor needs on the CPU, otherwise the reason."""
    usual = "clang++" if sys.platform == "darwin" else "g++"  # the one that inductor takes
    compiler = os.environ.get("CXX", usual)
    return None if shutil.which(compiler) else f"there is no C++ compiler {compiler}"


def on_device(network: Forward, setting: Setting) -> Bind:
    """Return the function that puts images on the device and binds ``network``, which is there, to them."""

    @torch.inference_mode()
    def forward(images: Tensor) -> Tensor:
        return network(images)

    def bind(images: np.ndarray) -> Bound:
        resident = to_tensor(images).to(setting.device)
        if setting.device == "cpu":
            return Bound(lambda: forward(resident), _to_array)
        return Bound(
            _recorded(forward, resident) if setting.cuda_graphs else _waiting(forward, resident), _to_array
        )

    return bind


def _as_function(model: nn.Module) -> Forward:
    """Return a function with a code object of its own that calls ``model``.

    ``torch.compile`` keeps what it has compiled by code object, eight variants at most: networks of one class
    would share the eight, and all further ones fail.
    """

    def forward(images: Tensor) -> Tensor:
        return model(images)

    return types.FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)


def _waiting(forward: Forward, images: Tensor) -> Callable[[], Tensor]:
    """Return a call that waits for the device."""

    def call() -> Tensor:
        result = forward(images)
        torch.cuda.synchronize()
        return result

    return call


def _recorded(forward: Forward, images: Tensor) -> Callable[[], Tensor]:
    """Return a call that replays a CUDA graph of the forward pass and waits for it."""
    # Libraries set themselves up when they first run, for each stream, and no graph can hold that.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            forward(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        result = forward(images)

    def call(_read: object = (forward, images)) -> Tensor:  # the graph reads their memory but keeps neither
        graph.replay()
        torch.cuda.synchronize()
        return result

    return call


def _to_array(result: Tensor) -> np.ndarray:
    return result.float().cpu().numpy()
