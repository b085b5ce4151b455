"""What the formats that torch runs have in common."""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from export.base import Predict, Runtime
from export.parity import to_tensor
from zoo.errors import ZooError


class TorchRuntime(Runtime):
    """A format whose artifacts torch runs, on a CPU or on CUDA."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)

    def obstacle(self, provider: str) -> str | None:
        """Return None where torch has the device, otherwise the reason why not."""
        return no_device(provider)

    @abstractmethod
    def module(self, path: Path, device: str = "cpu") -> Callable[[Tensor], Tensor]:
        """Return the artifact at ``path`` as a function of tensors on ``device``.

        Raises:
            ZooError: torch cannot load it.
        """

    def load(self, path: Path, provider: str = "cpu", threads: int | None = None) -> Predict:
        """Return the artifact as a function of arrays; ``threads`` holds for torch in the whole process."""
        if reason := self.available(provider):
            raise ZooError(f"cannot run {path} on {provider}: {reason}.")
        if threads is not None:
            torch.set_num_threads(threads)
        module = self.module(path, provider)

        @torch.inference_mode()
        def predict(images: np.ndarray) -> np.ndarray:
            with no_tf32() if provider == "cuda" else contextlib.nullcontext():
                return module(to_tensor(images).to(provider)).cpu().numpy()

        return predict


def no_device(device: str) -> str | None:
    """Return None where torch has the device, ``cpu`` or ``cuda``, otherwise the reason why not."""
    if device == "cpu" or torch.cuda.is_available():
        return None
    return "torch finds no CUDA device" if torch.version.cuda else "this torch is built without CUDA"


@contextlib.contextmanager
def no_tf32() -> Iterator[None]:
    """Have CUDA compute fp32 in fp32, convolutions and matrix products alike; other code keeps its choice."""
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    products = torch.backends.cuda.matmul
    before = convolutions.fp32_precision, products.fp32_precision
    convolutions.fp32_precision = products.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision, products.fp32_precision = before
