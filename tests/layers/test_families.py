"""Every family, every lowering and every geometry against plain loops written from the maths."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.layers import reference
from zoo.errors import ZooError
from zoo.layers import (
    FAMILIES,
    LOWERINGS,
    DynamicConv2d,
    constrain,
    lowerings_of,
    set_lowering,
    settle,
    share_context,
)

#: in, out, kernel_size, nn.Conv2d's other arguments, and the padding in pixels (left, right, top, bottom).
GEOMETRIES: dict[str, tuple[tuple[int, int, Any], dict[str, Any], tuple[int, ...]]] = {
    "3x3": ((3, 4, 3), {"padding": 1}, (1, 1, 1, 1)),
    "1x1": ((3, 4, 1), {}, (0, 0, 0, 0)),
    "1x1-stride": ((4, 2, 1), {"stride": 2}, (0, 0, 0, 0)),
    "7x7": ((2, 3, 7), {"padding": 3, "stride": 2}, (3, 3, 3, 3)),
    "5x5-same-dilated": ((2, 2, 5), {"padding": "same", "dilation": 2}, (4, 4, 4, 4)),
    "2x2-same": ((2, 3, 2), {"padding": "same"}, (0, 1, 0, 1)),
    "valid": ((2, 3, 3), {"padding": "valid"}, (0, 0, 0, 0)),
    "3x2-pairs": ((2, 3, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}, (0, 0, 1, 1)),
    "groups": ((4, 6, 3), {"padding": 1, "groups": 2}, (1, 1, 1, 1)),
    "depthwise": ((4, 4, 3), {"padding": 1, "stride": 2, "groups": 4}, (1, 1, 1, 1)),
    "depthwise-multiplier": ((3, 6, 3), {"padding": 1, "groups": 3}, (1, 1, 1, 1)),
    "no-bias": ((3, 4, 3), {"padding": 1, "bias": False}, (1, 1, 1, 1)),
}

families = pytest.mark.parametrize("layer", FAMILIES.values(), ids=FAMILIES)
#: Those whose kernels the sample changes.
moved_families = pytest.mark.parametrize(
    "layer", [pytest.param(row, id=name) for name, row in FAMILIES.items() if row.sample_factor != "none"]
)
#: Every family with each of its lowerings that takes more than one sample.
families_and_lowerings = pytest.mark.parametrize(
    ("layer", "lowering"),
    [
        pytest.param(row, lowering, id=f"{name}-{lowering}")
        for name, row in FAMILIES.items()
        for lowering in lowerings_of(row)
        if LOWERINGS[lowering].batch != "one"
    ],
)


@families
def test_a_family_says_how_it_holds_static_kernels(layer: type[DynamicConv2d]) -> None:
    error = layer(4, 6, 3).warm_start_(torch.randn(6, 4, 3, 3))
    assert layer.holds_static == (None if error is None else "exactly" if error == 0 else "nearly")


def randomised(layer: DynamicConv2d) -> DynamicConv2d:
    """Return the layer in float64 with every parameter random, none at its mild start."""
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
    return layer


@families
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_lowerings_equal_the_loops(layer: type[DynamicConv2d], geometry: str) -> None:
    sizes, arguments, padding = GEOMETRIES[geometry]
    conv = randomised(layer(*sizes, **arguments))
    x = torch.randn(3, sizes[0], 9, 8, dtype=torch.float64)
    wanted = reference.convolve(conv, x.numpy(), padding)
    torch.testing.assert_close(
        conv.kernels(conv.context(x)),
        torch.from_numpy(reference.kernels(conv, x.numpy())),
        rtol=1e-10,
        atol=1e-12,
    )
    settled = settle(copy.deepcopy(conv))
    assert settled.terms < conv.terms or not isinstance(conv, FAMILIES["dpk"]), "nothing was set apart"
    slices = (1, 2) if conv.groups == 1 else (1,)
    ways = (conv, settled, settle(copy.deepcopy(conv), own_softmax=True))
    for made, name, count in itertools.product(ways, lowerings_of(conv), slices):
        set_lowering(made, name)
        made.eval().slices = count
        one = LOWERINGS[name].batch == "one"
        y = torch.cat([made(sample) for sample in x.split(1)]) if one else made(x)
        torch.testing.assert_close(
            y, torch.from_numpy(wanted), rtol=1e-10, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


@torch.no_grad()
@pytest.mark.parametrize("lowering", ["grouped", "unfold", "gather", "rows", "contract"])
def test_what_dpk_sets_apart_costs_no_digits(lowering: str) -> None:
    """Large terms that cancel would."""
    torch.manual_seed(1)
    conv = set_lowering(FAMILIES["dpk"](128, 64, 3, padding=1).eval(), "grouped")
    x = torch.randn(4, 128, 8, 8).abs()  # as after a ReLU, so that the sum over the channels is large
    exact = copy.deepcopy(conv).double()(x.double())
    settled = set_lowering(settle(copy.deepcopy(conv)), lowering)
    assert settled.terms < conv.terms, "nothing was set apart"
    assert (settled(x) - exact).abs().max() < 3 * (conv(x) - exact).abs().max()


@moved_families
def test_kernels_depend_on_the_sample(layer: type[DynamicConv2d]) -> None:
    conv = randomised(layer(16, 4, 3))
    kernels = conv.kernels(torch.randn(2, 16, dtype=torch.float64))
    assert not torch.allclose(kernels[0], kernels[1])


@families
def test_a_layer_says_whether_its_basis_is_the_identity(layer: type[DynamicConv2d]) -> None:
    """Else tuning would leave out ``contract`` where it is a lowering of its own."""
    conv = layer(3, 4, 3)
    assert conv.identity_basis == (conv.factors(torch.randn(2, 3))[1] is None)


@families
def test_a_static_factor_has_a_leading_one(layer: type[DynamicConv2d]) -> None:
    conv = layer(3, 4, 3)
    mixing, basis = conv.factors(torch.randn(5, 3))
    assert mixing.shape == ((5 if conv.sample_factor in ("mixing", "both") else 1), 4, conv.terms, 3)
    if basis is not None:
        assert basis.shape == ((5 if conv.sample_factor in ("basis", "both") else 1), conv.terms, 9)


@families_and_lowerings
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients(layer: type[DynamicConv2d], lowering: str, groups: int) -> None:
    conv = set_lowering(randomised(layer(8, 2, 3, padding=1, groups=groups)), lowering)
    names, parameters = zip(*conv.named_parameters(), strict=True)
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(conv, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)
    gradients = torch.autograd.grad(conv(x).square().sum(), parameters)
    assert all(gradient.abs().max() > 0 for gradient in gradients), (
        "a parameter the output does not depend on"
    )


@families
def test_drop_in_for_conv2d(layer: type[DynamicConv2d]) -> None:
    arguments = (4, 6, (3, 5), (2, 1), (1, 2), 1, 2, True)
    conv, static = layer(*arguments), nn.Conv2d(*arguments)
    x = torch.randn(2, 4, 11, 12)
    assert conv(x).shape == static(x).shape
    for name in (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "padding_mode",
    ):
        assert getattr(conv, name) == getattr(static, name)
    assert conv.bias is not None
    assert conv.bias.shape == static.bias.shape
    for padding in (1, "same", "valid"):
        assert layer(4, 4, 3, padding=padding).padding == nn.Conv2d(4, 4, 3, padding=padding).padding


@families
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type(layer: type[DynamicConv2d], dtype: torch.dtype) -> None:
    conv = layer(4, 6, 3, padding=1, dtype=dtype)
    y = conv(torch.randn(2, 4, 6, 6, dtype=dtype))
    assert y.dtype == dtype
    assert y.isfinite().all()


@families
def test_inputs_that_do_not_fit(layer: type[DynamicConv2d]) -> None:
    conv = layer(4, 6, (3, 5))
    for x, message in {
        torch.randn(4, 8, 8): "add a batch axis",
        torch.randn(2, 3, 8, 8): "not the layer's in_channels",
        torch.randn(2, 4, 2, 8): "taller than the input",
        torch.randn(2, 4, 8, 4): "wider than the input",
    }.items():
        for name in lowerings_of(layer):
            with pytest.raises(AssertionError, match=message):
                set_lowering(conv, name)(x[:1] if name == "single" and x.dim() == 4 else x)


@families
def test_channels_last_is_for_the_weights_of_static_convolutions(layer: type[DynamicConv2d]) -> None:
    """Elsewhere it would tear apart what is read in one piece, at every forward."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), layer(4, 6, 3)).to(memory_format=torch.channels_last)
    assert not network[0].weight.is_contiguous()
    assert all(parameter.is_contiguous() for parameter in network[1].parameters())


