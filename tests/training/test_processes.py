"""One process or several: what they compute on, whether all train together, and that they learn alike."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from zoo import pretrained
from zoo.errors import ZooError
from zoo.training import checkpoint, log
from zoo.training._require import require
from zoo.training.loop import precision
from zoo.training.processes import check_joined, launched, on_cpu, on_cuda

SCRIPT = Path(__file__).with_name("two_processes.py")


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


@pytest.mark.parametrize(
    ("world", "local", "words"),
    [
        (None, None, "python"),
        ("1", "1", "python"),
        ("2", "2", "torchrun --nproc-per-node 2"),
        ("8", "4", "torchrun --nnodes 2 --nproc-per-node 4"),
    ],
)
def test_a_command_names_its_launcher(
    world: str | None, local: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WORLD_SIZE", world), ("LOCAL_WORLD_SIZE", local)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert " ".join(launched()) == words


def test_a_package_that_is_missing_is_one_sentence() -> None:
    with pytest.raises(ZooError, match=r"need the package no_such_package; install it from .*'\.\[train\]'"):
        require("no_such_package")


def launch(*words: str) -> str:
    """Run Python with the words as a user would, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(Path(zoo.__file__).parents[1])}
    if not torch.accelerator.is_available():
        del environment["ACCELERATE_USE_CPU"]  # nobody who has no accelerator thinks of it
    command = [sys.executable, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


ACCELERATE = "-m accelerate.commands.launch --num_processes 2 --num_machines 1 --mixed_precision no"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "named"),
    [
        # On CPU cores accelerate starts one process, however many are asked for.
        (f"{ACCELERATE} --dynamo_backend no", "" if torch.accelerator.is_available() else "python -m"),
        ("-m torch.distributed.run --standalone --nproc-per-node 2", "torchrun --nproc-per-node 2 -m"),
    ],
    ids=["accelerate", "torchrun"],
)
def test_a_launcher_starts_the_command(launcher: str, named: str, data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = (
        f"--model mobilenetv3_small_100_dpk --phases 16:2 --batch-size 4 --data {data} --run-dir {run_dir}"
    )
    printed = launch(*f"{launcher} -m zoo.train {words}".split())
    assert printed.count("epoch") == 2, "one process prints"
    progress = checkpoint.read_progress(run_dir)
    assert progress.finished
    assert f"{named} zoo.train --model" in progress.facts["command"]
    assert progress.step == 2, "the four images of an epoch are one update of both"


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    """The same global batch split in two gives the same losses and weights, up to rounding."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        printed = launch(*launcher, str(count), str(SCRIPT), str(folder))
        assert printed.count("epoch") == 8, "one process prints, of one training after the other"
    logs = [(tmp_path / count / log.FILE).read_text().splitlines() for count in ("1", "2")]
    one, two = ([json.loads(line)["loss"] for line in lines] for lines in logs)
    assert two == pytest.approx(one, abs=2e-4)
    assert one[-1] < one[0]
    for folder in (".", "again"):
        alone, pair = (checkpoint.read_ema(tmp_path / count / folder) for count in ("1", "2"))
        for name, value in alone.items():
            torch.testing.assert_close(pair[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_train_all_runs_of_a_recipe(data: Path, tmp_path: Path) -> None:
    words = "--recipe cpu --model mobilenetv3_small_100_kw --phases 16:1 --images-per-epoch 4 --batch-size 4"
    words += f" --threads 1 --save-every 60 --eval-every 0 --data {data} --run-dir {tmp_path / 'kw'}"
    printed = launch(
        *f"-m torch.distributed.run --standalone --nproc-per-node 2 -m zoo.train {words}".split()
    )
    assert [line.split(":")[0] for line in printed.splitlines() if line.startswith("run ")] == [
        "run 1 of 3",
        "run 2 of 3",
        "run 3 of 3",
    ]
    assert printed.count("warm start from") == 2, "one process prints"
    found = checkpoint.read_progress(tmp_path / "kw")
    assert found.finished
    assert [run["images_seen"] for run in pretrained.lineage(found.facts["started_from"])] == [4 * 58, 4 * 42]
