"""Putting an attention module into a backbone: gates, modules behind stages, convolutions replaced."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.layers.attention import Attention, attention, complete_args
from zoo.layers.attention.checks import check_positive
from zoo.models.backbones import Backbone
from zoo.models.convert import is_spatial


def attach(
    model: nn.Module, backbone: Backbone, name: str, stages: Sequence[int] | None = None, **args: Any
) -> list[str]:
    """Put an attention module into a freshly built backbone, in place.

    Args:
        model: what the backbone's ``build`` made, with the stem it will keep.
        backbone: its row of ``BACKBONES``.
        name: a row of ``ATTENTION``.
        stages: which stages get it, counted from 0 or, if negative, from the end; the row's own by default.
        **args: the row's own arguments, such as ``reduction=8``.

    Returns:
        The names of the modules that were added or that took a convolution's place, in the model's order.

    Raises:
        ZooError: an unknown name or argument, a value or stage that is impossible, or stages in which the
            backbone has no place for the module. The model is then as it was.
    """
    row = attention(name)
    args = complete_args(name, args)
    prefixes = _prefixes(backbone, row.stages if stages is None else stages)
    places = [place for prefix in prefixes for place in _PLACES[row.place](model, backbone, row, prefix)]
    if prefixes and not places:
        raise ZooError(f"{', '.join(prefixes)} of this backbone has no place for {name}; give other stages.")
    if "image_size" in args:
        image_size = check_positive("image_size", args.pop("image_size"))
        sizes = _feat_sizes(model, backbone, places, row.place == "conv", image_size)
        per_place = [{"feat_size": size} for size in sizes]
    else:
        per_place = [{} for _ in places]
    modules = [
        row.make(*place.channels, **place.geometry, **own, **args).to(place.conv.weight)
        for place, own in zip(places, per_place, strict=True)
    ]
    for place, module in zip(places, modules, strict=True):
        _put(model, place.name, module)
        if place.replaced_norm is not None:
            _put(model, place.replaced_norm, nn.Identity())
    return [place.name for place in places]


@dataclass(frozen=True)
class _Place:
    """A place for a module.

    Args:
        name: of the module once it is there.
        conv: the convolution that it replaces or follows; it comes to that one's device and dtype.
        channels: for ``Attention.make``.
        geometry: for ``Attention.make``.
        replaced_norm: name of the block's norm that the module's own makes superfluous.
    """

    name: str
    conv: nn.Conv2d
    channels: tuple[int, ...]
    geometry: dict[str, Any] = field(default_factory=dict)
    replaced_norm: str | None = None


def _gates(model: nn.Module, backbone: Backbone, row: Attention, stage: str) -> Iterator[_Place]:
    """Yield the place called ``se`` of each block, which timm's blocks call behind ``gate_after``."""
    for name, block in _blocks(model, stage):
        conv = _convolutions(block).get(backbone.gate_after)
        if conv is not None:
            yield _Place(f"{name}.se", conv, (conv.out_channels,))


def _end(model: nn.Module, backbone: Backbone, row: Attention, stage: str) -> Iterator[_Place]:
    """Yield the place behind the last block: a stage is a Sequential, so its output is then the module's."""
    blocks = _blocks(model, stage)
    conv = list(_convolutions(blocks[-1][1]).values())[-1]
    yield _Place(f"{stage}.{len(blocks)}", conv, (conv.out_channels,))


def _spatial(model: nn.Module, backbone: Backbone, row: Attention, stage: str) -> Iterator[_Place]:
    """Yield the spatial convolutions of each block.

    In a block the norm comes right behind its convolution, also in the order of registration. What follows a
    norm that goes may stay: the ReLU of a ResNet does nothing to the sums of ReLUs that Selective Kernel and
    Split-Attention return, and in a MobileNet the activation is part of the norm.
    """
    for name, block in _blocks(model, stage):
        convs = _convolutions(block)
        children = [child for child, _ in block.named_children()]
        for leaf, conv in convs.items():
            ends_branch = leaf == list(convs)[-1]
            if not is_spatial(conv) or (row.own_norm and ends_branch):
                continue
            geometry = {key: _as_int(f"{name}.{leaf}", conv, key) for key in ("stride", *row.geometry)}
            norm = f"{name}.{children[children.index(leaf) + 1]}" if row.own_norm else None
            channels = (conv.in_channels, conv.out_channels)
            yield _Place(f"{name}.{leaf}", conv, channels, geometry, norm)


_PLACES = {"gate": _gates, "stage": _end, "conv": _spatial}


def _prefixes(backbone: Backbone, stages: Sequence[int] | None) -> list[str]:
    """Return the chosen stages' names, each once and in the model's order."""
    count = len(backbone.stages)
    if stages is None:
        return list(backbone.stages)
    if isinstance(stages, int):
        raise ZooError(f"stages={stages} is one number; give a tuple, such as stages=({stages},).")
    if outside := [stage for stage in stages if stage not in range(-count, count)]:
        raise ZooError(
            f"stage {outside[0]} is out of range; this backbone has stages 0 to {count - 1}, "
            f"or -{count} to -1 counted from the end."
        )
    return [backbone.stages[stage] for stage in sorted({stage % count for stage in stages})]


def _blocks(model: nn.Module, stage: str) -> list[tuple[str, nn.Module]]:
    return [(f"{stage}.{name}", block) for name, block in model.get_submodule(stage).named_children()]


def _convolutions(block: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: child for name, child in block.named_children() if isinstance(child, nn.Conv2d)}


def _as_int(name: str, conv: nn.Conv2d, key: str) -> int:
    value = getattr(conv, key)
    if isinstance(value, int):
        return value
    if len(set(value)) > 1:
        raise ZooError(f"{name} has {key}={value}; only square convolutions can be replaced.")
    return value[0]


def _feat_sizes(
    model: nn.Module, backbone: Backbone, places: list[_Place], at_input: bool, image_size: int
) -> list[tuple[int, int]]:
    """Run a blank image to see how large the map is before or behind each place's convolution."""
    sizes: dict[nn.Module, tuple[int, int]] = {}

    def record(conv: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        shape = (inputs[0] if at_input else output).shape
        sizes[conv] = (shape[2], shape[3])

    hooks = [place.conv.register_forward_hook(record) for place in places]
    training = model.training
    first = model.get_submodule(backbone.first_conv)
    assert isinstance(first, nn.Conv2d)
    try:
        with torch.no_grad():
            # In evaluation mode, so that no statistic and no random state changes.
            model.eval()(first.weight.new_zeros(1, first.in_channels, image_size, image_size))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return [sizes[place.conv] for place in places]


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Set a submodule, whether there was one or None or nothing."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
