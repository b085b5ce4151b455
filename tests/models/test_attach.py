"""Every attention module on both kinds of backbone: where it goes, and that the network still works."""

import dataclasses

import pytest
import torch
from timm.models import FeatureListNet
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from zoo.errors import ZooError
from zoo.layers.attention import ATTENTION
from zoo.models.attach import attach
from zoo.models.backbones import BACKBONES, Backbone

RESNET, MOBILE = BACKBONES["resnet18"], BACKBONES["mobilenetv2_100"]
#: Stands for resnet18 where a check takes long.
TINY = dataclasses.replace(RESNET, args={**RESNET.args, "layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32)})
#: Blocks in each stage.
RESNET_BLOCKS = {f"layer{stage}": 2 for stage in (1, 2, 3, 4)}
MOBILE_BLOCKS = {f"blocks.{stage}": count for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1))}

rows = pytest.mark.parametrize("name", ATTENTION)
backbones = pytest.mark.parametrize("backbone", [RESNET, MOBILE], ids=["resnet18", "mobilenetv2_100"])


def build(backbone: Backbone, stem: str = "cifar", **kwargs) -> nn.Module:
    model = backbone.build(**{**backbone.args, "num_classes": 7, **kwargs})
    if stem == "cifar":
        backbone.shrink_stem(model)
    return model


def attached(backbone: Backbone, name: str, **args) -> nn.Module:
    model = build(backbone)
    attach(model, backbone, name, **args)
    return model


@torch.no_grad()
def stirred(model: nn.Module) -> nn.Module:
    """Move everything off its start: many of these modules begin as the identity or behind a zero."""
    for parameter in model.parameters():
        size = parameter.square().mean().sqrt().clamp(min=0.1)
        parameter.add_(0.1 * size * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.3, 0.8)
            module.reset_running_stats()
            module.momentum = None
    contrast, brightness = torch.linspace(0.3, 3, 4), torch.linspace(-1, 1, 4)
    images = torch.randn(4, 3, 16, 16)
    model.train()(images * contrast.view(-1, 1, 1, 1) + brightness.view(-1, 1, 1, 1))
    return model.eval()


def places(backbone: Backbone, name: str) -> list[str]:
    """Return where the papers put the module, from the blocks of the networks."""
    blocks = RESNET_BLOCKS if backbone is RESNET else MOBILE_BLOCKS
    each = [f"{stage}.{block}" for stage, count in blocks.items() for block in range(count)]
    behind = [f"{stage}.{count}" for stage, count in blocks.items()]
    resnet = backbone is RESNET
    if name in ("bam", "gsop"):
        return behind
    if name in ("nonlocal", "sagan"):
        return behind[-2:-1]
    if name == "dual":
        return behind[-1:]
    if name in ("sk", "splat"):
        return [f"{block}.{'conv1' if resnet else 'conv_dw'}" for block in each]
    if name == "mhsa":
        last = ["layer4.0.conv1", "layer4.0.conv2", "layer4.1.conv1", "layer4.1.conv2"]
        return last if resnet else ["blocks.6.0.conv_dw"]
    return [f"{block}.se" for block in each]


@backbones
@rows
def test_goes_where_the_papers_put_it(backbone: Backbone, name: str) -> None:
    model = build(backbone)
    before = {key: module for key, module in model.named_modules() if not isinstance(module, nn.Identity)}
    names = attach(model, backbone, name)
    assert names == places(backbone, name)
    after = dict(model.named_modules())
    kind = type(after[names[0]])
    assert kind.__module__.startswith(("zoo.layers.attention", "timm.layers"))
    assert [key for key, module in model.named_modules() if type(module) is kind] == names
    inside = tuple(f"{key}." for key in names)
    added = {key for key in after if key not in before and not key.startswith(inside)}
    assert {key for key in added if not isinstance(after[key], nn.Identity)} <= set(names)
    gone = {key for key, module in before.items() if after.get(key) is not module}
    norms = {key for key in gone if isinstance(before[key], nn.BatchNorm2d)}
    assert all(isinstance(after[key], nn.Identity) for key in norms)
    assert {key for key in gone if not key.startswith(tuple(norms))} <= set(names)
    assert len(norms) == (len(names) if ATTENTION[name].own_norm else 0)


@backbones
@rows
def test_forward_and_backward(backbone: Backbone, name: str) -> None:
    model = build(backbone)
    names = attach(model, backbone, name)
    stirred(model).train()
    y = model(torch.randn(2, 3, 32, 32))
    assert y.shape == (2, 7)
    y.square().sum().backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not without, f"no gradient: {without}"
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    weights = [
        weight for key in names for weight in model.get_submodule(key).parameters() if weight.dim() > 1
    ]
    assert all(weight.grad.abs().max() > 0 for weight in weights)


