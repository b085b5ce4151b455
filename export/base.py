"""The small interface behind every format: what to export, and how one runtime does it.

Rules for a runtime file:

1. One file, one subclass of :class:`Runtime`, one row in :data:`RUNTIMES`.
2. Frameworks, torch apart, are imported inside methods: a missing one costs nothing until it is used.
3. What cannot work here is said by ``available``, in words: nothing is installed, nothing falls back.
"""

import contextlib
import importlib
import importlib.metadata
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from zoo.errors import ZooError, nearest
from zoo.layers import LOWERINGS, check_lowering

Predict = Callable[[np.ndarray], np.ndarray]
"""Images (N, C, H, W), float32, or pixels (N, H, W, C), uint8, to outputs (N, classes)."""

TRACE_BATCH = 4
"""Batch size at which a dynamic batch is traced: above 1, and none of those that certify it."""

AUTO = "auto"
"""The lowering of an export that takes the one with the lowest price for each layer."""

FP32, FP16, INT8 = DTYPES = "fp32", "fp16", "int8"
"""What an artifact computes in: as the model does, in half precision, or what is static of it in integers."""

BLOCKED, PLAIN = LAYOUTS = "blocked", "plain"
"""How an ONNX file treats its maps: as onnxruntime's convolutions like them (:mod:`export.blocked`), or as
the layers write it."""

BLOCKED_PREFIX = "blocked."
"""How the names of the constants begin that :data:`BLOCKED` adds."""

TUNE = "tune"
"""The lowering of an export that measures which one is fastest."""

_MOST_VALUES = 2**24

RUNTIMES = {
    "onnx": "export.onnx:OnnxRuntime",
    "torchscript": "export.torchscript:TorchScript",
    "pt2": "export.pt2:TorchExport",
    "openvino": "export.openvino:OpenVino",
}
"""Name of each format, and the class that exports and runs it."""


@dataclass(frozen=True)
class ExportOptions:
    """Everything that decides what an artifact is, apart from the model.

    Args:
        lowering: how the dynamic convolutions are computed, one of ``zoo.layers.LOWERINGS``, ``auto``, or
            ``tune`` for those that are measured to be the fastest here.
        batch: the one batch size the artifact takes, or None for any.
        input_size: (channels, height, width) of one input; None means the model's own.
        opset: ONNX operator set; other formats ignore it.
        dtype: one of :data:`DTYPES`, as far as the format has it. Inputs and outputs stay what they are.
        preprocess: whether the artifact takes pixels (batch, height, width, channels), uint8, and returns
            probabilities, instead of normalised (batch, channels, height, width), float32, and logits.
        layout: one of :data:`LAYOUTS`, for formats that have the choice; see :meth:`Runtime.layout`.

    Raises:
        ZooError: a value is out of range, or the lowering cannot serve the batch.
    """

    lowering: str = AUTO
    batch: int | None = None
    input_size: tuple[int, int, int] | None = None
    opset: int = 18
    dtype: str = FP32
    preprocess: bool = False
    layout: str = BLOCKED

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ZooError(f"batch {self.batch} is not a batch size; give a whole number from 1, or dynamic.")
        if self.input_size is not None and (len(self.input_size) != 3 or min(self.input_size) < 1):
            raise ZooError(f"input size {self.input_size} is not (channels, height, width), each at least 1.")
        if self.input_size is not None and math.prod(self.input_size) > _MOST_VALUES:
            raise ZooError(
                f"input size {self.input_size} is too large: an input may have {_MOST_VALUES} values, "
                "about 2300 x 2300 pixels in colour; give a smaller size."
            )
        if self.dtype not in DTYPES:
            raise ZooError(f"dtype {self.dtype!r} is none to export in; give one of {', '.join(DTYPES)}.")
        if self.layout not in LAYOUTS:
            raise ZooError(f"layout {self.layout!r} is none of maps; give one of {', '.join(LAYOUTS)}.")
        self._check_lowering()

    def example(self) -> torch.Tensor:
        """Return the zeros that exporters trace, at the fixed batch or at :data:`TRACE_BATCH`.

        Raises:
            ZooError: the input size is still the model's own.
        """
        if self.input_size is None:
            raise ZooError("the input size is not known; give input_size=(channels, height, width).")
        batch = self.batch or TRACE_BATCH
        if self.preprocess:
            channels, height, width = self.input_size
            return torch.zeros(batch, height, width, channels, dtype=torch.uint8)
        return torch.zeros(batch, *self.input_size)

    def _check_lowering(self) -> None:
        if self.lowering == TUNE:
            return
        check_lowering(self.lowering)
        if self.lowering == AUTO:
            return
        able = LOWERINGS[self.lowering].batch
        if able == "one" and self.batch != 1:
            raise ZooError(
                f"the lowering {self.lowering} is right at batch 1 only; ask for batch 1, or for auto."
            )
        if able == "frozen" and self.batch is None:
            anything = ", ".join([AUTO, *(name for name, row in LOWERINGS.items() if row.batch == "any")])
            raise ZooError(
                f"the lowering {self.lowering} freezes the batch size, so it cannot have a dynamic batch; "
                f"fix the batch to a number, or take one of {anything}."
            )


