"""Turning any network dynamic: it computes what it did, keeps what it was, and exports."""

import copy
import io
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.utils import reparameterize_model
from torch import nn

import export.onnx
import zoo
from export.base import runtime
from zoo.errors import ZooError
from zoo.layers import FAMILIES, DynamicConv2d

slow = pytest.mark.slow

#: Height and width of a test image, and how many convolutions become dynamic: all spatial ones but the stem.
NETWORKS = {
    "resnet50": (64, 16),
    "convnext_tiny": (64, 21),
    "efficientnet_b0": (64, 16),
    "regnety_002": (64, 13),
    "densenet121": (64, 58),
    "mobilenetv4_conv_small": (64, 17),
    "vgg11_bn": (32, 7),
    "repvgg_a0": (64, 21),
    "torchvision.resnet18": (64, 16),
    "torchvision.mobilenet_v3_small": (64, 11),
}
HEAVY = ("vgg11_bn", "resnet50", "densenet121")
networks = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=slow if name in HEAVY else ()) for name in NETWORKS]
)


@torch.no_grad()
def create(name: str) -> nn.Module:
    """Create a static model in eval mode whose every convolution shows in its outputs.

    A fresh network may multiply its branches by zero or almost (ResNet, ConvNeXt), and without measured
    statistics the image's trace fades (MobileNet).
    """
    if name.startswith("torchvision."):
        model = getattr(torchvision.models, name.removeprefix("torchvision."))()
    else:
        model = timm.create_model(name)
    for key, parameter in model.named_parameters():
        if key.endswith("gamma"):
            parameter.fill_(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = None
    # Images of unlike contrast, so that the statistics keep none of them from magnifying its activations.
    model.train()(images(name, 16) * torch.linspace(0.3, 3, 16).view(-1, 1, 1, 1))
    return model.eval()


def images(name: str, batch: int) -> torch.Tensor:
    size, _ = NETWORKS.get(name, (48, 0))
    return torch.randn(batch, 3, size, size)


def dynamic_layers(model: nn.Module) -> dict[str, DynamicConv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, DynamicConv2d)}


def exact_arguments(family: str, kernel: int) -> dict[str, int] | None:
    """Ask a family with which of its sizes it holds any static kernel; None where it cannot."""
    weight = torch.randn(8, 8, kernel, kernel)
    for arguments in ({}, {"embedding_dim": kernel**2}):
        if arguments.keys() <= FAMILIES[family].sizes.keys():
            try:
                if FAMILIES[family](8, 8, kernel, **arguments).warm_start_(weight) == 0.0:
                    return arguments
            except ZooError:
                return None
    return None


EXACT = [family for family in FAMILIES if exact_arguments(family, 3) is not None]


@networks
@torch.no_grad()
def test_the_outputs_stay(name: str) -> None:
    model = create(name)
    x = images(name, 3)
    before = model(x)
    random = zoo.dynamize(copy.deepcopy(model), "kw", warm_start=False)
    assert zoo.dynamize(model, "kw") is model
    scale = before.abs().max()
    assert (model(x) - before).abs().max() < 1e-4 * scale
    # Had the convolutions no say in the outputs, the line above would say nothing.
    assert (random(x) - before).abs().max() > 1e-2 * scale
    assert len(dynamic_layers(model)) == NETWORKS[name][1]
    assert model.dynamized.replaced == dict.fromkeys(dynamic_layers(model), 0.0)
    assert set(random.dynamized.replaced.values()) == {None}


@pytest.mark.parametrize("family", EXACT)
@pytest.mark.parametrize(("name", "kernel"), [("test_resnet", 3), ("mobilenetv3_small_100", 5)])
@torch.no_grad()
def test_every_family_that_can_hold_a_static_kernel_does(family: str, name: str, kernel: int) -> None:
    model = create(name)
    x = images(name, 3)
    before = model(x)
    zoo.dynamize(model, family, **exact_arguments(family, kernel))
    assert {type(layer) for layer in dynamic_layers(model).values()} == {FAMILIES[family]}
    assert model.dynamized.largest_error == 0.0
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4 * before.abs().max().item())


def test_the_families_that_hold_static_kernels() -> None:
    assert {"kw", "kwb", "fgk", "condconv", "dyconv", "convex"} <= set(EXACT)
    assert "dpk" not in EXACT


@pytest.mark.parametrize(
    ("where", "count"),
    [("all", 47), (lambda name, conv: name == "conv_stem" or ".se." in name, 33)],
    ids=["all", "callable"],
)
@torch.no_grad()
def test_other_choices_leave_the_outputs_too(where: Any, count: int) -> None:
    model = create("efficientnet_b0")
    x = images("efficientnet_b0", 3)
    before = model(x)
    zoo.dynamize(model, "kw", where=where)
    # The head sees whole maps in this network, so "all" takes it; the gates and the stem it leaves.
    assert len(dynamic_layers(model)) == count + (where == "all")
    assert any(".se." in name for name in dynamic_layers(model)) == (where != "all")
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4 * before.abs().max().item())


