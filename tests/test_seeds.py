"""The comparison of docs/seeds.py: which runs it compares, and what it writes."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.test_spared import RECIPE, run, split
from zoo.errors import ZooError
from zoo.layers import DynamicConv2d

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import comparing
import seeds

KW = replace(RECIPE, model="resnet10_kw")

#: Runs of a model with two seeds, and others: their recipe, and the sha256 of the weights they start from.
RUNS = {
    "one": (RECIPE, "a"),
    "again": (RECIPE, "a"),
    "other": (replace(RECIPE, seed=1), "a"),
    "faster": (replace(RECIPE, seed=2, lr=0.1), "a"),
    "elsewhere": (replace(RECIPE, seed=2), "b"),
    "kw": (KW, "b"),
    "kw other": (replace(KW, seed=1), "b"),
    "kw frozen": (replace(KW, freeze=("*.vectors",)), "b"),
    "anew": (KW, None),
    "anew other": (replace(KW, seed=1), None),
}

Compare = Callable[..., dict[str, Any]]


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Return a function that trains the runs of these names, compares them and returns what is written."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(comparing.memory, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(comparing, "load_cifar10", lambda name, folder: split(6))

    def compared(*names: str) -> dict[str, Any]:
        for name in dict.fromkeys(names):
            recipe, start = RUNS[name]
            run(tmp_path / name, recipe, started_from=start and {"sha256": start})
        words = [str(tmp_path / name) for name in names]
        assert seeds.main(["--runs", *words, "--draws", "2", "--out", str(tmp_path)]) == 0
        return json.loads((tmp_path / "seeds.json").read_text())

    return compared


def test_it_writes_the_figures_of_every_seed(compare: Compare) -> None:
    record = compare("one", "other")
    assert [(row["model"], row["seed"]) for row in record["rows"]] == [
        ("resnet10_static", 0),
        ("resnet10_static", 1),
    ]
    assert record["draws"] == 2
    assert record["images_seen"] == 8
    assert record["from_weights"] is True


def test_it_tells_how_far_every_layers_kernels_move(compare: Compare) -> None:
    static, *_, kw = compare("one", "other", "kw", "kw other")["rows"]
    assert "moves" not in static
    layers = [
        name
        for name, one in zoo.create_model("resnet10_kw").named_modules()
        if isinstance(one, DynamicConv2d)
    ]
    assert list(kw["moves"]) == layers
    assert all(0 < move < 1 for move in kw["moves"].values())


def test_models_with_a_run_each_are_held_against_the_twin_image_by_image(compare: Compare) -> None:
    static, kw = compare("one", "kw")["rows"]
    assert "gain" not in static
    for gain, figure in (("gain", "top1"), ("gain_augmented", "top1_augmented")):
        assert kw[gain][0] == pytest.approx(kw[figure] - static[figure], abs=0.02)


def test_runs_with_frozen_parameters_are_told_apart(compare: Compare) -> None:
    static, kw, frozen = compare("one", "kw", "kw frozen")["rows"]
    assert [row["frozen"] for row in (static, kw, frozen)] == [[], [], ["*.vectors"]]
    for row in (kw, frozen):
        assert row["gain"][0] == pytest.approx(row["top1"] - static["top1"], abs=0.02)
    assert frozen["gain_unfrozen"][0] == pytest.approx(kw["top1"] - frozen["top1"], abs=0.02)


def test_the_file_has_the_name_that_is_asked_for(compare: Compare, tmp_path: Path) -> None:
    compare("one", "other")
    words = ["--runs", str(tmp_path / "one"), str(tmp_path / "other"), "--out", str(tmp_path)]
    seeds.main([*words, "--draws", "1", "--name", "others"])
    assert json.loads((tmp_path / "others.json").read_text())["draws"] == 1
    assert json.loads((tmp_path / "seeds.json").read_text())["draws"] == 2


@pytest.mark.parametrize(
    ("names", "from_weights"),
    [(("one", "other", "kw", "kw other"), True), (("anew", "anew other"), False)],
)
def test_models_may_start_from_weights_of_their_own_or_from_none(
    compare: Compare, names: tuple[str, ...], from_weights: bool
) -> None:
    assert compare(*names)["from_weights"] is from_weights


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["one", "faster"], "differ in lr too"),
        (["one", "other", "anew", "anew other"], "some of these runs start from weights and some from none"),
        (["one", "elsewhere"], "start from other weights"),
        (["one"], "give two runs or more"),
        (["one", "one"], "give two runs or more"),
        (["kw", "one", "again"], "those of resnet10_static each with a seed of its own"),
    ],
)
def test_it_refuses_runs_that_differ_in_more(compare: Compare, names: list[str], why: str) -> None:
    with pytest.raises(ZooError, match=why):
        compare(*names)
