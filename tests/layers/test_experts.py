"""What is special about families of experts: routing, temperature, and folding."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.errors import ZooError
from zoo.layers import (
    FAMILIES,
    CondConv2d,
    ConvexConv2d,
    DynamicConvolution2d,
    ExpertsConv2d,
    anneal,
    fold,
    lowerings_of,
    set_lowering,
)

experts_families = pytest.mark.parametrize(
    "layer",
    [pytest.param(row, id=name) for name, row in FAMILIES.items() if issubclass(row, ExpertsConv2d)],
)


def test_a_single_expert_is_the_kernel_of_every_sample() -> None:
    """Where the routing sums to one no expert is left to weigh."""
    conv = DynamicConvolution2d(4, 4, 3, num_experts=1).eval()
    x = torch.randn(2, 4, 6, 6)
    wanted = expert_convolution(conv, 0, x)
    torch.testing.assert_close(set_lowering(conv, "experts")(x), wanted, rtol=1e-4, atol=1e-5)


def expert_convolution(conv: ExpertsConv2d, expert: int, x: torch.Tensor) -> torch.Tensor:
    weight = conv.experts[expert].unflatten(1, conv.kernel_size).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


@torch.no_grad()
def choose(conv: ExpertsConv2d, expert: int) -> None:
    """Set the routing to one-hot, whatever the context."""
    if isinstance(conv, ConvexConv2d):
        logits = conv.logits
    else:
        nn.init.zeros_(conv.route.weight)
        logits = conv.route.bias
    logits.fill_(-1000.0)
    logits[expert] = 1000.0


@experts_families
@pytest.mark.parametrize("groups", [1, 2])
def test_a_one_hot_routing_is_that_experts_convolution(layer: type[ExpertsConv2d], groups: int) -> None:
    conv = layer(4, 6, 3, stride=2, padding=1, groups=groups, num_experts=3).double().eval()
    nn.init.normal_(conv.bias)
    x = torch.randn(3, 4, 7, 8, dtype=torch.float64)
    for expert in range(3):
        choose(conv, expert)
        for lowering in lowerings_of(layer):
            if lowering == "single":
                continue
            set_lowering(conv, lowering)
            torch.testing.assert_close(conv(x), expert_convolution(conv, expert, x), rtol=1e-10, atol=1e-12)


def test_routing_weights() -> None:
    context = torch.randn(5, 4)
    assert (CondConv2d(4, 4, 3).routing(context) > 0).all()
    for conv in (DynamicConvolution2d(4, 4, 3), ConvexConv2d(4, 4, 3)):
        torch.testing.assert_close(conv.routing(context).sum(dim=1), torch.ones(len(conv.routing(context))))
    assert ConvexConv2d(4, 4, 3).routing(context).shape == (1, 4)
    condconv = CondConv2d(4, 4, 3)
    sums = condconv.routing(100 * context).sum(dim=1)
    assert sums.max() - sums.min() > 0.1, "sigmoids compete with each other"


def test_the_temperature_anneals_in_training_and_is_one_in_eval() -> None:
    conv = DynamicConvolution2d(8, 4, 3, start_temperature=30)
    nn.init.normal_(conv.route.weight, std=5)
    context = torch.randn(3, 8)
    logits = conv.route(conv.squeeze(context).relu())
    for progress, temperature in ((0.0, 30.0), (0.5, 15.5), (1.0, 1.0)):
        anneal(nn.Sequential(conv), progress)
        torch.testing.assert_close(conv.train().routing(context), (logits / temperature).softmax(1))
        torch.testing.assert_close(conv.eval().routing(context), logits.softmax(1))
    fresh = DynamicConvolution2d(8, 4, 3)
    torch.testing.assert_close(fresh.train().routing(context), fresh.eval().routing(context))


def test_annealing_keeps_its_range() -> None:
    for progress in (-0.1, 1.1, float("nan")):
        with pytest.raises(ZooError, match=f"progress is {progress}; it must be from 0 to 1"):
            anneal(nn.Identity(), progress)


def test_the_squeeze_is_never_empty() -> None:
    assert DynamicConvolution2d(3, 4, 3, reduction=4).squeeze.out_features == 1


@pytest.mark.parametrize("arguments", [{"padding": "same", "dilation": 2}, {"groups": 2, "bias": False}])
def test_folding_leaves_one_plain_convolution(arguments: dict) -> None:
    conv = ConvexConv2d(4, 6, 3, **arguments)
    nn.init.normal_(conv.logits)
    model = nn.Sequential(conv, nn.ReLU()).eval()
    x = torch.randn(3, 4, 9, 9)
    wanted = model(x)
    assert fold(model) is model
    assert type(model[0]) is nn.Conv2d
    assert not model[0].training
    torch.testing.assert_close(model(x), wanted)
    alone = fold(conv)
    torch.testing.assert_close(alone(x), conv(x))
    model(x).sum().backward()
    assert model[0].weight.grad is not None


def test_a_shared_layer_stays_one_layer_when_it_is_folded() -> None:
    shared = ConvexConv2d(3, 3, 3, padding=1)
    model = fold(nn.ModuleDict({"here": shared, "there": shared}))
    assert isinstance(model["there"], nn.Conv2d)
    assert model["here"] is model["there"]


def test_only_the_lowering_fold_is_folded() -> None:
    model = set_lowering(nn.Sequential(ConvexConv2d(4, 4, 3), CondConv2d(4, 4, 3)), "experts")
    assert fold(model)[0].lowering == "experts"
    set_lowering(model, "auto")
    assert type(fold(model)[0]) is nn.Conv2d
    assert isinstance(model[1], CondConv2d)


def test_a_lowering_that_a_family_lacks_leaves_the_model_alone() -> None:
    model = set_lowering(nn.Sequential(ConvexConv2d(4, 4, 3), FAMILIES["kw"](4, 4, 3)), "contract")
    with pytest.raises(ZooError, match="KernelWeightedConv2d has no lowering 'fold'; choose from auto"):
        set_lowering(model, "fold")
    assert model[0].lowering == "contract"
