"""TorchScript and FX graphs of every model: after timm's tests/test_models.py."""

import copy

import pytest
import torch
from torch import nn

from tests.models.registry import every_model_slowly, images, slow_models, small_models


@every_model_slowly
@torch.no_grad()
def test_scripts(model: nn.Module) -> None:
    scripted = torch.jit.script(model)
    for batch in (1, 3):
        x = images(batch)
        torch.testing.assert_close(scripted(x), model(x))


@every_model_slowly
@torch.no_grad()
def test_traces_with_fx(model: nn.Module) -> None:
    graph = torch.fx.symbolic_trace(model)
    for batch in (1, 3):
        x = images(batch)
        assert torch.equal(graph(x), model(x))


@small_models
def test_trains_as_an_fx_graph(model: nn.Module) -> None:
    plain = copy.deepcopy(model).train()
    traced = copy.deepcopy(plain)
    x = images()
    for network in (plain, torch.fx.symbolic_trace(traced)):
        network(x).square().mean().backward()
    for (name, parameter), other in zip(plain.named_parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(other.grad, parameter.grad, msg=name)


# Of FX's own GraphModule.
@pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support instance-level annotations")
@slow_models
@torch.no_grad()
def test_scripts_as_an_fx_graph(model: nn.Module) -> None:
    scripted = torch.jit.script(torch.fx.symbolic_trace(model))
    for batch in (1, 3):
        x = images(batch)
        torch.testing.assert_close(scripted(x), model(x))
