"""The comparison of docs/distilled.py: which runs it compares, and what it writes."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.test_spared import RECIPE, split
from zoo.errors import ZooError
from zoo.training.checkpoint import Progress
from zoo.training.evaluate import Evaluation

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import comparing
import distilled

TAUGHT = replace(RECIPE, teacher="resnet18_static", attention=0.5)


def test_it_writes_what_the_teacher_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four images the first run has one right, warped two; the second two more, warped one less."""
    right = {
        "alone": [[1, 0, 0, 0], [1, 1, 0, 0]],
        "taught": [[1, 1, 1, 0], [1, 0, 0, 0]],
    }
    recipes = {"alone": RECIPE, "taught": TAUGHT}
    measured = iter(right.values())
    monkeypatch.setattr(comparing.memory, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(comparing, "load_cifar10", lambda name, folder: split(4))
    monkeypatch.setattr(comparing, "finished_run", lambda run: Progress(recipes[run.name]))
    monkeypatch.setattr(comparing, "load_weights", lambda model, path: None)
    monkeypatch.setattr(
        comparing,
        "evaluate",
        lambda model, test, draws: Evaluation(
            torch.tensor(next(measured)).bool(), 0.0, [], {"sha256": test.sha256}
        ),
    )
    words = ["--runs", "runs/alone", "runs/taught", "--draws", "1", "--out", str(tmp_path)]
    assert distilled.main(words) == 0
    record = json.loads((tmp_path / "distilled.json").read_text())
    alone, taught = record["rows"]
    assert alone == {"teacher": None, "top1": 25.0, "top1_augmented": 50.0}
    assert taught.pop("gain") == pytest.approx([50, 50 - 56.6, 50 + 56.6], abs=0.05)
    assert taught.pop("gain_augmented") == pytest.approx([-25, -25 - 49, -25 + 49], abs=0.05)
    assert taught == {"teacher": "resnet18_static", "top1": 75.0, "top1_augmented": 25.0}
    assert (record["model"], record["draws"]) == ("resnet10_static", 1)


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ([Progress(RECIPE)], "give two runs, first the one without a teacher"),
        ([Progress(TAUGHT), Progress(RECIPE)], "give two runs, first the one without a teacher"),
        ([Progress(RECIPE), Progress(RECIPE)], "give two runs, first the one without a teacher"),
        ([Progress(RECIPE), Progress(replace(TAUGHT, lr=0.5))], "0 and 1 differ in lr too"),
        (
            [Progress(RECIPE), Progress(TAUGHT, facts={"started_from": {"images_seen": 1}})],
            "start from other weights",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs: list[Progress], why: str) -> None:
    with pytest.raises(ZooError, match=why):
        distilled.check_pair({Path(str(index)): run for index, run in enumerate(runs)})


def test_a_pair_may_differ_in_its_teacher() -> None:
    distilled.check_pair({Path("alone"): Progress(RECIPE), Path("taught"): Progress(TAUGHT)})