@families
def test_an_empty_batch(layer: type[DynamicConv2d]) -> None:
    assert layer(4, 6, 3)(torch.randn(0, 4, 8, 8)).shape == (0, 6, 6, 6)


@families
def test_shared_context_is_the_mean_context_in_training_alone(layer: type[DynamicConv2d]) -> None:
    conv = share_context(randomised(layer(16, 4, 3, padding=1)), 3)
    x = torch.randn(3, 16, 6, 6, dtype=torch.float64)
    kernels = conv.kernels(conv.context(x).mean(0, keepdim=True))
    torch.testing.assert_close(conv(x), F.conv2d(x, kernels[0], conv.bias, padding=1))
    own = conv.eval()(x)
    if layer.sample_factor != "none":
        assert not torch.allclose(own, conv.train()(x))
    torch.testing.assert_close(share_context(conv, 1)(x), own)


@families
def test_images_in_a_row_share_their_kernels(layer: type[DynamicConv2d]) -> None:
    conv = randomised(layer(4, 6, 3, padding=1))
    x = torch.randn(5, 4, 6, 6, dtype=torch.float64)
    alone = share_context(conv, 5)
    wanted = torch.cat([alone(x[:2]), alone(x[2:4]), alone(x[4:])])
    torch.testing.assert_close(share_context(conv, 2)(x), wanted)