@backbones
@rows
@torch.no_grad()
def test_any_batch_and_any_image(backbone: Backbone, name: str) -> None:
    model = stirred(attached(backbone, name)).double()
    for size in ((16, 16), (36, 28)):  # the latter makes maps of odd sizes
        x = torch.randn(3, 3, *size, dtype=torch.float64)
        y = model(x * torch.tensor([0.3, 1, 3]).view(-1, 1, 1, 1))
        torch.testing.assert_close(y[1:2], model(x[1:2]))
        assert (y[0] - y[1]).abs().max() > 1e-3


@backbones
@pytest.mark.parametrize("name", [name for name, row in ATTENTION.items() if row.place != "conv"])
@torch.no_grad()
def test_the_network_runs_it(backbone: Backbone, name: str) -> None:
    model = build(backbone)
    names = attach(model, backbone, name)
    x = torch.randn(2, 3, 32, 32)
    outputs = [stirred(model)(x)]
    for key in (names[0], names[-1]):
        parent, _, leaf = key.rpartition(".")
        setattr(model.get_submodule(parent), leaf, nn.Identity())
        outputs.append(model(x))
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-4)
    assert len(names) == 1 or not torch.allclose(outputs[1], outputs[2], atol=1e-4)


@rows
@torch.no_grad()
def test_scripts_and_traces(name: str) -> None:
    model = stirred(attached(TINY, name))
    for other in (torch.jit.script(model), torch.fx.symbolic_trace(model)):
        for batch in (1, 5):
            x = torch.randn(batch, 3, 32, 32)
            torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-4)


@backbones
@pytest.mark.parametrize("name", ["bam", "sk"])
@torch.no_grad()
def test_features(backbone: Backbone, name: str) -> None:
    """A stage's features are what comes out of the module behind it."""
    model = stirred(attached(backbone, name))
    x = torch.randn(2, 3, 32, 32)
    final, maps = model.forward_intermediates(x)
    torch.testing.assert_close(final, model.forward_features(x))
    stages = list(backbone.stages)
    extracted = create_feature_extractor(model, stages)(x)
    plain = build(backbone).forward_intermediates(x)[1]
    assert [feature.shape for feature in maps] == [feature.shape for feature in plain]
    last = extracted[stages[-1]]
    seen = []
    model.get_submodule(stages[-1])[-1].register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    model(x)
    torch.testing.assert_close(last, seen[0])
    listed = FeatureListNet(model, out_indices=(-2, -1), **backbone.feature_cfg)(x)
    torch.testing.assert_close(listed[-1], maps[-1])
    torch.testing.assert_close(listed[-2], maps[-2])


def norms(model: nn.Module, block: str) -> dict[str, bool]:
    """Tell of each norm in a block whether it is still there."""
    children = model.get_submodule(block).named_children()
    return {name: isinstance(child, nn.BatchNorm2d) for name, child in children if name.startswith("bn")}


@pytest.mark.parametrize("name", ["sk", "splat"])
def test_a_norm_of_its_own_takes_the_place_of_the_blocks(name: str) -> None:
    resnet, mobile, deep = (attached(row, name) for row in (RESNET, MOBILE, BACKBONES["resnet50"]))
    assert norms(resnet, "layer2.0") == {"bn1": False, "bn2": True}
    assert norms(mobile, "blocks.0.0") == {"bn1": False, "bn2": True}
    assert norms(mobile, "blocks.3.1") == {"bn1": True, "bn2": False, "bn3": True}
    assert norms(deep, "layer3.0") == {"bn1": True, "bn2": False, "bn3": True}
    assert type(resnet.layer2[0].conv2) is nn.Conv2d, "it ends the branch and may be negative"
    assert norms(attached(RESNET, "mhsa"), "layer4.0") == {"bn1": True, "bn2": True}


def test_the_replaced_convolutions_geometry_is_kept() -> None:
    model = attached(MOBILE, "sk")
    for stage, block, stride in (("blocks.2", 0, 2), ("blocks.2", 1, 1)):
        paths = model.get_submodule(stage)[block].conv_dw.paths
        width = model.get_submodule(stage)[block].conv_pw.out_channels
        assert [path.conv.groups for path in paths] == [width, width]
        assert [path.conv.stride for path in paths] == [(stride, stride)] * 2
        assert [path.conv.dilation for path in paths] == [(1, 1), (2, 2)]
    assert attached(RESNET, "mhsa").layer4[0].conv1.pool.kernel_size == 2