class Runtime(ABC):
    """One deployment format and the library that runs it.

    Attributes:
        name: the key in :data:`RUNTIMES`.
        title: the format, for people.
        suffix: of its files, with the dot.
        packages: the distributions that write the format, then the one that runs it.
        providers: what it may run on, in the order of the doctor's table.
        dtypes: what its artifacts may compute in.
        own_softmax: see :func:`zoo.layers.settle`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    providers: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    dtypes: ClassVar[tuple[str, ...]] = (FP32, FP16)
    own_softmax: ClassVar[bool] = False

    def available(self, provider: str = "cpu") -> str | None:
        """Return None when artifacts run on ``provider`` here, otherwise the reason they cannot.

        Args:
            provider: one of ``providers``, or any other name, which is a reason.
        """
        if provider not in self.providers:
            return f"{self.title} has no provider {provider!r} here; it has {', '.join(self.providers)}"
        return self.obstacle(provider)

    @abstractmethod
    def obstacle(self, provider: str) -> str | None:
        """Return what keeps artifacts from running on one of ``providers`` here, None where nothing does."""

    def check(self, options: ExportOptions) -> None:  # noqa: B027  (most formats take every option)
        """Refuse options that this format cannot serve, before any work.

        Raises:
            ZooError: naming the option and what would do.
        """

    def layout(self, options: ExportOptions) -> str | None:
        """Return which of :data:`LAYOUTS` an artifact gets, or None where the format has no choice."""
        return None

    @abstractmethod
    def export(self, model: nn.Module, path: Path, options: ExportOptions) -> None:
        """Write ``model`` to ``path``.

        Args:
            model: lowered, on the CPU and in evaluation mode.
            path: of the file.
            options: with the input size filled in.

        Raises:
            ZooError: the framework cannot express the model.
        """

    def quantize(self, path: Path, options: ExportOptions, images: np.ndarray) -> int:
        """Rewrite the artifact at ``path`` to compute in int8, for formats that have it.

        Its metadata then holds ``int8_share``, see :data:`export.quantize.SHARE`.

        Args:
            path: an artifact of this format.
            options: it was exported with.
            images: to see ranges on, as the artifact takes them.

        Returns:
            How many operations compute in int8.

        Raises:
            ZooError: none would.
        """
        raise NotImplementedError

    @abstractmethod
    def annotate(self, path: Path, metadata: dict[str, str]) -> None:
        """Store texts inside the artifact; its computation stays as it is.

        Args:
            path: an artifact of this format.
            metadata: by name; it replaces all that was stored.
        """

    @abstractmethod
    def metadata(self, path: Path) -> dict[str, str]:
        """Return what :meth:`annotate` stored.

        Raises:
            ZooError: the file is damaged, or of another format.
        """

    @abstractmethod
    def load(self, path: Path, provider: str = "cpu", threads: int | None = None) -> Predict:
        """Return the artifact as a function of numpy arrays.

        Args:
            path: an artifact of this format.
            provider: one of ``providers``.
            threads: how many threads an operator may use; None leaves it to the library.

        Raises:
            ZooError: the provider cannot run here; there is no silent fall back to another.
        """


def runtime(name: str) -> Runtime:
    """Return the runtime called ``name``, importing its file but not its framework.

    Raises:
        ZooError: there is no such format.
    """
    if name not in RUNTIMES:
        raise ZooError(f"unknown format {name!r}; there are {', '.join(RUNTIMES)}.{nearest(name, RUNTIMES)}")
    module, _, attribute = RUNTIMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)()


def first_line(error: BaseException) -> str:
    """Return the first line of what ``error`` says, for messages of one sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def installed(package: str) -> str | None:
    """Return the version of an installed distribution, or of its GPU build, or None.

    Where both are installed they share a module, whose own version then counts.
    """
    found: list[str] = []
    for name in (package, f"{package}-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(importlib.metadata.version(name))
    if len(found) > 1:
        with contextlib.suppress(ImportError):
            return importlib.import_module(package).__version__
    return found[0] if found else None
