"""The comparison of docs/spared.py: which runs it compares, and what it writes."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import zoo
from zoo.errors import ZooError
from zoo.pretrained import CIFAR10_CLASSES
from zoo.training.augment import Augmentation
from zoo.training.data import Split
from zoo.training.loop import train
from zoo.training.recipe import Recipe

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import comparing
import spared

RECIPE = Recipe("resnet10_static", phases=((8, 1),), batch_size=8)


def split(count: int) -> Split:
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    return Split(images, torch.arange(count) % 10, CIFAR10_CLASSES, "made up", "0")


def run(folder: Path, recipe: Recipe, **facts: object) -> Path:
    folder.mkdir()
    train(recipe, zoo.create_model(recipe.model), split(8), folder, facts=facts)
    return folder


def spare(recipe: Recipe, **shares: float) -> Recipe:
    return replace(recipe, augmentation=Augmentation(**shares))


def test_it_writes_the_figures_of_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(comparing.memory, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(comparing, "load_cifar10", lambda name, folder: split(6))
    runs = [
        run(tmp_path / "warped", RECIPE),
        run(tmp_path / "turned", spare(RECIPE, upright=0.5, turned=0.25), data=None),
    ]
    words = ["--runs", *map(str, runs), "--images", "4", "--draws", "2", "--out", str(tmp_path)]
    assert spared.main(words) == 0
    record = json.loads((tmp_path / "spared.json").read_text())
    assert [(row["upright"], row["turned"]) for row in record["rows"]] == [(0.0, 0.0), (0.5, 0.25)]
    assert all(0 <= row["top1"] <= 100 and "top1_augmented_std" in row for row in record["rows"])
    assert {row["curves"]["images"] for row in record["rows"]} == {4}
    assert (record["model"], record["images_seen"]) == ("resnet10_static", 8)
    with pytest.raises(ZooError, match="--draws is 0; it must be at least 1"):
        spared.main([*words, "--draws", "0"])
    with pytest.raises(ZooError, match=r"there is no folder .*nowhere; make it"):
        spared.main([*words, "--out", str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("other", "facts", "why"),
    [
        (replace(spare(RECIPE, turned=0.5), lr=0.5), {}, "differ in lr too"),
        (spare(RECIPE, degrees=90.0, turned=0.5), {}, "differ in degrees too"),
        (
            spare(RECIPE, turned=0.5),
            {"started_from": {"model": "resnet10_static"}},
            "start from other weights",
        ),
        (spare(RECIPE, turned=0.5), {"data": {"sha256": "1"}}, "differ in data too"),
    ],
)
def test_runs_that_differ_in_more_are_refused(other: Recipe, facts: dict[str, object], why: str) -> None:
    runs = {
        Path("one"): spared.Progress(RECIPE),
        Path("two"): spared.Progress(spare(RECIPE, upright=0.5)),
        Path("other"): spared.Progress(other, facts=dict(facts)),
    }
    with pytest.raises(ZooError, match=f"one and other {why}"):
        spared.check_alike(runs)
    runs[Path("other")] = spared.Progress(
        replace(spare(RECIPE, turned=0.5), threads=1, compile=True, channels_last=False)
    )
    spared.check_alike(runs)


@pytest.mark.parametrize("recipes", [[RECIPE], [RECIPE, replace(RECIPE, threads=1)]])
def test_there_must_be_something_to_compare(recipes: list[Recipe]) -> None:
    with pytest.raises(ZooError, match="give two runs or more, each with a share of its own"):
        spared.check_alike(
            {Path(str(index)): spared.Progress(recipe) for index, recipe in enumerate(recipes)}
        )
