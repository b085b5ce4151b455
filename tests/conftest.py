"""Fixtures and helpers every test folder shares."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    # Many small tests in parallel processes: threads of their own would only queue.
    torch.set_num_threads(1)