def test_fewer_than_one_image_cannot_share() -> None:
    with pytest.raises(ZooError, match="0 images cannot share kernels; 1 gives each its own"):
        share_context(FAMILIES["kw"](4, 6, 3), 0)


@families_and_lowerings
def test_samples_do_not_leak(layer: type[DynamicConv2d], lowering: str) -> None:
    conv = set_lowering(randomised(layer(3, 4, 3, padding=1)), lowering)
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    changed = x.clone()
    changed[1] = 100.0
    before, after = conv(x), conv(changed)
    torch.testing.assert_close(before[[0, 2, 3]], after[[0, 2, 3]])
    assert not torch.allclose(before[1], after[1])


@families_and_lowerings
def test_scripts_and_traces(layer: type[DynamicConv2d], lowering: str) -> None:
    conv = set_lowering(layer(3, 4, 3, padding=1), lowering)
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(torch.fx.symbolic_trace(conv)(x), conv(x))
    torch.testing.assert_close(torch.jit.script(conv)(x), conv(x))


@families_and_lowerings
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::UserWarning")
@torch.no_grad()
def test_a_trace_is_not_tied_to_a_device_or_a_size(layer: type[DynamicConv2d], lowering: str) -> None:
    conv = set_lowering(settle(layer(4, 4, 3, padding=1, stride=(1, 2), groups=2).eval()), lowering)
    traced = torch.jit.trace(conv, torch.randn(2, 4, 6, 6))
    assert "Device = prim::Constant" not in str(traced.inlined_graph)
    x = torch.randn(2 if LOWERINGS[lowering].batch == "frozen" else 3, 4, 9, 5)
    torch.testing.assert_close(traced(x), conv(x))


def test_single_refuses_a_batch() -> None:
    conv = set_lowering(FAMILIES["kw"](3, 4, 3), "single")
    with pytest.raises(AssertionError, match="takes batch 1"):
        conv(torch.randn(2, 3, 6, 6))


def he_convolution(*arguments: int) -> nn.Conv2d:
    conv = nn.Conv2d(*arguments)
    nn.init.kaiming_normal_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


@families
@pytest.mark.parametrize("geometry", ["3x3", "1x1", "groups"])
def test_initialisation_keeps_the_scale(layer: type[DynamicConv2d], geometry: str) -> None:
    arguments = {"3x3": (32, 32, 3, 1, 1), "1x1": (32, 32, 1), "groups": (32, 32, 3, 1, 1, 1, 4)}[geometry]

    def energies(make: Callable[..., nn.Module]) -> list[float]:
        found = []
        for seed in range(15):
            torch.manual_seed(seed)
            x = torch.randn(4, 32, 12, 12)
            for _ in range(16):
                x = make(*arguments)(x).relu()
            found.append(x.square().mean().log10().item())
        return found

    with torch.no_grad():
        gains = energies(layer)
        # He's initialisation keeps the mean of the energy; its median drifts, as a static convolution's does.
        drift = np.median(energies(he_convolution))
    bound = 2 if geometry == "groups" else 1
    assert abs(np.median(gains) - drift) < bound, f"powers of ten after 16 layers: {gains}, static {drift}"


