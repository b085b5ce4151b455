"""What a step frees, the next one has without asking the system."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import evaluate
from zoo.training import checkpoint, memory, speed

from .helpers import SHORT, Command

_PAGES = """
import resource, sys, torch
from zoo.training.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if "keep" in sys.argv:
    assert keep_freed_memory()
for _ in range(4):
    last = faults()
print(last)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept() -> None:
    faults = []
    for words in ([], ["keep"]):
        command = [sys.executable, "-c", _PAGES, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        faults.append(int(done.stdout))
    given_back, kept = faults
    assert kept < given_back / 4


@pytest.mark.usefixtures("tiny_models")
def test_commands_keep_it(
    zoo_train: Command, run_dir: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: calls.append("kept"))
    assert zoo_train(*SHORT) == 0
    assert calls == ["kept"]
    words = ["--models", "resnet10_fgk", "--lowerings", "auto", "--batch", "2", "--side", "8"]
    assert speed.main([*words, "--rounds", "1"]) == 0
    assert calls == ["kept"] * 2
    trained = ["--model", "testnet_static", "--checkpoint", str(run_dir / checkpoint.FILE)]
    assert evaluate.main([*trained, "--data", str(data)]) == 0
    assert calls == ["kept"] * 3
