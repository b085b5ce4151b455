"""Fixtures and helpers every test folder shares."""

import ctypes
import sys
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    # Many small tests in parallel processes: threads of their own would only queue.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _trimmed() -> Iterator[None]:
    """Give freed memory back after each test: many models in turn leave gigabytes of gaps in a worker."""
    yield
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
        if trim:
            trim(0)
