"""Our models behave as timm's own do: after timm's tests/test_models.py."""

import subprocess
import sys
import warnings

import pytest
import timm
import torch
from torch import nn

import zoo
from zoo.errors import ZooError
from zoo.layers import FAMILIES, STATIC, DynamicConv2d
from zoo.layers.attention import ATTENTION
from zoo.models import BACKBONES

MODELS = zoo.list_models()
#: One small backbone stands for all where a check does not depend on the depth.
SMALL = [name for name in MODELS if name.startswith("resnet10_")]
#: The other kind of block.
BOTTLENECK = [pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name.startswith("resnet50_")]

small_models = pytest.mark.parametrize("name", [*SMALL, *BOTTLENECK])


def images(batch: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.randn(batch, channels, 32, 32)


def test_the_table_makes_the_names() -> None:
    families = {f"{backbone}_{family}" for backbone in BACKBONES for family in (STATIC, *FAMILIES)}
    attention = {f"{backbone}_{name}" for backbone in ("resnet18", "mobilenetv2_100") for name in ATTENTION}
    assert set(MODELS) == families | attention
    assert set(timm.list_models("*_dpk")) >= {f"{backbone}_dpk" for backbone in BACKBONES}
    assert set(timm.list_models(module="dynamic_kernels")) == set(MODELS)


@small_models
def test_other_image_sizes_and_the_imagenet_stem(name: str) -> None:
    assert timm.create_model(name).eval()(torch.randn(1, 3, 48, 40)).shape == (1, 10)
    model = timm.create_model(name, stem="imagenet", features_only=True).eval()
    assert model.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert [feature.shape[-1] for feature in model(torch.randn(1, 3, 64, 64))] == [32, 16, 8, 4, 2]


def test_stages_and_layer_arguments() -> None:
    model = timm.create_model("resnet10_dpk", stages=(2, 3), layer_args={"bank_size": 6, "key_dim": 5})
    dynamic = {name: module for name, module in model.named_modules() if isinstance(module, DynamicConv2d)}
    assert {name.split(".")[0] for name in dynamic} == {"layer3", "layer4"}
    assert {tuple(module.keys.shape) for module in dynamic.values()} == {(6, 5)}
    assert isinstance(model.layer1[0].conv1, nn.Conv2d)


def test_every_spatial_convolution_but_the_stem_is_dynamic() -> None:
    model = timm.create_model("resnet50_kw")
    left = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert all(name == "conv1" or model.get_submodule(name).kernel_size == (1, 1) for name in left)


def test_dpk_is_tiny() -> None:
    parameters = sum(parameter.numel() for parameter in timm.create_model("resnet18_dpk").parameters())
    assert parameters < 500_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet18_kv"}, r"unknown model 'resnet18_kv'\. Did you mean .*resnet18_kw"),
        ({"name": "resnet18_kw.imagenet"}, "unknown tag 'imagenet' of resnet18_kw"),
        ({"name": "resnet18_kw", "stem": "deep"}, "unknown stem 'deep'; choose from cifar, imagenet"),
        (
            {"name": "resnet18_kw", "stages": (1, 4)},
            "stage 4 is out of range; this backbone has stages 0 to 3",
        ),
        (
            {"name": "resnet18_kw", "layer_args": {"bank_size": 4}},
            "KernelWeightedConv2d has no argument 'bank_size'; its own are vector_dim",
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


def test_a_duplicate_name_is_an_error() -> None:
    from zoo.models import register

    for taken in ("resnet18_kw", "resnet18"):
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
        timm.create_model("resnet10_kw")