@families
def test_default_initial_kernels_have_he_variance(layer: type[DynamicConv2d]) -> None:
    conv = layer(16, 32, 3)
    kernels = conv.kernels(torch.zeros(1, 16))
    torch.testing.assert_close(kernels.square().mean(), torch.tensor(2 / (16 * 9)), rtol=1e-4, atol=0)


BAD = {
    "in_channels must be at least 1": {"in_channels": 0},
    "groups=3 must divide in_channels=4": {"groups": 3},
    "padding_mode='reflect' is not supported": {"padding_mode": "reflect"},
    "padding='same' needs stride 1": {"padding": "same", "stride": 2},
    "padding must be an int, a pair, 'same' or 'valid', not 'full'": {"padding": "full"},
    "padding must be an int or a pair of ints of at least 0": {"padding": -1},
    "kernel_size must be an int or a pair": {"kernel_size": (3, 3, 3)},
    "kernel_size must be an int or a pair of ints of at least 1, not None": {"kernel_size": None},
    "groups must be a whole number, not 2.0": {"groups": 2.0},
    "out_channels must be a whole number, not True": {"out_channels": True},
    "stride must be an int or a pair of ints of at least 1": {"stride": 0},
}


@families
@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(layer: type[DynamicConv2d], message: str) -> None:
    with pytest.raises(ZooError, match=message.replace("(", r"\(").replace(")", r"\)")):
        layer(**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, **BAD[message]})


@pytest.mark.parametrize(
    ("family", "argument"),
    [(name, argument) for name, layer in FAMILIES.items() for argument in layer.sizes],
)
def test_family_sizes_are_checked_and_used(family: str, argument: str) -> None:
    with pytest.raises(ZooError, match=f"{argument} must be at least 1, not 0"):
        FAMILIES[family](4, 4, 3, **{argument: 0})
    with pytest.raises(ZooError, match=f"{argument} must be a whole number, not 2.5"):
        FAMILIES[family](4, 4, 3, **{argument: 2.5})
    conv = FAMILIES[family](20, 4, 3, padding=1, **{argument: 5})
    assert getattr(conv, argument) == 5
    assert conv(torch.randn(2, 20, 6, 6)).shape == (2, 4, 6, 6)
    if argument == "start_temperature":
        return
    default = FAMILIES[family](20, 4, 3, padding=1)
    shapes = [[parameter.shape for parameter in layer.parameters()] for layer in (conv, default)]
    assert shapes[0] != shapes[1], f"{argument} changes nothing"


@moved_families
def test_settling_slices_a_large_mixing_and_changes_nothing(layer: type[DynamicConv2d]) -> None:
    conv = layer(512, 512, 3, padding=1).eval()
    x = torch.randn(2, 512, 5, 5)
    before = {name: set_lowering(conv, name)(x) for name in ("unfold", "gather", "rows", "contract")}
    assert conv.slices == 1
    assert (settle(conv).slices > 1) == (layer.sample_factor == "mixing")
    for name, y in before.items():
        torch.testing.assert_close(set_lowering(conv, name)(x), y, rtol=1e-4, atol=1e-5)


@families
@pytest.mark.parametrize("own_softmax", [False, True])
def test_what_settling_decides_is_named(layer: type[DynamicConv2d], own_softmax: bool) -> None:
    """Or tuning would take a layer for another."""
    conv = layer(512, 512, 3).eval()
    before = {name: value for name, value in vars(conv).items() if isinstance(value, int | str)}
    settle(conv, own_softmax)
    decided = {name for name, value in before.items() if getattr(conv, name) != value}
    assert decided - {"terms"} <= set(conv.settled_names)