def test_stages_are_counted_by_resolution() -> None:
    model = zoo.dynamize(timm.create_model("test_convnext"), "kw", stages=(0, 3))
    assert {name.split(".")[1] for name in dynamic_layers(model)} == {"0", "3"}
    assert model.dynamized.kept["stages.1.downsample.1"] == "in stage 1"
    model = timm.create_model("resnet10_static")
    zoo.dynamize(model, "kw", stages=[2])
    assert (
        dynamic_layers(model).keys() == dynamic_layers(timm.create_model("resnet10_kw", stages=(2,))).keys()
    )


def test_an_approximation_is_reported_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zoo")
    model = zoo.dynamize(create("test_resnet"), "fgk")
    errors = model.dynamized.replaced
    assert all(0 < error < 1 for error in errors.values())
    worst = max(errors, key=errors.get)
    info, warning = caplog.records
    assert (info.name, info.levelname, warning.levelname) == ("zoo", "INFO", "WARNING")
    assert info.getMessage() == str(model.dynamized).splitlines()[0]
    assert (
        f"those of {worst} are off by {errors[worst]:.1%}; embedding_dim=9 would be exact" in warning.message
    )
    caplog.clear()
    # Its kernels are up to 7x7, and a hidden width of its own bounds their rank too.
    zoo.dynamize(timm.create_model("test_convnext"), "fgk", hidden_dim=8)
    assert "embedding_dim=49, hidden_dim=49 would be exact" in caplog.records[1].message
    zoo.dynamize(timm.create_model("test_convnext"), "fgk", embedding_dim=49)
    assert len(caplog.records) == 3


def test_the_report_reads_well() -> None:
    model = zoo.dynamize(torchvision.models.resnet18(), "kw", stages=(3,), vector_dim=9)
    assert str(model.dynamized).splitlines() == [
        "ResNet: 4 of 20 convolutions are now kw, 11.69 M -> 19.96 M parameters, outputs unchanged",
        "kept 4 in stage 0: layer1.0.conv1, layer1.0.conv2, layer1.1.conv1, layer1.1.conv2",
        "kept 4 in stage 1: layer2.0.conv1, layer2.0.conv2, layer2.1.conv1, layer2.1.conv2",
        "kept 4 in stage 2: layer3.0.conv1, layer3.0.conv2, layer3.1.conv1, layer3.1.conv2",
        "kept 3 pointwise, its kernel is 1x1: "
        "layer2.0.downsample.0, layer3.0.downsample.0, layer4.0.downsample.0",
        "kept 1 stem, sees the image itself: conv1",
    ]
    model = zoo.dynamize(timm.create_model("efficientnet_b0"), "dpk", warm_start=False)
    first, *others = str(model.dynamized).splitlines()
    assert first.endswith("M parameters, random kernels")
    (gates,) = (
        line for line in others if line.startswith("kept 32 pooled, sees one pixel: a gate or a head: ")
    )
    assert gates.count(".se.") == 6
    assert gates.endswith(", ...")


def test_subclasses_are_kept_with_the_reason() -> None:
    model = zoo.dynamize(timm.create_model("tf_mobilenetv3_small_minimal_100"), "kw")
    kept = {
        name for name, reason in model.dynamized.kept.items() if reason.startswith("Conv2dSame, a subclass")
    }
    assert kept == {name for name, module in model.named_modules() if type(module).__name__ == "Conv2dSame"}
    assert len(kept) > 1


