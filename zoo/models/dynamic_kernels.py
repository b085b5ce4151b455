"""Every backbone crossed with every family, registered with timm.

The file's name is how timm groups them: ``timm.list_models(module="dynamic_kernels")``.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    load_state_dict,
    register_model,
)
from timm.models._builder import resolve_pretrained_cfg
from torch import nn

from zoo.errors import ZooError, nearest
from zoo.layers import FAMILIES, STATIC, family, no_weight_decay
from zoo.layers.attention import ATTENTION
from zoo.models.attach import attach
from zoo.models.backbones import BACKBONES, Backbone
from zoo.models.convert import Where, choose, dynamic_like, replace
from zoo.models.sites import find_sites
from zoo.pretrained import TAG, load_into, manifest_entry, pretrained_cfg, read_manifest, verify_weights

__all__: list[str] = []

STEMS = ("cifar", "imagenet")
#: The backbones that attention modules are compared with the families on.
ATTENTION_BACKBONES = ("resnet18", "mobilenetv2_100")
#: Height and width at which a backbone is looked at for its stages.
_LOOK = (224, 224)


def build(
    backbone: Backbone,
    family_name: str,
    *,
    stem: str = "cifar",
    stages: tuple[int, ...] | None = None,
    where: Where = "spatial",
    layer_args: dict[str, int] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a backbone and make its convolutions dynamic, or give it an attention module.

    Args:
        backbone: a row of ``BACKBONES``.
        family_name: a suffix in ``FAMILIES`` or ``ATTENTION``, or ``"static"``.
        stem: ``"cifar"`` (3x3, stride 1, no pool) or ``"imagenet"`` (timm's).
        stages: which stages become dynamic, counted by resolution from 0; all by default. For an attention
            module: which stages of ``backbone.stages`` get it; its row's own by default.
        where: which convolutions of these, see :func:`zoo.dynamize`.
        layer_args: the family's or module's own arguments, such as ``{"bank_size": 8}``.
        **kwargs: timm's, such as ``num_classes``, ``in_chans`` or ``drop_path_rate``.

    Returns:
        The model, mapping (N, in_chans, H, W) to (N, num_classes), randomly initialised.

    Raises:
        ZooError: an unknown stem or family, a stage out of range, or arguments that no layer takes.
    """
    if stem not in STEMS:
        raise ZooError(f"unknown stem {stem!r}; choose from {', '.join(STEMS)}.")
    if layer_args is not None and not isinstance(layer_args, Mapping):
        raise ZooError(f"layer_args must be a dict such as {{'vector_dim': 9}}, not {layer_args!r}.")
    if layer_args and family_name == STATIC:
        raise ZooError(f"a static model has no dynamic layers to take {', '.join(layer_args)}.")
    model = backbone.build(**backbone.args, **kwargs)
    if stem == "cifar":
        backbone.shrink_stem(model)
    if family_name in ATTENTION:
        if where != "spatial":
            raise ZooError(f"where={where!r} chooses convolutions for a family; {family_name} takes none.")
        attach(model, backbone, family_name, stages, **(layer_args or {}))
        return model
    if family_name == STATIC and stages is None and where == "spatial":
        return model
    # Not the size these models are made for: ImageNet's stem would bring it down to single pixels.
    sites = find_sites(model, (kwargs.get("in_chans", 3), *_LOOK))
    chosen, _ = choose(sites, stages, where)
    if family_name != STATIC:
        layer = family(family_name)
        replace(model, {conv: dynamic_like(conv, layer, **(layer_args or {})) for conv in chosen})
    return model


def create_model(
    name: str, pretrained: bool = False, checkpoint: str | Path | None = None, **kwargs: Any
) -> nn.Module:
    """Create one of this zoo's models as ``timm.create_model`` does, with errors that say what to do.

    Args:
        name: a name in :func:`list_models`, with or without the tag.
        pretrained: load the weights of this zoo.
        checkpoint: load this safetensors file instead.
        **kwargs: as for :func:`build`.

    Raises:
        ZooError: an unknown name; no, missing or damaged weights; a checkpoint that does not fit.
    """
    base = check_name(name)
    if pretrained and checkpoint is None and manifest_entry(base) is None:
        raise ZooError(
            f"{name} has no trained weights yet; create it with pretrained=False (--no-pretrained)."
        )
    model = timm.create_model(name, pretrained=pretrained and checkpoint is None, **kwargs)
    if checkpoint is not None:
        load_into(model, checkpoint)
    return model


