"""The comparison of docs/seeds.py: which runs it compares, and what it writes."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_spared import RECIPE, run, split
from zoo.errors import ZooError

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import comparing
import seeds


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return runs of a model with two seeds, and one each of what cannot be compared with them."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(comparing.memory, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(comparing, "load_cifar10", lambda name, folder: split(6))
    start = {"sha256": "a"}
    return {
        "one": run(tmp_path / "one", RECIPE, started_from=start),
        "other": run(tmp_path / "other", replace(RECIPE, seed=1), started_from=start),
        "faster": run(tmp_path / "faster", replace(RECIPE, seed=2, lr=0.1), started_from=start),
        "elsewhere": run(tmp_path / "elsewhere", replace(RECIPE, seed=2), started_from={"sha256": "b"}),
    }


def compare(runs: dict[str, Path], *names: str) -> int:
    out = next(iter(runs.values())).parent
    words = [str(runs[name]) for name in names]
    return seeds.main(["--runs", *words, "--draws", "2", "--out", str(out)])


def test_it_writes_the_figures_of_every_seed(runs: dict[str, Path], tmp_path: Path) -> None:
    assert compare(runs, "one", "other") == 0
    record = json.loads((tmp_path / "seeds.json").read_text())
    assert [(row["model"], row["seed"]) for row in record["rows"]] == [
        ("resnet10_static", 0),
        ("resnet10_static", 1),
    ]
    assert record["draws"] == 2
    assert record["images_seen"] == 8
    assert record["from_weights"] is True


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["one", "faster"], "differ in lr too"),
        (["one", "elsewhere"], "start from other weights"),
        (["one"], "two runs or more of resnet10_static"),
        (["one", "one"], "two runs or more of resnet10_static"),
    ],
)
def test_it_refuses_runs_that_differ_in_more(runs: dict[str, Path], names: list[str], why: str) -> None:
    with pytest.raises(ZooError, match=why):
        compare(runs, *names)
