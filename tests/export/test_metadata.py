"""What an artifact calls its model."""

import pytest
import timm
import torchvision
from torch import nn

import zoo
from export import torchscript
from export._metadata import family_of, name_of
from zoo.layers import FAMILIES


def test_a_registered_model_has_its_name_and_any_other_that_of_its_class() -> None:
    assert name_of(timm.create_model("resnet10_kw")) == "resnet10_kw"
    assert name_of(timm.create_model("test_resnet")) == "test_resnet"
    assert name_of(nn.Sequential()) == "Sequential"


def test_a_dynamized_model_says_so() -> None:
    model = zoo.dynamize(timm.create_model("test_resnet"), "kw", stages=(1, 2))
    assert name_of(model) == "test_resnet dynamized with kw"
    zoo.dynamize(model, "condconv", stages=(3,))
    assert name_of(model) == "test_resnet dynamized with kw, condconv"
    assert name_of(zoo.dynamize(torchvision.models.resnet18(), "fgk", embedding_dim=9)) == (
        "ResNet dynamized with fgk"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_named_even_if_its_layer_is_made_of_another(family: str) -> None:
    assert family_of(FAMILIES[family](4, 4, 3)) == family


def test_the_artifact_says_so(tmp_path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    # Its lowering folds it, which leaves no dynamic layer in the file.
    zoo.dynamize(model.eval(), "convex", input_size=(3, 9, 9))
    torchscript.export(model, tmp_path / "net.pt", input_size=(3, 9, 9))
    found = torchscript.TorchScript().metadata(tmp_path / "net.pt")
    assert found["model"] == "Sequential dynamized with convex"
    assert found["family"] == "convex"
