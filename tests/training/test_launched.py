"""Which device accelerate is asked for, and whether it took all processes along."""

import pytest
import torch

from zoo.errors import ZooError
from zoo.training.loop import precision
from zoo.training.processes import check_joined, on_cpu, on_cuda


@pytest.mark.parametrize(
    ("told", "accelerator", "expected"),
    [("true", True, True), ("true", False, True), ("false", True, False), ("false", False, True)],
)
def test_the_cpu_is_used_where_it_is_asked_for_or_all_there_is(
    monkeypatch: pytest.MonkeyPatch, told: str, accelerator: bool, expected: bool
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", told)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: accelerator)
    assert on_cpu() is expected
    assert on_cuda() is not expected
    assert precision(None) == ("no" if expected else "bf16")
    assert (precision("bf16"), precision("no")) == ("bf16", "no")


def test_processes_that_are_not_joined_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_joined(1, torch.device("mps"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_joined(2, torch.device("cpu"))
    with pytest.raises(ZooError, match="2 processes were launched, but accelerate has joined 1 on mps"):
        check_joined(1, torch.device("mps"))
