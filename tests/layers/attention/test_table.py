"""Every row of the table: well formed, trainable, scriptable, traceable, right at every batch size."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import export.onnx
from tests.layers.attention.reference import images, randomised
from zoo.errors import ZooError
from zoo.layers.attention import ATTENTION, attention, complete_args

rows = pytest.mark.parametrize("name", ATTENTION)
#: Those whose export is the least like that of a convolution, and of which timm has none that works.
EXPORTED = {"ge_plus", "mhsa"}
#: The softmax over keys takes no notice of what a bias adds to each of them.
WITHOUT_EFFECT = {"nonlocal": {"p.bias"}}


def small(name: str, **args: int) -> nn.Module:
    """Return the row's module for 16 channels and maps of 8 x 6; in a convolution's place, 32 and stride 2.

    A bottleneck keeps 8 channels, so that no ReLU leaves it without a gradient.
    """
    row = ATTENTION[name]
    if "reduction" in row.args:
        args["reduction"] = 2
    args = complete_args(name, args)
    if args.pop("image_size", None):
        args["feat_size"] = (8, 6)
    if row.place == "conv":
        return row.make(16, 32, stride=2, **args)
    return row.make(16, **args)


@rows
def test_is_well_formed(name: str) -> None:
    row = ATTENTION[name]
    assert row.place in ("gate", "stage", "conv")
    assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", row.paper)
    assert row.summary
    assert "\n" not in row.summary
    known = inspect.signature(row.make).parameters
    for key, default in row.args.items():
        assert ("feat_size" if key == "image_size" else key) in known
        assert key == "image_size" or known[key].default in (default, None)
    assert set(row.geometry) <= set(known)


@rows
def test_keeps_the_shape_or_that_of_the_convolution(name: str) -> None:
    layer = small(name)
    for height, width in ((8, 6), (5, 7), (2, 2)):
        y = layer(torch.randn(2, 16, height, width))
        wanted = (2, 16, height, width)
        if ATTENTION[name].place == "conv":
            wanted = (2, 32, -(-height // 2), -(-width // 2))
        assert y.shape == wanted


@rows
def test_every_parameter_has_an_effect(name: str) -> None:
    layer = randomised(small(name))
    x = images(3, 16, 8, 6).requires_grad_()
    layer(x).square().sum().backward()
    assert x.grad.abs().min() > 0
    largest = {key: parameter.grad.abs().max().item() for key, parameter in layer.named_parameters()}
    assert {key for key, size in largest.items() if size < 1e-9} == WITHOUT_EFFECT.get(name, set())


@rows
def test_samples_do_not_leak(name: str) -> None:
    layer, x = randomised(small(name)), images(4, 16, 8, 6)
    changed = x.clone()
    changed[1] *= -3
    before, after = layer(x), layer(changed)
    torch.testing.assert_close(before[[0, 2, 3]], after[[0, 2, 3]])
    assert not torch.allclose(before[1], after[1])
    torch.testing.assert_close(before, torch.cat([layer(sample) for sample in x.split(1)]))


@rows
def test_scripts_and_traces(name: str) -> None:
    layer = randomised(small(name))
    for make in (torch.jit.script, torch.fx.symbolic_trace):
        other = make(layer)
        for x in (images(2, 16, 8, 6), images(5, 16, 7, 9)):
            torch.testing.assert_close(other(x), layer(x))


@pytest.mark.parametrize(
    "name", [name if name in EXPORTED else pytest.param(name, marks=pytest.mark.slow) for name in ATTENTION]
)
def test_exports_with_a_dynamic_batch(name: str, tmp_path: Path) -> None:
    """At a size its positions are not made for and its strides and extents do not divide."""
    args = {"extent": 4} if name == "ge_plus" else {}
    layer = randomised(small(name, **args)).float()
    channels = 32 if ATTENTION[name].place == "conv" else 16
    head = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 7))
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), layer, *head).eval()
    certificate = export.onnx.export(model, tmp_path / "model.onnx", input_size=(3, 9, 10))
    assert certificate.passed
    assert {check.batch for check in certificate.checks} >= {1, 2, 3, 5, 8, 17}


def test_unknown_names_and_arguments_are_named() -> None:
    with pytest.raises(ZooError, match=r"unknown attention 'se_var4'; choose from se, .*Did you mean se_var"):
        attention("se_var4")
    with pytest.raises(ZooError, match="se has no argument 'ratio'; its own are reduction"):
        complete_args("se", {"ratio": 4})
    with pytest.raises(ZooError, match="se_var1 has no argument 'reduction'; its own are none"):
        complete_args("se_var1", {"reduction": 4})
    assert complete_args("cbam", {"reduction": 4}) == {"reduction": 4, "kernel_size": 7}