@pytest.mark.parametrize(("scale", "bounded"), [(1, True), (1e3, False)])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_settled_softmax_is_the_same_softmax(scale: float, bounded: bool, groups: int) -> None:
    conv = FAMILIES["dpk"](4, 4, 3, groups=groups).eval()
    with torch.no_grad():
        conv.keys.mul_(scale)
    context = 100 * torch.randn(3, 4)
    kernels = conv.kernels(context)
    assert settle(conv).bounded == bounded
    assert conv.terms == conv.bank_size - bounded
    torch.testing.assert_close(conv.kernels(context), kernels)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_runtimes_own_softmax_is_left_whole(groups: int) -> None:
    conv = FAMILIES["dpk"](4, 4, 3, groups=groups).eval()
    context = 100 * torch.randn(3, 4)
    kernels = conv.kernels(context)
    for own in (True, False, True):  # each time anew
        assert settle(nn.Sequential(conv), own_softmax=own)[0] is conv
        assert conv.bounded is not own
        assert conv.terms == conv.bank_size - (not own)
        torch.testing.assert_close(conv.kernels(context), kernels)


@pytest.mark.parametrize("groups", [1, 4])
def test_constrained_logits_are_small_and_small_ones_stay(groups: int) -> None:
    conv = FAMILIES["dpk"](4, 8, 3, groups=groups).eval()
    before = conv.in_queries.clone()
    constrain(nn.Sequential(conv))
    assert torch.equal(conv.in_queries, before)
    with torch.no_grad():
        conv.in_queries[0] *= 1e3
    constrain(nn.Sequential(conv))
    assert torch.equal(conv.in_queries[1:], before[1:]), "the others"
    torch.testing.assert_close(F.normalize(conv.in_queries[0], dim=0), F.normalize(before[0], dim=0))
    # The worst image: every entry of the context saturates with the sign that suits one pair of channels.
    logits = torch.einsum("od,id,md->oimd", conv.out_queries, conv.in_queries, conv.keys) / conv.key_dim**0.5
    apart = (logits - logits[:, :, :1]).abs().sum(dim=-1)
    assert float(apart.max().detach()) == pytest.approx(conv.largest_logit, rel=1e-5)
    # The one kernel that a pair prefers has most of its attention, and not so much that nothing is learned.
    assert conv.largest_logit < 20
    assert settle(conv).bounded


@pytest.mark.parametrize("groups", [1, 4])
def test_the_context_is_kept_where_a_tanh_has_slope(groups: int) -> None:
    conv = FAMILIES["dpk"](4, 8, 3, groups=groups).eval()
    before = {name: value.clone() for name, value in conv.reduce.named_parameters()}
    constrain(nn.Sequential(conv))
    assert all(torch.equal(value, before[name]) for name, value in conv.reduce.named_parameters())
    with torch.no_grad():
        conv.reduce.weight[1:] *= 1e3
    constrain(nn.Sequential(conv))
    torch.testing.assert_close(conv.reduce.weight[1:], 990 * before["weight"][1:], msg="bit by bit")
    for _ in range(1000):
        constrain(nn.Sequential(conv))
    assert torch.equal(conv.reduce.weight[0], before["weight"][0])
    assert torch.equal(conv.reduce.bias, before["bias"])
    norms = conv.reduce.weight[1:].norm(dim=1) * 4**0.5
    torch.testing.assert_close(norms, torch.full_like(norms, conv.longest_reduce))
    torch.testing.assert_close(F.normalize(conv.reduce.weight), F.normalize(before["weight"]))
    slopes = 1 - conv.reduce(torch.full((1, 4), 0.5)).tanh() ** 2
    assert float(slopes.min().detach()) > 0.03


@pytest.mark.parametrize("channels", [16, 256])
def test_fresh_layers_are_within_their_bounds(channels: int) -> None:
    torch.manual_seed(0)
    conv = FAMILIES["dpk"](channels, channels, 3)
    before = copy.deepcopy(conv.state_dict())
    constrain(nn.Sequential(conv))
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())


def test_a_bank_of_one_kernel_settles() -> None:
    conv = FAMILIES["dpk"](4, 6, 3, bank_size=1).eval()
    x = torch.randn(2, 4, 6, 6)
    before = conv(x)
    torch.testing.assert_close(settle(conv)(x), before)


