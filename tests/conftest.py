"""Fixtures and helpers every test folder shares."""

import ctypes
import os
import sys
import time
from collections.abc import Iterator

import pytest
import torch

# Seconds since the epoch after which no test begins, so that a run of limited time ends with its report.
BEGIN_UNTIL = float(os.environ.get("TESTS_BEGIN_UNTIL", "inf"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Skip a test that would begin after ``TESTS_BEGIN_UNTIL``, before its fixtures are made."""
    if time.time() > BEGIN_UNTIL:
        pytest.skip("no time was left for it before TESTS_BEGIN_UNTIL")


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
