"""Recipes: each stands for every model that has a use for it, and the command line has the last word."""

from dataclasses import replace
from pathlib import Path

import pytest

from zoo import train
from zoo.catalog import split_name
from zoo.errors import ZooError
from zoo.layers import FAMILIES
from zoo.models import list_models
from zoo.training import checkpoint, recipes
from zoo.training.augment import Augmentation
from zoo.training.recipe import Recipe

#: Families whose models are finished from the base of their static twin.
HOLDERS = {name for name, layer in FAMILIES.items() if layer.holds_static}

#: Recipes of bases, and those that finish from them.
PAIRS = [("cpu", "finish"), ("gpu", "gpu_finish")]

#: A longer base is for models that others are finished from, or that are none of a family.
LONGER = "cpu_longer"


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_stands_for_every_model_that_has_a_use_for_it(name: str) -> None:
    useless = {**dict.fromkeys(dict(PAIRS), HOLDERS), LONGER: FAMILIES}.get(name, ())
    models = [each for each in list_models() if split_name(each)[1] not in useless]
    assert {"resnet18_static", "resnet18_se"} < set(models)
    for model in models:
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


def test_families_are_finished_alike_unless_they_start_with_less() -> None:
    nearly = {name for name, layer in FAMILIES.items() if layer.holds_static == "nearly"}
    assert "fgk" in nearly
    alike = Recipe("", phases=((32, 2),), lr=5e-4, seed=2, augmentation=Augmentation(upright=0.5))
    for family in ("static", *FAMILIES, "se"):
        recipe = recipes.named("finish", f"resnet18_{family}")
        more = {"phases": ((32, 8),), "lr": 1e-3} if family in nearly else {}
        assert replace(recipe, model="", warm_start=None) == replace(alike, **more)


@pytest.mark.parametrize(("own", "end"), PAIRS)
def test_a_base_sees_the_images_that_it_is_finished_with(own: str, end: str) -> None:
    for model in ("resnet18_static", "resnet18_se", "resnet18_dpk"):
        base, finish = recipes.named(own, model), recipes.named(end, model)
        assert base.augmentation == finish.augmentation
        assert base.phases[-1][0] == finish.phases[-1][0] == 32


@pytest.mark.parametrize("own", dict(PAIRS))
def test_only_a_family_without_room_for_static_kernels_starts_its_base_from_another(own: str) -> None:
    starts = {name: recipes.named(own, f"resnet18_{name}").warm_start for name in ("static", "se", "dpk")}
    assert starts.pop("dpk") == "runs/resnet18_static_base/checkpoint.safetensors"
    assert set(starts.values()) == {None}


@pytest.mark.parametrize(("own", "end"), PAIRS)
@pytest.mark.parametrize("family", sorted(HOLDERS))
def test_a_base_that_nothing_is_finished_from_is_refused(family: str, own: str, end: str) -> None:
    model, base = f"resnet18_{family}", "runs/resnet18_static_base"
    words = rf"recipe {end} starts {model} from the base of its static twin resnet18_static, .* run python"
    with pytest.raises(ZooError, match=words) as caught:
        recipes.named(own, model)
    # What it says to run makes the file that the model is then finished from.
    told = str(caught.value).partition("python -m zoo.train ")[2].removesuffix(" instead.").split()
    options = train._parser().parse_args(told)
    assert train._recipe(options, Path(options.run_dir)).model == "resnet18_static"
    assert options.recipe == own
    assert options.run_dir == base
    assert recipes.named(end, model).warm_start == f"{base}/{checkpoint.FILE}"


def test_a_longer_base_goes_on_as_the_family_does_that_cannot_hold_its_kernels() -> None:
    longer, own = recipes.named(LONGER, "resnet18_static"), recipes.named("cpu", "resnet18_dpk")
    assert longer.warm_start == "runs/resnet18_static_base/checkpoint.safetensors"
    assert replace(own, model="resnet18_static", shared_epochs=0, shared_images=None) == longer
    with pytest.raises(ZooError, match="gives resnet18_dpk is as long already; finish from that"):
        recipes.named(LONGER, "resnet18_dpk")
    told = (
        "starts resnet18_kw from .* --recipe cpu_longer --model resnet18_static --run-dir runs/longer instead"
    )
    with pytest.raises(ZooError, match=told):
        recipes.named(LONGER, "resnet18_kw")


def test_the_command_line_has_the_last_word(tmp_path) -> None:
    words = [
        "--model",
        "resnet10_kw",
        "--recipe",
        "gpu_finish",
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
    own = recipes.named("gpu_finish", "resnet10_kw")
    assert given.augmentation == replace(own.augmentation, upright=0.5, turned=0.25)
    assert (given.phases, given.lr, given.augmentation.upright) == (((16, 2),), 0.5, 0.5)
    assert (given.batch_size, given.ema_decay) == (own.batch_size, own.ema_decay)


def test_an_unknown_recipe_is_named_with_the_known_ones() -> None:
    known = "cpu, cpu_longer, finish, gpu, gpu_finish"
    with pytest.raises(ZooError, match=rf"there is no recipe 'gpus'; there are {known}\. Did you mean gpu"):
        recipes.named("gpus", "resnet18_kw")


@pytest.mark.parametrize(("base", "end"), [("cpu", "finish"), ("gpu", "gpu_finish")])
def test_no_run_on_the_way_to_a_model_draws_like_another(base: str, end: str) -> None:
    """With the same seed the same images would come again, warped alike."""
    ways = [[(base, "resnet18_static"), (base, "resnet18_dpk"), (end, "resnet18_dpk")]]
    ways += [[("cpu", "resnet18_static"), (LONGER, "resnet18_static"), ("finish", "resnet18_kw")]]
    for way in ways:
        assert len({recipes.named(name, model).seed for name, model in way}) == 3
