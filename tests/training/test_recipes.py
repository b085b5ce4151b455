"""Recipes: each stands for every model, and the command line has the last word."""

import pytest

from zoo import train
from zoo.errors import ZooError
from zoo.models import list_models
from zoo.pretrained import manifest_entry
from zoo.training import recipes
from zoo.training.recipe import Recipe


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_stands_for_every_model(name: str) -> None:
    for model in list_models():
        found = recipes.named(name, model)
        assert isinstance(found, Recipe)
        assert found.model == model
        assert Recipe.from_dict(found.to_dict()) == found


def test_a_family_starts_from_its_trained_twin_where_it_can() -> None:
    assert manifest_entry("resnet18_static") is not None
    assert recipes.named("cpu", "resnet18_kw").warm_start.endswith("resnet18_static.safetensors")
    for alone in ("resnet18_static", "resnet18_dpk", "resnet18_se", "resnet50_kw"):
        assert recipes.named("cpu", alone).warm_start is None


def test_the_command_line_has_the_last_word(tmp_path) -> None:
    words = [
        "--model",
        "resnet10_kw",
        "--recipe",
        "gpu",
        "--phases",
        "16:2",
        "--mild-epochs",
        "0",
        "--lr",
        "0.5",
    ]
    given = train._recipe(train._parser().parse_args(words), tmp_path)
    own = recipes.named("gpu", "resnet10_kw")
    assert (given.phases, given.lr) == (((16, 2),), 0.5)
    assert (given.batch_size, given.ema_decay) == (own.batch_size, own.ema_decay)


def test_an_unknown_recipe_is_named_with_the_known_ones() -> None:
    with pytest.raises(ZooError, match=r"there is no recipe 'gpus'; there are cpu, gpu\. Did you mean gpu"):
        recipes.named("gpus", "resnet18_kw")
