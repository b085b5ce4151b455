"""Every model answers to timm's interface of models: after timm's tests/test_models.py."""

import copy

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.models import group_parameters
from timm.optim import create_optimizer_v2

from tests.models.registry import create, every_model, family_models, images, loaded, thorough
from zoo.layers import DynamicConv2d


@every_model
def test_forward(name: str) -> None:
    model = create(name)
    x = images(3)
    with torch.no_grad():
        y = model(x)
        alone = model(x[1:2])
    assert y.shape == (3, 10)
    assert y.isfinite().all()
    assert not torch.allclose(y[0], y[1])
    torch.testing.assert_close(alone, y[1:2], rtol=1e-4, atol=1e-5)


@every_model
def test_backward_reaches_every_parameter(name: str) -> None:
    model = create(name, num_classes=42).train()
    y = model(images())
    assert y.shape == (2, 42)
    # A plain mean would leave the classifier's rows with equal gradients and what precedes with next to none.
    (y * torch.randn(42)).mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@every_model
def test_default_cfg(name: str) -> None:
    model = create(name)
    cfg = model.default_cfg
    assert cfg["architecture"] == name
    assert cfg["tag"] == "cifar10"
    assert cfg["input_size"] == (3, 32, 32)
    assert cfg["mean"] == cfg["std"] == (0.5, 0.5, 0.5)
    assert cfg["num_classes"] == model.num_classes == 10
    state = model.state_dict()
    assert state[f"{cfg['classifier']}.weight"].shape == (10, model.head_hidden_size)
    assert state[f"{cfg['first_conv']}.weight"].shape[1:] == (3, 3, 3)
    x = images()
    with torch.no_grad():
        features = model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        torch.testing.assert_close(model.get_classifier()(pooled), model(x))
    assert features.shape == (2, model.num_features, *cfg["pool_size"])
    assert pooled.shape == (2, model.head_hidden_size)


@thorough
def test_classifier(name: str) -> None:
    model = create(name)
    assert model.get_classifier() is model.get_submodule(model.default_cfg["classifier"])
    x = images()
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(3)
    assert model.num_classes == 3
    torch.testing.assert_close(model.get_classifier()(pooled), model(x))
    assert model(x).shape == (2, 3)
    model.reset_classifier(3, "max")
    assert not torch.allclose(model.forward_head(model.forward_features(x), pre_logits=True), pooled)
    model.reset_classifier(0, "avg")
    torch.testing.assert_close(model(x), pooled)
    model.reset_classifier(0, "")
    assert model(x).shape == (2, model.head_hidden_size, 4, 4)
    bare = timm.create_model(name, num_classes=0, global_pool="").eval()
    assert bare(x).shape == (2, model.head_hidden_size, 4, 4)


@thorough
def test_pretrained_weights_adapt_to_channels_and_classes(name: str) -> None:
    source = create(name)
    same = loaded(name, source)
    x = images()
    torch.testing.assert_close(same(x), source(x))
    cfg = source.default_cfg
    first, classifier = f"{cfg['first_conv']}.weight", f"{cfg['classifier']}."
    for channels in (1, 6):
        adapted = loaded(name, source, in_chans=channels, num_classes=5)
        assert adapted(images(channels=channels)).shape == (2, 5)
        state = adapted.state_dict()
        for key, value in source.state_dict().items():
            if key == first:
                # A grey image takes the sum over the colours, six channels repeat the three and halve them.
                value = value.sum(1, keepdim=True) if channels == 1 else value.repeat(1, 2, 1, 1) / 2
            if not key.startswith(classifier):
                torch.testing.assert_close(state[key], value, msg=key)


@thorough
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    plain = create(name).train()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    assert saving.grad_checkpointing
    x = images()
    outputs = plain(x), saving(x)
    torch.testing.assert_close(outputs[0], outputs[1])
    for y in outputs:
        y.square().mean().backward()
    for (key, parameter), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=key)


@thorough
def test_dropout_and_stochastic_depth(name: str) -> None:
    model = create(name, drop_rate=0.4, drop_path_rate=0.3)
    assert model.drop_rate == 0.4
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates)
    assert 0 < rates[0] < rates[-1] <= 0.3
    x = images(8)
    torch.testing.assert_close(model(x), model(x))
    model.train()
    assert not torch.allclose(model(x), model(x))


@thorough
@pytest.mark.parametrize("coarse", [True, False])
def test_parameter_groups_follow_the_layers(name: str, coarse: bool) -> None:
    model = timm.create_model(name)
    cfg = model.default_cfg
    layers = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
    assert layers.keys() == dict(model.named_parameters()).keys()
    assert layers[f"{cfg['first_conv']}.weight"] == 0
    assert layers[f"{cfg['classifier']}.weight"] == max(layers.values())
    assert sorted(set(layers.values())) == list(range(max(layers.values()) + 1))
    blocks = {key.rpartition(".conv")[0]: layer for key, layer in layers.items() if ".conv" in key}
    for block, layer in blocks.items():
        members = {layers[key] for key in layers if key.startswith(f"{block}.")}
        assert members == {layer}, f"{block} is spread over the groups {members}"


@family_models
def test_timm_spares_what_wants_no_weight_decay(name: str) -> None:
    model = timm.create_model(name)
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=0.1)
    decayed = {p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert model.get_parameter(f"{model.default_cfg['first_conv']}.weight") in decayed
    for layer in model.modules():
        if isinstance(layer, DynamicConv2d):
            spared = {key for key, parameter in layer.named_parameters() if parameter not in decayed}
            assert spared >= set(layer.no_weight_decay_names)
            assert {key for key in layer.no_weight_decay_names if layer.get_parameter(key).ndim > 1} == {
                key for key in spared if layer.get_parameter(key).ndim > 1
            }


@thorough
def test_device_and_dtype(name: str) -> None:
    empty = timm.create_model(name, device="meta")
    assert all(value.is_meta for value in empty.state_dict().values())
    source = create(name)
    empty.load_state_dict(source.state_dict(), assign=True)
    x = images()
    torch.testing.assert_close(empty.eval()(x), source(x))
    double = timm.create_model(name, dtype=torch.float64)
    floats = {value.dtype for value in double.state_dict().values() if value.is_floating_point()}
    assert floats == {torch.float64}
    assert double(x.double()).dtype == torch.float64
