import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zoo.training import log, speed

RECORD = {"epoch": 2, "size": 16, "loss": 1.25, "train_top1": 40.0, "images_per_second": 900.4}


def test_cut_keeps_the_first_lines_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch in (1, 2, 3):
        log.append(tmp_path, {"epoch": epoch})
    log.cut(tmp_path, 2)
    lines = (tmp_path / log.FILE).read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]

    def fail(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        log.cut(tmp_path, 1)
    assert (tmp_path / log.FILE).read_text().splitlines() == lines
    assert [file.name for file in tmp_path.iterdir()] == [log.FILE]


def test_the_learning_curve_is_drawn_of_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sizes = []
    for epoch, more in ((1, {}), (2, {"top1": 40.0}), (3, {"size": 32, "top1": 45.0})):
        log.append(tmp_path, RECORD | {"epoch": epoch} | more)
        log.draw(tmp_path)
        sizes.append((tmp_path / log.PICTURE).stat().st_size)
    assert (tmp_path / log.PICTURE).read_bytes().startswith(b"\x89PNG")
    assert len(set(sizes)) == 3, "each epoch adds to it"
    assert sorted(file.name for file in tmp_path.iterdir()) == [log.PICTURE, log.FILE]


def test_summary() -> None:
    assert log.summary(RECORD, 3) == "epoch 2/3 at 16px, loss 1.250, train 40.0 %, 900 images/s"
    assert log.summary(RECORD | {"top1": 51.5}, 3).endswith("900 images/s, test 51.50 %")
    assert log.summary(RECORD | {"top1_held_out": 51.5}, 3).endswith("900 images/s, held out 51.50 %")


def test_peak_memory_stays_when_memory_is_given_back() -> None:
    """In a process of its own: the peak of a test worker may be most of the machine's memory."""
    program = (
        "import torch; torch.cuda.is_available = lambda: False; from zoo.training import log;"
        "before = log.peak_memory_mb(); block = bytearray(b'x') * ((before + 50) * 2**20); del block;"
        "print(before, log.peak_memory_mb())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = map(int, ran.stdout.split())
    assert 50 < before < 100_000, "in MiB"
    assert after >= before + 50


def test_peak_memory_is_that_of_the_process_not_of_its_parent() -> None:
    """getrusage of a new process starts at what its parent holds."""
    block = bytearray(b"x") * (2**20 * 3000)
    measured = speed.peak_memory(speed.Candidate("resnet10_static", batch=2, side=8), threads=1)
    assert measured is None or 100 < measured < len(block) / 2**20


def test_peak_memory_is_unknown_without_the_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(log, "_STATUS", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert log.peak_memory_mb() is None
