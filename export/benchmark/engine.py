"""What every way to run a model has in common.

An engine is asked whether it runs here, may write a file, and turns a batch into a call to time. On CUDA the
batch lies on the device before the call and its result stays there, and a call ends when the device has
finished; formats whose runtime takes numpy arrays alone copy both ways within the call, which their
``copies`` says.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import nn


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
