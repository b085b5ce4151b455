import json
from typing import Any

import pytest

from zoo.errors import ZooError
from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe, parse_phases


def test_round_trip_through_json() -> None:
    recipe = Recipe(
        "resnet18_kw",
        phases=((16, 3), (32, 2)),
        images_per_epoch=1000,
        clip_grad=None,
        warm_start="static.safetensors",
        freeze=("*.vectors",),
        augmentation=Augmentation(vflip=False, scale=(0.9, 1.1)),
    )
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_sizes_spell_the_phases_out() -> None:
    assert Recipe("m", phases=((16, 2), (32, 1))).sizes == (16, 16, 32)


def test_phases_are_read() -> None:
    assert parse_phases(["16:4", "32:1"]) == ((16, 4), (32, 1))


@pytest.mark.parametrize("word", ["16", "16:", ":4", "a:4", "16:-1", "16:4:2", ""])
def test_a_word_that_is_no_phase(word: str) -> None:
    with pytest.raises(ZooError, match=r"is not a phase; write SIZE:EPOCHS"):
        parse_phases([word])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("phases", ()),
        ("phases", ((4, 1),)),
        ("phases", ((32, 0),)),
        ("batch_size", 0),
        ("images_per_epoch", 0),
        ("threads", 0),
        ("warmup", 1.0),
        ("label_smoothing", -0.1),
        ("ema_decay", 1.0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("weight_decay", -1.0),
        ("weight_decay", float("inf")),
        ("clip_grad", 0.0),
        ("mixup", -0.1),
        ("cutmix", float("inf")),
        ("seed", -1),
        ("seed", 2**31),
        ("shared_epochs", -1),
        ("shared_epochs", 31),
        ("shared_images", 0),
        ("amp", "fp16"),
    ],
)
def test_values_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(ZooError, match=f"^{field} is .*; it must be"):
        Recipe("m", **{field: value})


def test_images_that_share_kernels_in_no_epoch() -> None:
    with pytest.raises(ZooError, match=r"shared_images is 8, but in 0 epochs; set shared_epochs"):
        Recipe("m", shared_images=8)


@pytest.mark.parametrize("place", ["recipe", "augmentation"])
def test_a_recipe_of_another_version(place: str) -> None:
    values = Recipe("m").to_dict()
    (values if place == "recipe" else values["augmentation"])["jitter"] = 0.5
    with pytest.raises(ZooError, match="the recipe says jitter, which this version of the zoo does not know"):
        Recipe.from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {"shared_epochs": 30},
        {"shared_epochs": 1, "shared_images": 1},
        {"warmup": 0.0, "label_smoothing": 0.0, "ema_decay": 0.0, "weight_decay": 0.0},
        {"phases": ((8, 1),), "batch_size": 1, "images_per_epoch": 1, "threads": 1, "seed": 2**31 - 1},
    ],
)
def test_ends_of_the_ranges(values: dict[str, Any]) -> None:
    Recipe("m", **values)
