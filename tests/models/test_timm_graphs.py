"""TorchScript and FX graphs of every model: after timm's tests/test_models.py."""

import torch
from timm.layers import set_scriptable

from tests.models.registry import create, images, thorough


@thorough
def test_scripts(name: str) -> None:
    with set_scriptable(True):
        model = create(name)
    scripted = torch.jit.script(model)
    with torch.no_grad():
        for batch in (1, 3):
            x = images(batch)
            torch.testing.assert_close(scripted(x), model(x))


@thorough
def test_traces_with_fx(name: str) -> None:
    model = create(name)
    x = images()
    graph = torch.fx.symbolic_trace(model)
    with torch.no_grad():
        assert torch.equal(graph(x), model(x))
        other = images(3)
        assert torch.equal(graph(other), model(other))


@thorough
def test_trains_as_an_fx_graph(name: str) -> None:
    model = create(name).train()
    y = torch.fx.symbolic_trace(model)(images())
    (y * torch.randn(10)).mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key


@thorough
def test_scripts_as_an_fx_graph(name: str) -> None:
    with set_scriptable(True):
        model = create(name)
    scripted = torch.jit.script(torch.fx.symbolic_trace(model))
    with torch.no_grad():
        for batch in (1, 3):
            x = images(batch)
            torch.testing.assert_close(scripted(x), model(x))
