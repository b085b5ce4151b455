"""Turning the convolutions of a network dynamic, and starting them from static weights."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.layers import DynamicConv2d
from zoo.layers.geometry import as_pair


def convert(
    model: nn.Module,
    layer: type[DynamicConv2d],
    where: Callable[[str, nn.Conv2d], bool],
    **layer_args: int,
) -> list[str]:
    """Replace the chosen ``nn.Conv2d`` of a model by dynamic ones of the same geometry, in place.

    Args:
        model: any network.
        layer: the family's layer.
        where: called with each convolution's name and module; True replaces it.
        **layer_args: the family's own arguments, such as ``bank_size``.

    Returns:
        The names of what was replaced, in the model's order.

    Raises:
        ZooError: an argument the family does not know.
    """
    chosen = [(name, module) for name, module in model.named_modules() if type(module) is nn.Conv2d]
    replaced = []
    for name, conv in chosen:
        if not where(name, conv):
            continue
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
        model.set_submodule(name, dynamic)
        replaced.append(name)
    return replaced


def is_spatial(conv: nn.Conv2d) -> bool:
    """Tell whether a convolution looks beyond its own pixel."""
    return max(conv.kernel_size) > 1


@torch.no_grad()
def warm_start(model: nn.Module, static_state: Mapping[str, Tensor]) -> dict[str, float]:
    """Start a model from the weights of its static twin, or from weights of its own.

    From the twin's, everything but the dynamic convolutions is copied; each of those takes the static kernel
    as far as its family can hold it.

    Args:
        model: the dynamic model, changed in place.
        static_state: the twin's state dict, or one of the model's own.

    Returns:
        For every dynamic convolution the relative error of the kernels it starts with (0: exact, as from the
        model's own weights).

    Raises:
        ZooError: a tensor is missing or of another shape, or the family cannot hold static kernels.
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
    errors = {}
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