def test_arguments_and_stages_reach_the_modules() -> None:
    model = build(RESNET)
    assert attach(model, RESNET, "se", stages=(-1, 1, 3), reduction=8) == [
        "layer2.0.se", "layer2.1.se", "layer4.0.se", "layer4.1.se",
    ]  # fmt: skip
    assert model.layer2[0].se.fc1.out_channels == 16
    assert model.layer1[0].se is None
    assert attach(build(RESNET), RESNET, "nonlocal", stages=()) == []
    assert attached(RESNET, "mhsa", heads=8).layer4[1].conv2.heads == 8


def test_parameters_of_positions_fit_the_maps() -> None:
    mhsa = attached(RESNET, "mhsa").layer4
    assert len(mhsa[0].conv1.height_rel) == 2 * 8 - 1, "before the stride"
    assert len(mhsa[0].conv2.height_rel) == 2 * 4 - 1
    gathers = [attached(RESNET, "ge", image_size=size).layer2[0].se.gather[0].weight for size in (32, 48)]
    assert [tuple(weight.shape) for weight in gathers] == [(128, 1, 16, 16), (128, 1, 24, 24)]
    large = build(RESNET, stem="imagenet")
    attach(large, RESNET, "mhsa", image_size=224)
    assert len(large.layer4[0].conv1.width_rel) == 2 * 14 - 1


@pytest.mark.parametrize("extent", [0, 2, 4, 8])
@backbones
def test_no_two_blocks_share_gather_excite_parameters(backbone: Backbone, extent: int) -> None:
    model = build(backbone)
    names = attach(model, backbone, "ge_plus", extent=extent)
    parameters = [
        parameter
        for key in names
        for _, parameter in model.get_submodule(key).named_parameters(remove_duplicate=False)
    ]
    assert len({parameter.data_ptr() for parameter in parameters}) == len(parameters)
    # A depthwise weight, a scale and a shift for each halving, and two layers with biases to excite.
    assert len(parameters) == len(names) * (3 * {0: 1, 2: 1, 4: 2, 8: 3}[extent] + 4)


def test_the_model_is_otherwise_left_as_it_was() -> None:
    model = build(RESNET).double()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    attach(model, RESNET, "ge")
    assert model.training
    assert all(parameter.dtype == torch.float64 for parameter in model.parameters())
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in state.items())
    assert not any(module._forward_hooks for module in model.modules())
    with torch.device("meta"):
        meta = build(RESNET)
    attach(meta.eval(), RESNET, "mhsa")
    assert not meta.training
    assert meta.layer4[0].conv1.qkv.weight.is_meta


def test_images_of_other_channels() -> None:
    model = build(RESNET, in_chans=1)
    attach(model, RESNET, "ge")
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)


def test_a_gate_takes_the_place_of_one_that_is_there() -> None:
    backbone = BACKBONES["mobilenetv3_small_100"]
    model = build(backbone)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    names = attach(model, backbone, "eca")
    assert "blocks.0.0.se" in names
    assert sum(parameter.numel() for parameter in model.parameters()) < parameters


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("sse", {}, r"unknown attention 'sse'; choose from se, .* Did you mean se"),
        ("se", {"extent": 2}, "se has no argument 'extent'; its own are reduction"),
        ("se", {"reduction": 0}, "reduction must be a whole number of at least 1, not 0"),
        ("bam", {"reduction": 128}, "reduction=128 leaves nothing of 64 channels; give at most 64"),
        ("ge", {"extent": 3}, r"extent must be one of 2, 4, 8, 0 \(0: global\), not 3"),
        ("ge", {"image_size": 0}, "image_size must be a whole number of at least 1, not 0"),
        ("mhsa", {"heads": 5}, "heads=5 does not divide 512 channels; 1, 2, 4, 8, 16 would do"),
        ("splat", {"radix": 3}, "radix must be at least 2 and divide 64 channels, not 3"),
        ("se", {"stages": (1, 4)}, "stage 4 is out of range; this backbone has stages 0 to 3"),
        ("se", {"stages": (-5,)}, "stage -5 is out of range; .* or -4 to -1 counted from the end"),
        ("se", {"stages": 2}, r"stages=2 is one number; give a tuple, such as stages=\(2,\)"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(name: str, arguments: dict, message: str) -> None:
    model = build(RESNET)
    before = dict(model.named_modules())
    with pytest.raises(ZooError, match=message):
        attach(model, RESNET, name, **arguments)
    assert dict(model.named_modules()) == before


def test_stages_without_a_place_are_named() -> None:
    backbone = BACKBONES["mobilenetv3_small_100"]
    with pytest.raises(
        ZooError, match=r"blocks\.5 of this backbone has no place for mhsa; give other stages"
    ):
        attach(build(backbone), backbone, "mhsa")
    assert attach(build(backbone), backbone, "mhsa", stages=(4,)) == [
        "blocks.4.0.conv_dw", "blocks.4.1.conv_dw", "blocks.4.2.conv_dw",
    ]  # fmt: skip
