"""The registry: backbones crossed with what is made of them, the arguments they take and what they refuse."""

import subprocess
import sys
import warnings

import pytest
import timm
import torch
from torch import nn

import zoo
from tests.models.registry import MODELS, create, images, parts, small_models
from zoo.errors import ZooError
from zoo.layers import FAMILIES, STATIC, DynamicConv2d
from zoo.models import BACKBONES, is_spatial, register


def dynamic_names(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, DynamicConv2d)}


def test_the_table_makes_the_names() -> None:
    crossed = {f"{backbone}_{family}" for backbone in BACKBONES for family in (STATIC, *FAMILIES)}
    assert crossed <= set(MODELS)
    assert set(timm.list_models("*_dpk")) == {f"{backbone}_dpk" for backbone in BACKBONES}
    assert sorted(timm.list_models(module="dynamic_kernels")) == sorted(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_family_takes_every_spatial_convolution_but_the_stem(name: str) -> None:
    backbone, made = parts(name)
    model, twin = (timm.create_model(one, device="meta") for one in (name, f"{backbone}_{STATIC}"))
    spatial = {
        name for name, conv in twin.named_modules() if isinstance(conv, nn.Conv2d) and is_spatial(conv)
    }
    stem = BACKBONES[backbone].first_conv
    assert stem in spatial
    assert dynamic_names(model) == (spatial - {stem} if made in FAMILIES else set())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_stem_of_imagenet_is_timms(backbone: str) -> None:
    row = BACKBONES[backbone]
    ours = create(f"{backbone}_{STATIC}", stem="imagenet")
    theirs = row.build(**row.args, num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict())
    x = images(size=(64, 64))
    torch.testing.assert_close(ours(x), theirs(x))
    assert [info["reduction"] for info in ours.feature_info] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    "backbone", [name for name, row in BACKBONES.items() if row.first_conv == "conv_stem"]
)
def test_the_stem_of_cifar_takes_two_strides_from_a_mobile_net_and_no_weights(backbone: str) -> None:
    def seeded(stem: str) -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model(f"{backbone}_{STATIC}", stem=stem)

    def strided(model: nn.Module) -> list[str]:
        convs = ((name, conv) for name, conv in model.named_modules() if isinstance(conv, nn.Conv2d))
        return [name for name, conv in convs if conv.stride != (1, 1)]

    small, large = seeded("cifar"), seeded("imagenet")
    assert strided(large)[0] == "conv_stem"
    assert strided(small) == strided(large)[2:]
    torch.testing.assert_close(small.state_dict(), large.state_dict(), rtol=0, atol=0)


def test_a_mobile_net_that_shrinks_in_another_way_has_no_stem_of_cifar() -> None:
    name = f"mobilenetv2_100_{STATIC}"
    with pytest.raises(ZooError, match="leave out output_stride and aa_layer, or give stem='imagenet'"):
        timm.create_model(name, output_stride=2)
    dilated = timm.create_model(name, output_stride=2, stem="imagenet")
    assert dilated.eval().forward_features(images(1)).shape[2:] == (16, 16)
    assert timm.create_model(name, output_stride=16).feature_info[-1]["reduction"] == 4


@small_models
@torch.no_grad()
def test_other_image_sizes(model: nn.Module) -> None:
    x = images(size=(48, 40))
    assert model(x).shape == (2, 10)
    assert model.forward_features(x).shape[2:] == (6, 5)


def test_stages_and_layer_arguments() -> None:
    model = timm.create_model("resnet10_dpk", stages=(2, 3), layer_args={"bank_size": 6, "key_dim": 5})
    assert {name.split(".")[0] for name in dynamic_names(model)} == {"layer3", "layer4"}
    layers = [module for module in model.modules() if isinstance(module, DynamicConv2d)]
    assert {tuple(layer.keys.shape) for layer in layers} == {(6, 5)}
    assert isinstance(model.layer1[0].conv1, nn.Conv2d)


def test_dpk_is_tiny() -> None:
    parameters = sum(parameter.numel() for parameter in timm.create_model("resnet18_dpk").parameters())
    assert parameters < 500_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet18_kv"}, r"unknown model 'resnet18_kv'\. Did you mean .*resnet18_kw"),
        ({"name": "resnet18_kw.imagenet"}, "unknown tag 'imagenet' of resnet18_kw"),
        ({"name": "resnet18_kw", "stem": "deep"}, "unknown stem 'deep'; choose from cifar, imagenet"),
        ({"name": "resnet18_kw", "stages": (1, 4)}, "stage 4 is out of range"),
        (
            {"name": "resnet18_kw", "layer_args": {"bank_size": 4}},
            "KernelWeightedConv2d has no argument 'bank_size'; its own are vector_dim",
        ),
        (
            {"name": "resnet18_kw", "layer_args": {"groups": 2}},
            "no argument 'groups'; its own are vector_dim",
        ),
        (
            {"name": "resnet18_kw", "layer_args": ["vector_dim"]},
            r"layer_args must be a dict .* not \['vec",
        ),
        ({"name": "resnet18_static", "layer_args": {"bank_size": 4}}, "a static model has no dynamic layers"),
        (
            {"name": "resnet18_kw", "checkpoint": "missing.safetensors"},
            "no checkpoint at missing.safetensors",
        ),
    ],
)
def test_bad_input_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        zoo.create_model(**arguments)


@pytest.mark.parametrize("taken", ["resnet18_kw", "resnet18"])
def test_a_duplicate_name_is_an_error(taken: str) -> None:
    with pytest.raises(ZooError, match=f"cannot register {taken}: timm already has"):
        register(taken, BACKBONES["resnet18"], "kw")


def test_importing_the_zoo_needs_no_extra_and_warns_of_nothing() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['accelerate', 'pyarrow', 'onnx']));"
    code = f"{blocked} import zoo, export; print(len(zoo.list_models()))"
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(len(MODELS))
    assert "Overwriting" not in run.stderr


def test_creating_a_model_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for backbone in ("resnet10", "mobilenetv3_small_100"):
            timm.create_model(f"{backbone}_kw")
