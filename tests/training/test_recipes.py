"""Recipes: from nothing to every model, and the command line has the last word."""

from dataclasses import replace

import pytest

from zoo import train
from zoo.catalog import split_name
from zoo.errors import ZooError
from zoo.layers import FAMILIES
from zoo.models import list_models
from zoo.training import recipes
from zoo.training.recipe import Recipe

#: Families that can hold the kernels of their static twin, exactly or nearly.
HOLDERS = sorted(name for name, layer in FAMILIES.items() if layer.holds_static)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_takes_every_model_from_nothing_to_full_size(name: str) -> None:
    for model in list_models():
        runs = recipes.named(name, model)
        assert runs[-1].model == model
        assert {run.warm_start for run in runs} == {None}, "each goes on from the one before"
        assert len({run.seed for run in runs}) == len(runs), "else the same images come again, warped alike"
        assert len({run.augmentation for run in runs}) == 1
        assert {run.phases[-1][0] for run in runs} == {32}
        for run in runs:
            assert Recipe.from_dict(run.to_dict()) == run


@pytest.mark.parametrize("name", recipes.names())
def test_families_share_all_but_the_end_with_their_twin(name: str) -> None:
    *before, end = recipes.named(name, "resnet18_static")
    assert {run.model for run in before} == {"resnet18_static"}
    for family in HOLDERS:
        *shared, own = recipes.named(name, f"resnet18_{family}")
        assert shared == before
        exactly = FAMILIES[family].holds_static == "exactly"
        if exactly or name == "gpu":
            assert replace(own, model=end.model) == end
        else:
            assert own.sizes > end.sizes
            assert own.lr > end.lr


@pytest.mark.parametrize("name", recipes.names())
def test_what_cannot_hold_the_twins_kernels_trains_in_its_place(name: str) -> None:
    *before, end = recipes.named(name, "resnet18_static")
    *shared, own, last = recipes.named(name, "resnet18_dpk")
    assert shared == before[:1]
    assert own.model == "resnet18_dpk"
    assert 0 < own.shared_epochs < len(own.sizes)
    assert replace(last, model=end.model) == end
    if name == "cpu":  # for as long
        assert replace(own, model=end.model, shared_epochs=0, shared_images=None) == before[1]


@pytest.mark.parametrize("name", recipes.names())
def test_a_model_of_no_family_shares_nothing(name: str) -> None:
    assert {split_name(run.model)[1] for run in recipes.named(name, "resnet18_se")} == {"se"}


def test_the_command_line_has_the_last_word() -> None:
    words = "--model resnet10_kw --recipe gpu --phases 16:2 --upright 0.5 --turned 0.25 --lr 0.5 --amp no"
    *before, given = train._recipes(train._parser().parse_args(words.split()))
    *shared, own = recipes.named("gpu", "resnet10_kw")
    assert given.augmentation == replace(own.augmentation, upright=0.5, turned=0.25)
    assert (given.phases, given.lr, given.amp) == (((16, 2),), 0.5, "no")
    assert (given.batch_size, given.ema_decay, given.seed) == (own.batch_size, own.ema_decay, own.seed)
    assert before == [replace(run, amp="no") for run in shared]


def test_an_unknown_recipe_is_named_with_the_known_ones() -> None:
    with pytest.raises(ZooError, match=r"there is no recipe 'gpus'; there are cpu, gpu\. Did you mean gpu"):
        recipes.named("gpus", "resnet18_kw")
