"""Converting networks, and starting dynamic ones from their static twin."""

import pytest
import timm
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.layers import FAMILIES, DynamicConv2d
from zoo.models import convert, is_spatial, warm_start


def twin() -> nn.Module:
    """Return a static model whose batch norms have seen data, in eval mode."""
    model = timm.create_model("resnet10_static")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
        for _ in range(3):
            model(torch.randn(8, 3, 32, 32))
    return model.eval()


@pytest.mark.parametrize(("family", "arguments"), [("kw", {}), ("fgk", {"embedding_dim": 9})])
def test_warm_start_leaves_the_outputs_unchanged(family: str, arguments: dict[str, int]) -> None:
    static = twin()
    dynamic = timm.create_model(f"resnet10_{family}", layer_args=arguments).eval()
    errors = warm_start(dynamic, static.state_dict())
    assert len(errors) == 8
    assert set(errors.values()) == {0.0}
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(dynamic(x), static(x), rtol=1e-4, atol=1e-4)


def test_an_approximate_warm_start_reports_its_error() -> None:
    dynamic = timm.create_model("resnet10_fgk").eval()
    errors = warm_start(dynamic, twin().state_dict())
    assert all(0 < error < 1 for error in errors.values())
    assert errors.keys() == {name for name, m in dynamic.named_modules() if isinstance(m, DynamicConv2d)}


@pytest.mark.parametrize("name", ["resnet10_dpk", "resnet10_static"])
def test_warm_start_from_weights_of_its_own(name: str) -> None:
    trained, fresh = timm.create_model(name).eval(), timm.create_model(name).eval()
    assert set(warm_start(fresh, trained.state_dict()).values()) <= {0.0}
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(fresh(x), trained(x))


def test_warm_start_refuses_what_does_not_fit() -> None:
    model = timm.create_model("resnet10_kw")
    state = twin().state_dict()
    with pytest.raises(ZooError, match=r"layer1\.0\.conv1\.weight is missing"):
        warm_start(model, {key: value for key, value in state.items() if key != "layer1.0.conv1.weight"})
    with pytest.raises(ZooError, match=r"fc\.weight has shape \(3, 512\), the model needs \(10, 512\)"):
        warm_start(model, {**state, "fc.weight": torch.zeros(3, 512)})
    own = timm.create_model("resnet10_kw", num_classes=3).state_dict()
    with pytest.raises(ZooError, match=r"fc\.weight has shape \(3, 512\), the model needs \(10, 512\)"):
        warm_start(model, own)
    with pytest.raises(ZooError, match="DotProductConv2d cannot start from static kernels"):
        warm_start(timm.create_model("resnet10_dpk"), state)


@pytest.mark.parametrize("family", FAMILIES)
def test_convert_keeps_geometry_dtype_and_names(family: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, (3, 5), 2, (1, 2), bias=False), nn.ReLU(), nn.Conv2d(6, 4, 1)
    ).double()
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    shape = model(x).shape
    assert convert(model, FAMILIES[family], lambda _, conv: is_spatial(conv)) == ["0"]
    assert isinstance(model[0], FAMILIES[family])
    assert model[0].bias is None
    assert model(x).shape == shape
    assert model(x).dtype == torch.float64


def test_convert_reaches_nested_modules_and_passes_arguments_on() -> None:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert convert(model, FAMILIES["dpk"], lambda *_: True, bank_size=2) == ["0.0"]
    assert model[0][0].bank.shape == (2, 9)
