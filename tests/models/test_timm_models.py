"""Every model answers to timm's interface of models: after timm's tests/test_models.py."""

import copy

import timm
import torch
from timm.layers import DropPath
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from torch import nn

from tests.models.registry import (
    again,
    create,
    every_model,
    every_model_slowly,
    images,
    name_of,
    small_models,
    typical_models,
)
from zoo.layers import DynamicConv2d


@every_model
def test_forward(model: nn.Module) -> None:
    x = images(3)
    with torch.no_grad():
        y = model(x)
        alone = model(x[1:2])
    assert y.shape == (3, 10)
    assert y.isfinite().all()
    scale = float(y.abs().max())
    assert (y[0] - y[1]).abs().max() > 0.02 * scale
    torch.testing.assert_close(alone, y[1:2], rtol=0, atol=1e-3 * scale)


@every_model
def test_backward_reaches_every_parameter(model: nn.Module) -> None:
    missing = {name for name, _ in model.named_parameters()}
    trained = copy.deepcopy(model)
    trained.reset_classifier(42)
    # A bottleneck of few channels may be shut in one draw of the weights, but not in all.
    for _ in range(4):
        y = trained.train()(images())
        assert y.shape == (2, 42)
        # A plain mean would cancel: behind a norm the outputs of a batch have a fixed one.
        (y * torch.randn_like(y)).mean().backward()
        for name, parameter in trained.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        missing -= {name for name, parameter in trained.named_parameters() if parameter.grad.any()}
        if not missing:
            break
        trained = create(name_of(model), num_classes=42)
    assert not missing


@every_model
def test_default_cfg(model: nn.Module) -> None:
    cfg = model.default_cfg
    assert timm.get_pretrained_cfg(name_of(model)).to_dict() == cfg
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


@every_model_slowly
@torch.no_grad()
def test_classifier(model: nn.Module) -> None:
    assert model.get_classifier() is model.get_submodule(model.default_cfg["classifier"])
    x = images()
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    changed = copy.deepcopy(model)
    changed.reset_classifier(3)
    assert changed.num_classes == 3
    y = changed(x)
    assert y.shape == (2, 3)
    torch.testing.assert_close(changed.get_classifier()(pooled), y)
    changed.reset_classifier(3, "max")
    assert not torch.allclose(changed.forward_head(features, pre_logits=True), pooled)
    changed.reset_classifier(0, "avg")
    torch.testing.assert_close(changed(x), pooled)
    changed.reset_classifier(0, "")
    unpooled = changed(x)
    assert unpooled.shape == (2, model.head_hidden_size, 4, 4)
    bare = again(model, num_classes=0, global_pool="")
    torch.testing.assert_close(bare(x), unpooled)


@every_model_slowly
def test_pretrained_weights_adapt_to_channels_and_classes(model: nn.Module) -> None:
    cfg = model.default_cfg
    first, classifier = f"{cfg['first_conv']}.weight", f"{cfg['classifier']}."
    for channels in (1, 6):
        adapted = again(model, in_chans=channels, num_classes=5)
        assert adapted(images(channels=channels)).shape == (2, 5)
        state = adapted.state_dict()
        for key, value in model.state_dict().items():
            if key == first:
                # A grey image takes the sum over the colours; six channels repeat the three and halve them.
                value = value.sum(1, keepdim=True) if channels == 1 else value.repeat(1, 2, 1, 1) / 2
            if not key.startswith(classifier):
                torch.testing.assert_close(state[key], value, msg=key)


@typical_models
def test_gradient_checkpointing_changes_nothing(model: nn.Module) -> None:
    plain, saving = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    saving.set_grad_checkpointing()
    assert saving.grad_checkpointing
    x = images()
    outputs = plain(x), saving(x)
    torch.testing.assert_close(outputs[0], outputs[1])
    for y in outputs:
        y.square().mean().backward()
    for (name, parameter), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=name)


@typical_models
@torch.no_grad()
def test_dropout_and_stochastic_depth(model: nn.Module) -> None:
    dropping = again(model, drop_rate=0.4, drop_path_rate=0.3)
    rates = [module.drop_prob for module in dropping.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates)
    assert 0 < rates[0] < rates[-1] <= 0.3
    x = images(8)
    torch.testing.assert_close(dropping(x), model(x))
    dropping.train()
    features = dropping.forward_features(x)
    assert not torch.allclose(dropping.forward_features(x), features)
    assert not torch.allclose(dropping.forward_head(features), dropping.forward_head(features))


@small_models
def test_parameter_groups_follow_the_layers(model: nn.Module) -> None:
    cfg = model.default_cfg
    for coarse in (False, True):
        layers = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        assert layers.keys() == dict(model.named_parameters()).keys()
        last = max(layers.values())
        assert set(layers.values()) == set(range(last + 1))
        assert layers[f"{cfg['first_conv']}.weight"] == 0
        assert layers[f"{cfg['classifier']}.weight"] == last
        blocks = {name.rpartition(".conv")[0]: layer for name, layer in layers.items() if ".conv" in name}
        for block, layer in blocks.items():
            members = {layers[name] for name in layers if name.startswith(f"{block}.")}
            assert members == {layer}, f"{block} is spread over the groups {members}"


@small_models
def test_timm_spares_what_wants_no_weight_decay(model: nn.Module) -> None:
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=0.1)
    decayed = {p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert model.get_parameter(f"{model.default_cfg['first_conv']}.weight") in decayed
    for layer in model.modules():
        if isinstance(layer, DynamicConv2d):
            spared = {name for name, parameter in layer.named_parameters() if parameter not in decayed}
            # timm spares vectors anyway.
            vectors = {name for name, parameter in layer.named_parameters() if parameter.ndim == 1}
            assert spared == vectors | set(layer.no_weight_decay_names)


@small_models
def test_device_and_dtype(model: nn.Module) -> None:
    empty = timm.create_model(name_of(model), device="meta", dtype=torch.float64)
    state = empty.state_dict()
    assert all(value.is_meta for value in state.values())
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float64}
    empty.load_state_dict(model.state_dict(), assign=True)
    x = images()
    torch.testing.assert_close(empty.eval()(x), model(x))
