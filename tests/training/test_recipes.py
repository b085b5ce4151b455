"""Recipes: each stands for every model, and the command line has the last word."""

from dataclasses import replace

import pytest

from zoo import train
from zoo.errors import ZooError
from zoo.layers import FAMILIES
from zoo.models import list_models
from zoo.training import recipes
from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_stands_for_every_model(name: str) -> None:
    for model in list_models():
        found = recipes.named(name, model)
        assert isinstance(found, Recipe)
        assert found.model == model
        assert Recipe.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(
    ("model", "start"),
    [
        ("resnet18_static", "resnet18_static"),
        ("resnet18_kw", "resnet18_static"),
        ("mobilenetv3_small_100_dyconv", "mobilenetv3_small_100_static"),
        ("resnet18_dpk", "resnet18_dpk"),
        ("resnet18_se", "resnet18_se"),
    ],
)
def test_a_model_is_finished_from_the_base_that_it_can_hold(model: str, start: str) -> None:
    assert recipes.named("finish", model).warm_start == f"runs/{start}_base/checkpoint.safetensors"


def test_all_families_are_finished_alike() -> None:
    found = [recipes.named("finish", f"resnet18_{family}") for family in ("static", *FAMILIES, "se")]
    assert {replace(recipe, model="", warm_start=None) for recipe in found} == {
        Recipe("", phases=((32, 4),), lr=1e-3, augmentation=Augmentation(upright=0.5))
    }


def test_a_base_sees_the_images_that_it_is_finished_with() -> None:
    for model in ("resnet18_static", "resnet18_kw", "resnet18_dpk"):
        base, finish = recipes.named("cpu", model), recipes.named("finish", model)
        assert base.augmentation == finish.augmentation
        assert base.phases[-1][0] == finish.phases[-1][0] == 32


def test_only_a_family_without_room_for_static_kernels_starts_its_base_from_another() -> None:
    starts = {
        name: recipes.named("cpu", f"resnet18_{name}").warm_start for name in ("static", "kw", "se", "dpk")
    }
    assert starts.pop("dpk") == "runs/resnet18_static_base/checkpoint.safetensors"
    assert set(starts.values()) == {None}


def test_the_command_line_has_the_last_word(tmp_path) -> None:
    words = [
        "--model",
        "resnet10_kw",
        "--recipe",
        "gpu",
        "--phases",
        "16:2",
        "--upright",
        "0.5",
        "--turned",
        "0.25",
        "--lr",
        "0.5",
    ]
    given = train._recipe(train._parser().parse_args(words), tmp_path)
    own = recipes.named("gpu", "resnet10_kw")
    assert given.augmentation == replace(own.augmentation, upright=0.5, turned=0.25)
    assert (given.phases, given.lr, given.augmentation.upright) == (((16, 2),), 0.5, 0.5)
    assert (given.batch_size, given.ema_decay) == (own.batch_size, own.ema_decay)


def test_an_unknown_recipe_is_named_with_the_known_ones() -> None:
    known = "cpu, finish, gpu"
    with pytest.raises(ZooError, match=rf"there is no recipe 'gpus'; there are {known}\. Did you mean gpu"):
        recipes.named("gpus", "resnet18_kw")
