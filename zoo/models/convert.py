"""Choosing the convolutions of a network, turning them dynamic, and starting them from static weights."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ZooError, nearest
from zoo.layers import DynamicConv2d
from zoo.layers.geometry import as_pair
from zoo.models.sites import Conv, Site

#: What ``where`` may be, beside a function of a convolution's name and module.
WHERE = ("spatial", "all")
Where = str | Callable[[str, nn.Conv2d], bool]

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


def choose(
    sites: Sequence[Site], stages: Sequence[int] | None = None, where: Where = "spatial"
) -> tuple[dict[nn.Conv2d, tuple[str, ...]], dict[str, str]]:
    """Choose which convolutions become dynamic.

    Args:
        sites: of the network, from :func:`zoo.models.sites.find_sites`.
        stages: which of its stages, counted from 0; None takes all.
        where: ``"spatial"`` takes kernels larger than 1x1, ``"all"`` those too; both leave the stem, what
            sees a pooled map, and linear layers in disguise. A function is called with each convolution's
            name and module, the stem's among them while ``stages`` is None, and returns whether to take it.

    Returns:
        The names of each convolution that was chosen, and by the name of each that was not, the reason.

    Raises:
        ZooError: an unknown word, or a stage out of range.
    """
    if not callable(where) and where not in WHERE:
        hint = nearest(str(where), WHERE)
        raise ZooError(f"unknown where={where!r}; choose from {', '.join(WHERE)}, or give a function.{hint}")
    if stages is not None:
        found = {site.stage for site in sites if site.stage is not None}
        stages = _read_stages(stages, len(found))
    chosen: dict[nn.Conv2d, tuple[str, ...]] = {}
    kept: dict[str, str] = {}
    for site in sites:
        reason = _why_not(site, stages, where)
        if reason or not isinstance(site.module, nn.Conv2d):
            kept.update(dict.fromkeys(site.names, reason))
        else:
            chosen[site.module] = site.names
    return chosen, kept


def _why_not(site: Site, stages: tuple[int, ...] | None, where: Where) -> str:
    """Return what keeps a convolution static, or ``""``."""
    if site.obstacle:
        return site.obstacle
    if site.role == "idle":
        return "idle, the network does not run it"
    if site.role != "body" and not (callable(where) and stages is None):
        return {
            "stem": "stem, sees the image itself",
            "pooled": "pooled, sees one pixel: a gate or a head",
            "dense": "dense, a linear layer in disguise",
        }[site.role]
    if where == "spatial" and not is_spatial(site.module):
        return "pointwise, its kernel is 1x1"
    if stages is not None and site.stage not in stages:
        return f"in stage {site.stage}"
    if callable(where) and isinstance(site.module, nn.Conv2d) and not where(site.name, site.module):
        return "not picked"
    return ""


def _read_stages(stages: Sequence[int], count: int) -> tuple[int, ...]:
    if not isinstance(stages, Iterable):
        raise ZooError(f"stages={stages} is one number; give a tuple, such as stages=({stages},).")
    stages = tuple(stages)
    if outside := [stage for stage in stages if stage not in range(count)]:
        there = f"stages 0 to {count - 1}" if count else "no stages"
        raise ZooError(f"stage {outside[0]} is out of range; this backbone has {there}, not {stages}.")
    return stages


def is_spatial(conv: Conv) -> bool:
    """Tell whether a convolution looks beyond its own pixel."""
    return max(conv.kernel_size) > 1


def dynamic_like(conv: nn.Conv2d, layer: type[DynamicConv2d], **layer_args: Any) -> DynamicConv2d:
    """Return a family's layer of a convolution's geometry, dtype, device and mode, randomly initialised.

    Its parameters are frozen where the convolution's weight is, and it is called by the same hooks.

    Args:
        conv: left as it is.
        layer: the family's layer.
        **layer_args: the family's own arguments, such as ``bank_size``.

    Raises:
        ZooError: an argument that the family does not take, or a padding mode other than zeros.
    """
    # The layer would take its geometry too, which is the convolution's.
    if unknown := [name for name in layer_args if name not in layer.sizes]:
        known = ", ".join(layer.sizes) or "none"
        hint = nearest(unknown[0], layer.sizes)
        raise ZooError(f"{layer.__name__} has no argument {unknown[0]!r}; its own are {known}.{hint}")
    dynamic = layer(
        conv.in_channels,
        conv.out_channels,
        as_pair("kernel_size", conv.kernel_size, minimum=1),
        as_pair("stride", conv.stride, minimum=1),
        conv.padding if isinstance(conv.padding, str) else as_pair("padding", conv.padding, minimum=0),
        as_pair("dilation", conv.dilation, minimum=1),
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
        **layer_args,
    )
    dynamic.train(conv.training).requires_grad_(conv.weight.requires_grad)
    if dynamic.bias is not None and conv.bias is not None:
        dynamic.bias.requires_grad_(conv.bias.requires_grad)
    for hooks in _HOOKS:
        setattr(
            dynamic, hooks, getattr(conv, hooks)
        )  # the same dict, so that a hook's handle still removes it
    return dynamic


def replace(model: nn.Module, modules: Mapping[Any, nn.Module]) -> None:
    """Put other modules where those of ``modules`` are, under every name that each has in the model."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in modules:
            model.set_submodule(name, modules[module])


@torch.no_grad()
def warm_start(model: nn.Module, static_state: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Start a model from the weights of its static twin, or from weights of its own.

    From the twin's, everything but the dynamic convolutions is copied; each of those takes the bias, and the
    static kernel as far as its family can hold it. Where the family can hold none, the kernels stay as they
    are.

    Args:
        model: the dynamic model, changed in place.
        static_state: the twin's state dict, or one of the model's own.

    Returns:
        For every dynamic convolution the relative error of the kernels it starts with (0: exact, as from the
        model's own weights); None where they stay as they are.

    Raises:
        ZooError: a tensor is missing, of another shape, or one that the model has no place for.
    """
    dynamic = {name: module for name, module in model.named_modules() if isinstance(module, DynamicConv2d)}
    own = {f"{name}.{key}" for name, module in dynamic.items() for key in module.state_dict()}
    from_twin = not own <= static_state.keys()
    copied = {key: value for key, value in model.state_dict().items() if not (from_twin and key in own)}
    wanted = {key: tuple(value.shape) for key, value in copied.items()}
    if from_twin:
        for name, conv in dynamic.items():
            wanted[f"{name}.weight"] = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
            if conv.bias is not None:
                wanted[f"{name}.bias"] = (conv.out_channels,)
    _check_shapes(static_state, wanted)
    for key, value in copied.items():
        value.copy_(static_state[key])
    if not from_twin:
        return dict.fromkeys(dynamic, 0.0)
    errors: dict[str, float | None] = {}
    for name, conv in dynamic.items():
        like = next(conv.parameters())
        bias = None if conv.bias is None else static_state[f"{name}.bias"].to(like)
        errors[name] = conv.warm_start_(static_state[f"{name}.weight"].to(like), bias)
    return errors


def _check_shapes(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    for key, shape in wanted.items():
        if key not in state:
            raise ZooError(
                f"cannot start from these weights: {key} is missing; give those of the static twin."
            )
        if tuple(state[key].shape) != shape:
            found = tuple(state[key].shape)
            raise ZooError(
                f"cannot start from these weights: {key} has shape {found}, the model needs {shape}."
            )
    # A deeper network of the same family has all of a shallower one's tensors, in the same shapes.
    if unknown := [key for key in state if key not in wanted]:
        raise ZooError(
            f"cannot start from these weights: the model has no {unknown[0]}; give those of the static twin."
        )