def test_device_dtype_mode_and_frozen_weights_stay() -> None:
    model = timm.create_model("test_resnet").to(torch.bfloat16)
    model.train()
    model.layer2.eval()
    model.layer3.requires_grad_(False)
    names = [name for name, _ in model.named_modules() if name.startswith("layer") and name.count(".") < 3]
    layers = dynamic_layers(zoo.dynamize(model, "kw"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {name: layer.training for name, layer in layers.items()} == {
        name: not name.startswith("layer2") for name in layers
    }
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith("layer3")), name
    assert all(isinstance(model.get_submodule(name), nn.Module) for name in names)


def test_a_model_without_memory_stays_without() -> None:
    with torch.device("meta"):
        model = timm.create_model("test_resnet")
    zoo.dynamize(model, "fgk")
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert set(model.dynamized.replaced.values()) == {None}


@torch.no_grad()
def test_it_copies_pickles_and_saves() -> None:
    model = zoo.dynamize(create("repvgg_a0"), "kw", stages=(3,))
    x = torch.randn(2, 3, 32, 32)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    loaded = zoo.dynamize(timm.create_model("repvgg_a0").eval(), "kw", stages=(3,))
    loaded.load_state_dict(torch.load(file))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert torch.equal(twin(x), model(x))
        assert twin.dynamized == model.dynamized


@torch.no_grad()
def test_it_scripts_and_traces() -> None:
    model = zoo.dynamize(create("repvgg_a0"), "kw", stages=(3,))
    scripted, traced = torch.jit.script(model), torch.fx.symbolic_trace(model)
    for batch in (1, 3):
        x = torch.randn(batch, 3, 32, 32)
        torch.testing.assert_close(scripted(x), model(x))
        torch.testing.assert_close(traced(x), model(x))


def test_every_parameter_of_a_dynamized_model_learns() -> None:
    model = zoo.dynamize(create("test_resnet"), "kw").train()
    model(images("test_resnet", 4)).square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    changed = {name for name, p in model.named_parameters() if p.grad.abs().max() > 0}
    assert {f"{name}.vectors" for name in dynamic_layers(model)} <= changed


class Shared(nn.Module):
    """A convolution under two names, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.blocks = nn.ModuleList([self.conv, nn.Conv2d(4, 4, 3, padding=1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.stem(x))
        for block in self.blocks:
            x = block(x.relu())
        return self.blocks[1](x).mean((2, 3))


@torch.no_grad()
def test_shared_convolutions_stay_shared() -> None:
    model = Shared()
    x = torch.randn(2, 3, 8, 8)
    before = model(x)
    zoo.dynamize(model, "kw")
    assert isinstance(model.conv, DynamicConv2d)
    assert model.blocks[0] is model.conv
    assert model.dynamized.replaced == {"conv": 0.0, "blocks.0": 0.0, "blocks.1": 0.0}
    torch.testing.assert_close(model(x), before)


def test_hooks_stay() -> None:
    model = timm.create_model("test_efficientnet", features_only=True, feature_location="expansion").eval()
    x = torch.randn(1, 3, 64, 64)
    before = model(x)
    zoo.dynamize(model, "kw", where="all")
    for feature, old in zip(model(x), before, strict=True):
        torch.testing.assert_close(feature, old, rtol=1e-4, atol=1e-4)


def test_a_second_call_takes_what_is_left() -> None:
    model = create("test_resnet")
    x = images("test_resnet", 2)
    before = model(x)
    zoo.dynamize(model, "kw", stages=(1, 2))
    zoo.dynamize(model, "condconv", stages=(3, 4))
    families = {name[:6]: type(layer) for name, layer in dynamic_layers(model).items()}
    assert families == {
        "layer1": FAMILIES["kw"],
        "layer2": FAMILIES["kw"],
        "layer3": FAMILIES["condconv"],
        "layer4": FAMILIES["condconv"],
    }
    assert model.dynamized.kept["layer1.0.conv1"] == "already dynamic"
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4 * before.abs().max().item())


@torch.no_grad()
def test_blocks_that_fold_themselves_do_so_before() -> None:
    model = zoo.dynamize(create("repvgg_a0"), "kw", stages=(3,))
    with pytest.raises(
        ZooError, match=r"RepVggBlock has dynamic kernels, which reparameterize\(\) cannot fold"
    ):
        reparameterize_model(model)
    folded = reparameterize_model(create("repvgg_a0"))
    x = images("repvgg_a0", 2)
    before = folded(x)
    zoo.dynamize(folded, "kw")
    assert len(dynamic_layers(folded)) == 21
    torch.testing.assert_close(folded(x), before, rtol=1e-4, atol=1e-4 * before.abs().max().item())


def test_a_submodule_called_fuse_is_no_method() -> None:
    class Fusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fuse = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fuse(self.stem(x))

    assert isinstance(zoo.dynamize(Fusing(), "kw").fuse, DynamicConv2d)


class ReadsWeight(nn.Module):
    """A network whose forward looks into its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.stem(x)) * self.conv.weight.mean((0, 1, 2, 3))