@pytest.mark.parametrize(("groups", "outputs"), [(1, 6), (4, 4), (2, 8), (4, 8)])
@pytest.mark.parametrize("lowering", ["grouped", "unfold", "gather", "rows", "contract", "scaled"])
def test_a_kernel_set_apart_reaches_every_output_of_its_group(
    groups: int, outputs: int, lowering: str
) -> None:
    conv = FAMILIES["dpk"](4, outputs, 3, padding=1, stride=2, groups=groups).eval()
    x = torch.randn(3, 4, 7, 6)
    before = set_lowering(conv, "grouped")(x)
    assert settle(conv).bounded
    if lowering in lowerings_of(conv):
        torch.testing.assert_close(set_lowering(conv, lowering)(x), before, rtol=1e-4, atol=1e-5)
    else:
        assert lowering == "scaled"
        assert groups < 4 or outputs > 4


@pytest.mark.parametrize(("largest", "bounded"), [(80.0, True), (85.9, True), (86.0, False), (300.0, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_softmax_is_bounded_only_where_no_context_makes_it_overflow(largest, bounded, sign) -> None:
    conv = FAMILIES["dpk"](4, 6, 3).eval()
    with torch.no_grad():
        conv.reduce.weight.mul_(1e4)
        conv.keys[0] = 0  # the others' logits are measured against the first's
        largest_now = (conv.out_queries.unsqueeze(1) * conv.keys).abs().flatten(0, 1)
        largest_now = (largest_now @ conv.in_queries.abs().t()).max() * conv.key_dim**-0.5
        conv.keys.mul_(largest / largest_now)
        # every query looks one way, so that all logits of a sample reach the bound together
        for queries in (conv.out_queries, conv.in_queries, conv.keys):
            queries.abs_()
        conv.reduce.weight.abs_()
    context = torch.full((2, 4), sign * 100.0)
    exact = copy.deepcopy(conv).double().kernels(context.double())
    kernels = settle(conv).kernels(context)
    assert conv.bounded == bounded
    # Logits are rounded in proportion to their size, and an exponential makes that a relative error.
    rounding = 16 * largest * torch.finfo(torch.float32).eps
    torch.testing.assert_close(kernels, exact.float(), rtol=rounding, atol=1e-5)


@families
def test_reset_leaves_nothing_as_it_was(layer: type[DynamicConv2d]) -> None:
    conv = layer(8, 4, 3, device="meta").to_empty(device="cpu")
    for parameter in conv.parameters():
        nn.init.constant_(parameter, torch.nan)
    conv.reset_parameters()
    assert [name for name, parameter in conv.named_parameters() if not parameter.isfinite().all()] == []


@moved_families
@pytest.mark.parametrize("lowering", ["unfodl", "fold", "single"])
def test_a_lowering_that_is_set_past_the_checks_is_refused(layer: type[DynamicConv2d], lowering: str) -> None:
    conv = layer(4, 4, 3)
    conv.lowering = lowering
    with pytest.raises(AssertionError, match=r"no such lowering|several samples|takes batch 1"):
        conv(torch.randn(2, 4, 6, 6))


def test_slices_never_tear_groups_apart() -> None:
    conv = FAMILIES["kw"](4, 4, 3, groups=2)
    conv.slices = 2
    with pytest.raises(AssertionError, match="tear the outputs of a group apart"):
        set_lowering(conv, "rows")(torch.randn(2, 4, 6, 6))


def test_unknown_lowering_suggests() -> None:
    with pytest.raises(ZooError, match=r"unknown lowering 'unfolded'; choose .* Did you mean unfold, fold\?"):
        set_lowering(nn.Identity(), "unfolded")


def test_auto_contracts_only_where_it_saves() -> None:
    assert FAMILIES["dpk"](4, 4, 3, bank_size=4).lowering == "contract"
    assert FAMILIES["dpk"](4, 4, 3, bank_size=9).lowering == "rows"
    assert FAMILIES["dpk"](4, 4, 3, bank_size=9, stride=2).lowering == "unfold"
    assert FAMILIES["dpk"](512, 8, 3, bank_size=9).lowering == "unfold"
    assert FAMILIES["dpk"](4, 4, 3, groups=4).lowering == "scaled"
    assert FAMILIES["fgk"](4, 4, 3).lowering == "scaled"
    assert FAMILIES["fgk"](4, 4, 3, hidden_dim=9).lowering == "contract"
    assert FAMILIES["dpk"](4, 4, 1).lowering == "unfold"
    conv = set_lowering(FAMILIES["dpk"](4, 4, 3), "grouped")
    assert set_lowering(conv, "auto").lowering == "contract"
