"""How far the kernels of a model move: while an image turns, and from one image to another."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers import DynamicConv2d
from zoo.training.augment import warp
from zoo.training.invariance import transformation
from zoo.training.processes import progress_bar

#: Which kernels of a layer are shown, by the share of its kernels that move no further in a turn.
RANKS = {"median": 0.5, "90th percentile": 0.9, "most": 1.0}
#: Kernels are shown at every other angle that is measured.
SHOWN = slice(None, None, 2)


@torch.inference_mode()
def measure(
    model: nn.Module, layers: Mapping[str, DynamicConv2d], images: Tensor, turning: int, step: int
) -> dict[str, Any]:
    """Measure how far kernels move when an image turns, and how far they move from image to image.

    The move from kernels A to B is ||B - A|| / ||A||, over all kernels of a layer.

    Args:
        model: a classifier in eval mode.
        layers: those of its dynamic convolutions to look at, by any name.
        images: (N, 3, H, H), uint8. The first is the one whose kernels and routing are kept.
        turning: how many of them, from the first, are turned; medians over angles are over these.
        step: degrees between the angles, which go from 0 to 360.

    Returns:
        ``angles``; ``images_turned`` and ``images_compared``; for each of ``layers`` at every angle the
        quartiles of the move, ``low``, ``median`` and ``high``, and ``disc``, the median for images of which
        only the inscribed disc is left, so that no angle cuts off corners; ``other_image``, the median move
        from one upright image to the next; ``routing`` (angles, experts) where the layer has one. ``shown``
        holds some kernels of the layer that moves furthest.
    """
    angles = list(range(0, 361, step))
    whole: dict[str, list[Tensor]] = {name: [] for name in layers}
    disc: dict[str, list[Tensor]] = {name: [] for name in layers}
    first: dict[str, Tensor] = {}
    for image in progress_bar(images[:turning], desc="turn", unit=" images"):
        inputs = turn(image, angles)
        contexts = contexts_of(model, layers, inputs)
        first = first or contexts
        disc_contexts = contexts_of(model, layers, keep_disc(inputs))
        for name, layer in layers.items():
            whole[name].append(moves(layer, contexts[name]))
            disc[name].append(moves(layer, disc_contexts[name]))
    between = moves_between(model, layers, images)
    found: dict[str, dict[str, Any]] = {}
    for name, layer in layers.items():
        low, median, high = torch.stack(whole[name]).quantile(torch.tensor([0.25, 0.5, 0.75]), dim=0)
        found[name] = {
            "low": listed(low),
            "median": listed(median),
            "high": listed(high),
            "disc": listed(torch.stack(disc[name]).median(dim=0).values),
            "other_image": between[name],
        }
        if (routing := getattr(layer, "routing", None)) is not None:
            found[name]["routing"] = listed(routing(first[name]))
    furthest = max(found, key=lambda name: max(found[name]["median"]))
    return {
        "angles": angles,
        "images_turned": turning,
        "images_compared": len(images),
        "layers": found,
        "shown": {
            "layer": furthest,
            "angles": angles[SHOWN],
            "kernels": pick(layers[furthest].kernels(first[furthest][SHOWN])),
        },
    }


def turn(image: Tensor, angles: list[int]) -> Tensor:
    """Turn an image (3, H, H), uint8, clockwise by each angle in degrees: (A, 3, H, H) in [-1, 1]."""
    maps = torch.cat([transformation("rotation", angle, 1) for angle in angles])
    return warp(image.expand(len(angles), -1, -1, -1), maps)


def keep_disc(inputs: Tensor) -> Tensor:
    """Blacken what lies outside the disc that stays in view at every angle; (A, C, H, H) in [-1, 1]."""
    side = inputs.shape[-1]
    along = torch.arange(side) - (side - 1) / 2
    # A pixel less than the image's radius: bilinear samples on the rim would mix with the black outside.
    inside = along.square()[:, None] + along.square() <= (side / 2 - 1) ** 2
    return torch.where(inside, inputs, -1.0)


def layers_of(model: nn.Module) -> dict[str, DynamicConv2d]:
    """Return the dynamic convolutions of a model by name."""
    return {name: one for name, one in model.named_modules() if isinstance(one, DynamicConv2d)}


def contexts_of(model: nn.Module, layers: Mapping[str, DynamicConv2d], inputs: Tensor) -> dict[str, Tensor]:
    """Return the context (N, I) that each layer sees when the model is given inputs (N, 3, H, H)."""
    contexts: dict[str, Tensor] = {}

    def keep(name: str, layer: DynamicConv2d) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor]) -> None:
            contexts[name] = layer.context(args[0])

        return layer.register_forward_pre_hook(hook)

    hooks = [keep(name, layer) for name, layer in layers.items()]
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return contexts


def moves(layer: DynamicConv2d, contexts: Tensor) -> Tensor:
    """Return how far the kernels of contexts (N, I) are from those of the first, (N,)."""
    kernels = layer.kernels(contexts).flatten(1)
    return (kernels - kernels[0]).norm(dim=1) / kernels[0].norm()


@torch.inference_mode()
def moves_between(model: nn.Module, layers: Mapping[str, DynamicConv2d], images: Tensor) -> dict[str, float]:
    """Return the median move of each layer's kernels from one upright image to the next.

    Args:
        model: a classifier in eval mode.
        layers: the dynamic convolutions to look at, by any name.
        images: (N, 3, H, H), uint8.
    """
    images = images.to(next(model.parameters()).device)
    contexts = contexts_of(model, layers, torch.cat([turn(image, [0]) for image in images]))
    return {name: listed(moves_to_next(layer, contexts[name]).median()) for name, layer in layers.items()}


def moves_to_next(layer: DynamicConv2d, contexts: Tensor) -> Tensor:
    """Return how far kernels move from each of contexts (N, I) to the next, (N - 1,)."""
    return torch.stack([moves(layer, torch.stack(pair))[1] for pair in pairwise(contexts)])


def pick(kernels: Tensor) -> list[dict[str, Any]]:
    """Pick one for each of ``RANKS`` from kernels (A, O, I/G, kh, kw) of A angles, the first of them 0."""
    distance = (kernels - kernels[0]).flatten(3).norm(dim=3).amax(dim=0)
    order = distance.flatten().argsort()
    picked = []
    for rank, share in RANKS.items():
        output, channel = divmod(int(order[round(share * (len(order) - 1))]), kernels.shape[2])
        values = listed(kernels[:, output, channel])
        picked.append({"rank": rank, "output": output, "channel": channel, "values": values})
    return picked


def listed(values: Tensor) -> Any:
    """Return a tensor as nested lists of floats with five significant digits."""
    if values.dim() == 0:
        return float(f"{values.item():.5g}")
    return [listed(value) for value in values]