def raises(name: str, conv: nn.Conv2d) -> bool:
    raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        ("test_resnet", {"family": "kv"}, r"unknown family 'kv'; .* Did you mean kw\?"),
        ("test_resnet", {"family": "static"}, "unknown family 'static'"),
        ("test_resnet", {"family": "dpk"}, "dpk cannot hold static kernels; pass warm_start=False"),
        ("test_resnet", {"where": "spatal"}, r"unknown where='spatal'; .* Did you mean spatial\?"),
        ("test_resnet", {"stages": 1}, r"stages=1 is one number; give a tuple, such as stages=\(1,\)"),
        ("test_resnet", {"stages": (2, 7)}, r"stage 7 is out of range; .* stages 0 to 4, not \(2, 7\)"),
        ("test_resnet", {"stages": ()}, r"ResNet has no spatial convolution to replace in stages \(\)"),
        ("test_resnet", {"bank_size": 4}, "has no argument 'bank_size'; its own are vector_dim"),
        ("test_resnet", {"vector_dim": 0}, "vector_dim must be at least 1, not 0"),
        ("test_resnet", {"groups": 2}, "has no argument 'groups'; its own are vector_dim"),
        ("test_resnet", {"input_size": (3, 32)}, "input_size must be"),
        ("test_resnet", {"input_size": 32}, "input_size must be"),
        ("test_resnet", {"input_size": (2, 32, 32)}, "does not take one image of 2x32x32"),
        ("test_resnet", {"where": lambda *_: False}, r"no convolution to replace \(of its 15: 15 not picked"),
        ("vit_tiny_patch16_224", {}, r"no spatial convolution to replace \(of its 1: 1 stem, sees the image"),
        ("resnet10_kw", {}, r"no spatial convolution to replace \(of its 12: 8 already dynamic; 3 pointwise"),
        (lambda: nn.Linear(3, 3), {}, r"Linear has no spatial convolution .* \(it has no nn.Conv2d at all\)"),
        (lambda: nn.Conv2d(3, 3, 3), {"where": lambda name, conv: True}, "it is the model itself"),
        (ReadsWeight, {"family": "fgk", "embedding_dim": 9}, "has no attribute 'weight'.*leave that one out"),
        (ReadsWeight, {}, "ReadsWeight does not run with dynamic convolutions"),
        ("test_resnet", {"where": raises}, "no idea"),
    ],
)  # fmt: skip
def test_an_error_leaves_the_model_as_it_was(
    make: str | Callable[[], nn.Module], arguments: dict, message: str
) -> None:
    model = timm.create_model(make) if isinstance(make, str) else make()
    model.train()
    modules = dict(model.named_modules())
    tensors = {name: (id(value), value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    attributes = {name: set(vars(module)) for name, module in modules.items()}
    kind = RuntimeError if arguments.get("where") is raises else ZooError
    with pytest.raises(kind, match=message):
        zoo.dynamize(model, **{"family": "kw", **arguments})
    assert dict(model.named_modules()) == modules
    assert {name: set(vars(module)) for name, module in modules.items()} == attributes
    assert all(module.training for module in modules.values())
    assert not any(module._forward_hooks for module in modules.values())
    after = model.state_dict(keep_vars=True)
    assert after.keys() == tensors.keys()
    assert all(id(value) == tensors[name][0] for name, value in after.items())
    assert all(torch.equal(value, tensors[name][1]) for name, value in after.items())


@pytest.mark.parametrize("model", ["resnet18", None, nn.Conv2d])
def test_what_is_no_model_is_named(model: Any) -> None:
    with pytest.raises(ZooError, match=r"dynamize takes a model, not .*; create it first"):
        zoo.dynamize(model, "kw")


def export_and_compare(name: str, family: str, folder: Path, **arguments: Any) -> None:
    """Export a dynamized model, and hold the file against the static model it was."""
    model = create(name)
    size = NETWORKS.get(name, (48, 0))[0]
    static = copy.deepcopy(model)
    zoo.dynamize(model, family, **arguments)
    path = folder / "net.onnx"
    assert export.onnx.export(model, path, input_size=(3, size, size)).passed
    predict = runtime("onnx").load(path)
    for batch in (1, 3, 7):
        x = images(name, batch)
        with torch.no_grad():
            want = static(x).numpy()
        got = predict(x.numpy())
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= 1e-3 * np.abs(want).max()


@pytest.mark.parametrize(
    ("name", "family", "arguments"),
    [("test_resnet", "kw", {}), ("test_efficientnet", "fgk", {"embedding_dim": 9})],
)
def test_it_exports_certified(name: str, family: str, arguments: dict, tmp_path: Path) -> None:
    export_and_compare(name, family, tmp_path, **arguments)


@slow
@pytest.mark.parametrize("family", EXACT)
def test_every_family_exports_certified(family: str, tmp_path: Path) -> None:
    export_and_compare("torchvision.resnet18", family, tmp_path, **exact_arguments(family, 3))


# VGG's linear layers alone hold 120 M weights, which every check would run.
@slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "vgg11_bn"])
def test_every_network_exports_certified(name: str, tmp_path: Path) -> None:
    export_and_compare(name, "kw", tmp_path)
