"""Where a model's dynamic convolutions are, and what each could be lowered to."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from export.base import ExportOptions, Runtime
from export.parity import prepared
from zoo.layers import LOWERINGS, DynamicConv2d, lowerings_of

TYPICAL_BATCHES = (1, 8)
"""Batch sizes that an artifact with a dynamic batch is made fast for; each counts the same."""


@dataclass(frozen=True)
class Site:
    """A dynamic convolution in its place.

    Attributes:
        name: of the layer in its model.
        layer: settled, as it is exported.
        size: (channels, height, width) of its input.
        follows_static, precedes_static: whether the convolution that runs before, or after, has constant
            weights. A runtime may keep maps in a layout of its own between two such ones.
    """

    name: str
    layer: DynamicConv2d
    size: tuple[int, int, int]
    follows_static: bool = False
    precedes_static: bool = False

    @property
    def signature(self) -> str:
        """What two sites share that cost the same."""
        layer = self.layer
        facts: dict[str, Any] = {
            "kernel": layer.kernel_size,
            "stride": layer.stride,
            "padding": layer.padding,
            "dilation": layer.dilation,
            "groups": layer.groups,
            **{name: getattr(layer, name) for name in layer.sizes},
            **{name: getattr(layer, name) for name in layer.settled_names},
        }
        text = ", ".join(f"{name} {value}" for name, value in facts.items())
        channels, height, width = self.size
        place = ["after a static convolution"] * self.follows_static
        place += ["before a static convolution"] * self.precedes_static
        text = ", ".join([text, *place])
        return f"{type(layer).__name__} {channels} to {layer.out_channels} at {height} x {width}, {text}"

    def in_place(self, layer: nn.Module) -> nn.Module:
        """Return ``layer`` between convolutions as its network has them, and that alone.

        Args:
            layer: this site's in one of its lowerings.
        """
        parts: list[nn.Module] = [layer]
        if self.follows_static:
            parts = [_pointwise(self.layer.in_channels), nn.ReLU(), *parts]
        if self.precedes_static:
            parts = [*parts, nn.ReLU(), _pointwise(self.layer.out_channels)]
        return layer if len(parts) == 1 else nn.Sequential(*parts).eval()


@torch.inference_mode()
def sites(model: nn.Module, options: ExportOptions, runtime: Runtime) -> list[Site]:
    """Return the dynamic convolutions that run, in the model's order; the model is left as it is.

    Args:
        model: any module.
        options: with the input size filled in.
        runtime: the format it will run in.
    """
    copied = prepared(model, "auto", runtime)
    layers = {
        name: layer for name, layer in copied.named_modules() if isinstance(layer, DynamicConv2d | nn.Conv2d)
    }
    ran: list[str] = []
    sizes: dict[str, tuple[int, int, int]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            channels, height, width = inputs[0].shape[-3:]
            sizes[name] = (channels, height, width)
            ran.append(name)

        return hook

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    copied(replace(options, batch=1).example())
    for hook in hooks:
        hook.remove()

    def is_static(place: int) -> bool:
        return 0 <= place < len(ran) and isinstance(layers[ran[place]], nn.Conv2d)

    return [
        Site(name, layer, sizes[name], is_static(ran.index(name) - 1), is_static(ran.index(name) + 1))
        for name, layer in layers.items()
        if isinstance(layer, DynamicConv2d) and name in sizes
    ]


def _pointwise(channels: int) -> nn.Conv2d:
    """Return a 1x1 convolution that hands its input on, which no runtime looks for."""
    conv = nn.utils.skip_init(nn.Conv2d, channels, channels, 1)
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv.requires_grad_(False)


def candidates(layer: DynamicConv2d, batch: int | None) -> list[str]:
    """Return the lowerings of ``layer`` that are right at ``batch``, which may be dynamic (None)."""
    able = {"any"} | ({"frozen"} if batch else set()) | ({"one"} if batch == 1 else set())
    names = [name for name in lowerings_of(layer) if LOWERINGS[name].batch in able]
    if layer.identity_basis:
        names.remove("contract")  # it is unfold by another name
    # A folded layer is a plain convolution: there is nothing to compare it with.
    return ["fold"] if "fold" in names else names


def batches(options: ExportOptions) -> tuple[int, ...]:
    """Return the batch sizes that an artifact should be fast at."""
    return TYPICAL_BATCHES if options.batch is None else (options.batch,)
