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
    if dynamic and static_state.keys() == model.state_dict().keys():
        model.load_state_dict(static_state)
        return dict.fromkeys(dynamic, 0.0)
    own = {f"{name}.{key}" for name, module in dynamic.items() for key in module.state_dict()}
    targets = {key: value for key, value in model.state_dict().items() if key not in own}
    wanted = {key: tuple(value.shape) for key, value in targets.items()}
    wanted |= {
        f"{name}.weight": (m.out_channels, m.in_channels // m.groups, *m.kernel_size)
        for name, m in dynamic.items()
    }
    for key, shape in wanted.items():
        if key not in static_state:
            raise ZooError(
                f"cannot start from these weights: {key} is missing; give those of the static twin."
            )
        if tuple(static_state[key].shape) != shape:
            found = tuple(static_state[key].shape)
            raise ZooError(
                f"cannot start from these weights: {key} has shape {found}, the model needs {shape}."
            )
    for key, value in targets.items():
        value.copy_(static_state[key])
    errors = {}
    for name, module in dynamic.items():
        bias = static_state.get(f"{name}.bias")
        reference = next(module.parameters())
        weight = static_state[f"{name}.weight"].to(reference)
        errors[name] = module.warm_start_(weight, None if bias is None else bias.to(reference))
    return errors
