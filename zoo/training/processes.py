"""Training in several processes, on what accelerate finds: who goes first, who prints."""

import os
from contextlib import AbstractContextManager
from typing import Any

import torch

from zoo.errors import ZooError
from zoo.training._require import require


def progress_bar(*args: Any, **options: Any) -> Any:
    """Return a tqdm bar, shown in the first process alone and only where there is a terminal."""
    disable = None if is_first_process() else True
    return require("tqdm").tqdm(*args, leave=False, disable=disable, **options)


def first_process_first() -> AbstractContextManager[None]:
    """Let the first process of each machine run the block alone, then the others; all must enter it."""
    return require("accelerate").PartialState(cpu=on_cpu()).local_main_process_first()


def on_cpu() -> bool:
    """Tell whether accelerate shall use the CPU: because it is told to, or because there is nothing else.

    Without being told, accelerate takes processes that find no accelerator for so many runs of one process.
    """
    told = require("accelerate").utils.parse_flag_from_env("ACCELERATE_USE_CPU")
    return told or not torch.accelerator.is_available()


def on_cuda() -> bool:
    """Tell whether accelerate uses a CUDA device."""
    return torch.cuda.is_available() and not on_cpu()


def leave() -> None:
    """Part from the other processes, when all training is done."""
    require("accelerate").PartialState().destroy_process_group()


def check_joined(processes: int, device: torch.device) -> None:
    """Check that the processes a launcher started train together.

    Args:
        processes: how many accelerate has joined.
        device: of this one.

    Raises:
        ZooError: it has not joined them all, so that each would train alone and write over the others' files.
    """
    if processes != count():
        raise ZooError(
            f"{count()} processes were launched, but accelerate has joined {processes} on {device.type}; "
            "launch one process, or set ACCELERATE_USE_CPU=true to train on the CPU."
        )


def count() -> int:
    """Return how many processes a launcher started: torchrun and accelerate launch say so in each."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> list[str]:
    """Return the words of a command line that come before ``-m``, those of a launcher where one was used."""
    if count() == 1:
        return ["python"]
    here = int(os.environ.get("LOCAL_WORLD_SIZE", count()))
    nodes = ["--nnodes", str(count() // here)] if count() > here else []
    return ["torchrun", *nodes, "--nproc-per-node", str(here)]


def is_first_process() -> bool:
    """Tell whether this is the one process that prints and writes; launchers set ``$RANK`` in each."""
    return os.environ.get("RANK", "0") == "0"
