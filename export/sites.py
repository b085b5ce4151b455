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
class Site:
    """A dynamic convolution in its place.

    Attributes:
        name: of the layer in its model.
        layer: settled, as it is exported.
        size: (channels, height, width) of its input.
        follows_static, precedes_static: whether a convolution with constant weights makes a map like its
            input just before it, or takes one like its output just after. A runtime may keep maps in a layout
            of its own between two such ones.
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

    @property
    def place_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of the input of what :meth:`in_place` returns."""
        return (_FEW, *self.size[1:]) if self.follows_static else self.size

    def in_place(self, layer: nn.Module) -> nn.Module:
        """Return ``layer`` between static convolutions where its network has them, of few channels outside.

        Args:
            layer: this site's in one of its lowerings.
        """
        parts: list[nn.Module] = [layer]
        if self.follows_static:
            parts = [_pointwise(_FEW, self.layer.in_channels), nn.ReLU(), *parts]
        if self.precedes_static:
            parts = [*parts, nn.ReLU(), _pointwise(self.layer.out_channels, _FEW)]
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
    names = {module: name for name, module in copied.named_modules()}
    ran: list[_Run] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        run = _Run(module, inputs[0].shape[-3:], output.shape[-3:])
        # What looks at an average, as squeeze and excitation do, stands beside the maps and not between them.
        if run.taken[1:] != (1, 1):
            ran.append(run)

    hooks = [
        module.register_forward_hook(note)
        for module in names
        if isinstance(module, DynamicConv2d | nn.Conv2d)
    ]
    copied(replace(options, batch=1).example())
    for hook in hooks:
        hook.remove()
    found: dict[str, Site] = {}
    for before, run, after in zip([None, *ran], ran, [*ran[1:], None], strict=False):
        name = names[run.module]
        if isinstance(run.module, DynamicConv2d) and name not in found:
            follows = before is not None and before.is_static and before.made == run.taken
            precedes = after is not None and after.is_static and after.taken == run.made
            channels, height, width = run.taken
            found[name] = Site(name, run.module, (channels, height, width), follows, precedes)
    return [found[name] for name in names.values() if name in found]


@dataclass(frozen=True)
class _Run:
    """A convolution that ran, with the shapes (C, H, W) of what it took and made."""

    module: nn.Module
    taken: torch.Size
    made: torch.Size

    @property
    def is_static(self) -> bool:
        return isinstance(self.module, nn.Conv2d) or getattr(self.module, "lowering", None) == "fold"


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