def list_models() -> list[str]:
    """Return the names of this zoo's models, without tags."""
    return list(__all__)


def check_name(name: str) -> str:
    """Return a model's name without its tag.

    Raises:
        ZooError: it is not one of this zoo's; the nearest names are suggested.
    """
    base, _, tag = name.partition(".")
    if base not in __all__:
        raise ZooError(
            f"unknown model {name!r}.{nearest(base, __all__) or ' See python -m export --models.'}"
        )
    if tag not in ("", TAG):
        raise ZooError(f"unknown tag {tag!r} of {base}; the only one is {TAG!r}.")
    return base


def _default_cfg(name: str, backbone: Backbone) -> dict[str, Any]:
    try:
        trained = pretrained_cfg(name)
    except ZooError:  # a damaged manifest must not keep anyone from importing the package
        trained = {}
    return {
        "architecture": name,
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (4, 4),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "fixed_input_size": False,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "first_conv": backbone.first_conv,
        "classifier": backbone.classifier,
        "paper_ids": backbone.paper,
        **trained,
    }


def _check_fit(
    name: str, backbone: Backbone, family_name: str, cfg: PretrainedCfg, kwargs: dict[str, Any]
) -> None:
    """Refuse arguments that make another model than the one whose weights are to be loaded.

    timm says so by listing every tensor, and for ``features_only`` not at all.
    """
    given = {key: kwargs[key] for key in ("stem", "stages", "where", "layer_args") if key in kwargs}
    state = cfg.state_dict
    if given and not state and cfg.file:
        state = load_state_dict(cfg.file)
    if not given or not state:
        return
    with torch.device("meta"):
        wanted = build(backbone, family_name, **given).state_dict()
    for key, value in wanted.items():
        adapted = key.startswith(f"{backbone.classifier}.")
        if not adapted and (key not in state or state[key].shape != value.shape):
            arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
            raise ZooError(
                f"the weights of {name} do not fit {arguments}: {key} differs; leave that out, or give "
                "pretrained=False and train."
            )


def _entrypoint(name: str, backbone: Backbone, family_name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if pretrained:
            read_manifest()  # what is wrong with it was left unsaid when the models were registered
            cfg = resolve_pretrained_cfg(
                name,
                pretrained_cfg=kwargs.get("pretrained_cfg"),
                pretrained_cfg_overlay=kwargs.get("pretrained_cfg_overlay"),
            )
            if cfg.file:
                verify_weights(name, cfg.file)
            _check_fit(name, backbone, family_name, cfg, kwargs)
        model = build_model_with_cfg(
            functools.partial(build, backbone, family_name),
            name,
            pretrained,
            **{"num_classes": 10, "feature_cfg": dict(backbone.feature_cfg), **kwargs},
        )
        # timm's optimizers ask the model, and timm's classes do not know what its layers want.
        model.no_weight_decay = functools.partial(no_weight_decay, model)  # type: ignore[assignment]
        return model

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    create.__doc__ = f"{name}: see :func:`build`."
    return create


def register(name: str, backbone: Backbone, family_name: str) -> None:
    """Register one model with timm.

    Raises:
        ZooError: timm already knows the name, which it would overwrite with no more than a warning.
    """
    if timm.is_model(name):
        raise ZooError(f"cannot register {name}: timm already has a model of that name.")
    default_cfgs.update(generate_default_cfgs({f"{name}.{TAG}": _default_cfg(name, backbone)}))
    entrypoint = _entrypoint(name, backbone, family_name)
    setattr(sys.modules[__name__], name, entrypoint)
    register_model(entrypoint)


default_cfgs: dict[str, Any] = {}

for _backbone_name, _backbone in BACKBONES.items():
    for _family_name in (STATIC, *FAMILIES):
        register(f"{_backbone_name}_{_family_name}", _backbone, _family_name)
for _backbone_name in ATTENTION_BACKBONES:
    for _attention_name in ATTENTION:
        register(f"{_backbone_name}_{_attention_name}", BACKBONES[_backbone_name], _attention_name)
