import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from zoo.training import checkpoint, log

SCRIPT = Path(__file__).with_name("two_processes.py")


def launch(*words: str) -> str:
    """Run Python with the words as a user would, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(Path(zoo.__file__).parents[1])}
    if not torch.accelerator.is_available():
        del environment["ACCELERATE_USE_CPU"]  # nobody who has no accelerator thinks of it
    command = [sys.executable, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_accelerate_launches_the_command(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    launcher = "-m accelerate.commands.launch --num_processes 2 --num_machines 1 --mixed_precision no"
    launcher += " --dynamo_backend no"
    words = (
        f"--model mobilenetv3_small_100_dpk --phases 16:2 --batch-size 4 --data {data} --run-dir {run_dir}"
    )
    printed = launch(*f"{launcher} -m zoo.train {words}".split())
    assert printed.count("epoch") == 2, "one process prints"
    progress = checkpoint.read_progress(run_dir)
    assert progress.finished
    assert progress.step == 2, "the four images of an epoch are one update of both"


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    """The same global batch split in two gives the same losses and weights, up to rounding."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        printed = launch(*launcher, str(count), str(SCRIPT), str(folder))
        assert printed.count("epoch") == 4, "one process prints"
    logs = [(tmp_path / count / log.FILE).read_text().splitlines() for count in ("1", "2")]
    one, two = ([json.loads(line)["loss"] for line in lines] for lines in logs)
    assert two == pytest.approx(one, abs=2e-4)
    assert one[-1] < one[0]
    alone, pair = (checkpoint.read_ema(tmp_path / count) for count in ("1", "2"))
    for name, value in alone.items():
        torch.testing.assert_close(pair[name], value, rtol=1e-4, atol=1e-5)
