"""What every way to run a model has in common.

An engine is asked whether it runs here, may write a file, and turns a batch into a call to time. The batch
lies on the device before the call, its result stays there, and a call ends when the device has finished.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from export._trials import Draws
from export.base import BLOCKED, FP16, FP32, INT8, PLAIN, ExportOptions, Runtime
from export.half import in_half
from zoo.cli import atomic_path

_CALIBRATED = 64


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
        images: what int8 sees its ranges on, (N, C, H, W), float32, normalised; None means random numbers.
    """

    input_size: tuple[int, int, int]
    batch: int = 1
    device: str = "cpu"
    dtype: str = FP32
    threads: int = 1
    frozen: bool = False
    cuda_graphs: bool = False
    images: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def layout(self) -> str:
        """One of ``export.base.LAYOUTS``, as one would export for the device."""
        return BLOCKED if self.device == "cpu" else PLAIN


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
        devices, dtypes: that it may be asked for.
        dtypes_of_cuda: those of them for CUDA alone: torch computes in them on a CPU, but slowly.
        slow: whether preparing a model takes minutes, so that it is measured only when named.
        runtime: the format it runs, for which lowerings can be chosen; None where there is none.
    """

    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[str, ...] = (FP32, FP16)
    dtypes_of_cuda: tuple[str, ...] = (FP16, "bf16")
    slow: bool = False
    runtime: Runtime | None = None

    @abstractmethod
    def available(self, device: str) -> str | None:
        """Return None when it runs on ``device`` here, otherwise the reason why not."""

    def artifact(self, setting: Setting, folder: Path) -> Path | None:
        """Return the file it runs, to be written in ``folder``; None where it runs the network itself."""
        return None

    @abstractmethod
    def prepare(self, model: nn.Module, setting: Setting, folder: Path) -> Bind:
        """Return the function that binds batches to a model.

        Args:
            model: lowered, folded, in evaluation mode, on the CPU; left as it is.
            setting: how to run it.
            folder: of its artifacts; what is there already is not exported again.

        Raises:
            ZooError: it cannot run this model.
        """


class FileEngine(Engine):
    """An engine that runs a file.

    Attributes:
        kind: of file; engines that share one share their files.
        suffix: of the file, with the dot.
    """

    kind: str
    suffix: str

    def artifact(self, setting: Setting, folder: Path) -> Path:
        """Return a file in a folder of its own, because some formats write several."""
        kind = f"{self.kind}-b{setting.batch}" if setting.frozen else self.kind
        kind += f"-{setting.dtype}" if setting.dtype != FP32 else ""
        layout = None if self.runtime is None else self.runtime.layout(_options(setting))
        # Of another type there is no other layout.
        kind += f"-{layout}" if layout == PLAIN and setting.dtype == FP32 else ""
        return folder / kind / f"model{self.suffix}"

    def prepare(self, model: nn.Module, setting: Setting, folder: Path) -> Bind:
        """Return the loaded artifact, exported first where it is not there yet."""
        path = self.artifact(setting, folder)
        if not path.exists():
            self.export(model, setting, path)
        return self.load(path, setting)

    def export(self, model: nn.Module, setting: Setting, path: Path) -> None:
        """Write a model, as :meth:`prepare` takes it, with the batch fixed or free as ``setting`` says.

        Raises:
            ZooError: the format cannot express the model; no file is left.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            options = _options(setting)
            self.write(in_half(model) if options.dtype == FP16 else model, options, temporary)
            if options.dtype == INT8:
                images = setting.images
                if images is None:
                    images = Draws(np.random.default_rng(1), setting.input_size).unlike(_CALIBRATED)
                self.quantize(temporary, options, images)

    @abstractmethod
    def write(self, model: nn.Module, options: ExportOptions, path: Path) -> None:
        """Write a model to a temporary ``path``, which is renamed once it is whole.

        Raises:
            ZooError: the format cannot express the model.
        """

    def quantize(self, path: Path, options: ExportOptions, images: np.ndarray) -> None:
        """Rewrite the file at ``path`` in int8, with the ranges that it has on ``images``, in place.

        Raises:
            ZooError: there is nothing in it to rewrite.
        """
        raise NotImplementedError(f"{self.kind} has no {INT8}, so its dtypes should not name it")

    @abstractmethod
    def load(self, path: Path, setting: Setting) -> Bind:
        """Return the function that binds batches to the artifact at ``path``.

        Raises:
            ZooError: it cannot be loaded here.
        """


def _options(setting: Setting) -> ExportOptions:
    """Return what a file for ``setting`` is exported with; its lowering is the model's."""
    batch = setting.batch if setting.frozen else None
    return ExportOptions(
        input_size=setting.input_size, batch=batch, dtype=setting.dtype, layout=setting.layout
    )
