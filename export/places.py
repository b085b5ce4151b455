"""Where a model's dynamic convolutions are, and what each could be lowered to."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from export.base import ExportOptions, Runtime
from export.parity import prepared
from zoo.layers import LOWERINGS, DynamicConv2d, lowerings_of

TYPICAL_BATCHES = (1, 8)
"""Batch sizes that an artifact with a dynamic batch is made fast for; each counts the same."""

_FEW = 16


@dataclass(frozen=True)
class Place:
    """A dynamic convolution in its place.

    Attributes:
        name: of the layer in its model.
        layer: settled, as it is exported.
        size: (channels, height, width) of its input.
    """

    name: str
    layer: DynamicConv2d
    size: tuple[int, int, int]

    @property
    def signature(self) -> str:
        """What two layers share that cost the same."""
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
        return f"{type(layer).__name__} {channels} to {layer.out_channels} at {height} x {width}, {text}"

    @property
    def outer_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of the input of what :meth:`in_place` returns."""
        return _FEW, *self.size[1:]

    def in_place(self, layer: nn.Module) -> nn.Module:
        """Return ``layer`` between static convolutions of few channels outside.

        A runtime may keep maps in a layout of its own between convolutions. By itself a layer would have to
        give its map back in the layout of a network's outputs, which costs some lowerings more than others.

        Args:
            layer: the one here, in one of its lowerings.
        """
        before, after = _pointwise(_FEW, self.layer.in_channels), _pointwise(self.layer.out_channels, _FEW)
        return nn.Sequential(before, nn.ReLU(), layer, nn.ReLU(), after).eval()


@torch.inference_mode()
def places(model: nn.Module, options: ExportOptions, runtime: Runtime) -> list[Place]:
    """Return the dynamic convolutions that run, in the model's order; the model is left as it is.

    Args:
        model: any module.
        options: with the input size filled in.
        runtime: the format it will run in.
    """
    copied = prepared(model, "auto", runtime)
    layers = {layer: name for name, layer in copied.named_modules() if isinstance(layer, DynamicConv2d)}
    sizes: dict[nn.Module, tuple[int, int, int]] = {}

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        channels, height, width = inputs[0].shape[1:]
        sizes.setdefault(layer, (channels, height, width))  # of a layer that runs twice the first

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    copied(replace(options, batch=1).example())
    for hook in hooks:
        hook.remove()
    return [Place(name, layer, sizes[layer]) for layer, name in layers.items() if layer in sizes]


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 1x1 convolution that hands on the average of its input."""
    conv = nn.utils.skip_init(nn.Conv2d, inputs, outputs, 1)
    nn.init.constant_(conv.weight, 1 / inputs)
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
