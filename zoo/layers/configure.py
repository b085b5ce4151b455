"""Switches over a whole model: how its dynamic convolutions are computed and trained."""

from collections.abc import Mapping

import torch
from torch import nn

from zoo.errors import ZooError, nearest
from zoo.layers.base import DynamicConv2d
from zoo.layers.lowerings import LOWERINGS


def set_lowering(model: nn.Module, name: str | Mapping[str, str]) -> nn.Module:
    """Choose how every dynamic convolution of a model is computed; the numbers stay the same.

    Args:
        model: any module; changed in place and returned.
        name: one of ``LOWERINGS``, or ``"auto"`` for each layer's own choice; or such names by the name of
            the layer, ``"auto"`` for those left out.

    Raises:
        ZooError: an unknown name, or one that a layer of the model lacks; the model is left as it was.
    """
    if not isinstance(name, (str, Mapping)):
        raise ZooError(f"the lowering must be a name, or names by layer, not {name!r}.")
    layers = {path: module for path, module in model.named_modules() if isinstance(module, DynamicConv2d)}
    names = (
        dict.fromkeys(layers, name) if isinstance(name, str) else {**dict.fromkeys(layers, "auto"), **name}
    )
    if unknown := [path for path in names if path not in layers]:
        known = ", ".join(layers) or "none"
        raise ZooError(f"the model has no dynamic convolution {unknown[0]!r}; it has {known}.")
    if isinstance(name, str):
        check_lowering(name)
    for path, layer in layers.items():
        check_lowering(names[path])
        if names[path] != "auto" and names[path] not in lowerings_of(layer):
            raise ZooError(
                f"{type(layer).__name__} has no lowering {names[path]!r}; "
                f"choose from auto, {', '.join(lowerings_of(layer))}."
            )
    for path, layer in layers.items():
        layer.lowering = layer.auto_lowering() if names[path] == "auto" else names[path]
    return model


def fold(model: nn.Module) -> nn.Module:
    """Replace every layer whose lowering is ``fold`` by the ``nn.Conv2d`` it amounts to, in place.

    Args:
        model: any module; returned, or the convolution itself when the model is one such layer.
    """
    folded: dict[nn.Module, nn.Conv2d] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, DynamicConv2d) and module.lowering == "fold":
            if module not in folded:
                folded[module] = _folded(module)
            conv = folded[module]
            if not name:
                return conv
            model.set_submodule(name, conv)
    return model


@torch.no_grad()
def _folded(layer: DynamicConv2d) -> nn.Conv2d:
    like = next(layer.parameters())
    # Built on no device: weights that are replaced at once need no initialising.
    conv = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias is not None,
        device="meta",
    )
    kernels = layer.kernels(like.new_zeros(1, layer.in_channels))[0]
    conv.weight = nn.Parameter(kernels.contiguous(), requires_grad=like.requires_grad)
    if layer.bias is not None:
        conv.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=layer.bias.requires_grad)
    return conv.train(layer.training)


def no_weight_decay(model: nn.Module) -> set[str]:
    """Return the names of the parameters that a model's layers exempt from weight decay."""
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        for name in getattr(module, "no_weight_decay_names", ())
    }


def lr_scales(model: nn.Module) -> dict[str, float]:
    """Return how many times the usual learning rate a model's layers want, by the name of the parameter.

    Parameters that want the usual one are left out. An optimizer's group of parameters has it as ``lr_scale``
    for timm's schedulers to follow (:func:`zoo.training.optimizer.make_optimizer`).
    """
    return {
        f"{prefix}.{name}".lstrip("."): scale
        for prefix, module in model.named_modules()
        for name, scale in getattr(module, "lr_scales", dict)().items()
    }


def share_context(model: nn.Module, images: int) -> nn.Module:
    """Let the samples of a training batch share the kernels that their mean context makes, or stop doing so.

    Kernels are then made once for so many images instead of for each, which makes training cheaper. It acts
    in training mode alone: in eval mode every sample has its own kernels.

    Args:
        model: any module; changed in place and returned.
        images: how many samples in a row share their kernels; 1 gives each its own, and the size of a batch
            or more the whole batch the same.

    Raises:
        ZooError: ``images`` is below 1.
    """
    if images < 1:
        raise ZooError(f"{images} images cannot share kernels; 1 gives each its own.")
    for layer in dynamic_layers(model):
        layer.shared_images = images
    return model


def anneal(model: nn.Module, progress: float) -> nn.Module:
    """Tell every dynamic convolution how far the annealing part of a training run has come.

    A family may start softer than it ends, as ``dyconv`` does with its temperature. It acts in training mode
    alone; a model that is never annealed trains as at the end.

    Args:
        model: any module; changed in place and returned.
        progress: from 0 to 1, where it stays for the rest of the run.

    Raises:
        ZooError: progress is out of its range.
    """
    if not 0 <= progress <= 1:
        raise ZooError(f"progress is {progress}; it must be from 0 to 1.")
    for layer in dynamic_layers(model):
        layer.anneal(progress)
    return model


def constrain(model: nn.Module) -> nn.Module:
    """Bring the parameters of every dynamic convolution back to where its family wants them.

    To be called after every update of a training run. ``dpk`` keeps its softmax and its tanh from saturating
    (:meth:`zoo.layers.DotProductConv2d.constrain_`); trained without, it is as right, but slower deployed.

    Args:
        model: any module; changed in place and returned.
    """
    for layer in dynamic_layers(model):
        layer.constrain_()
    return model


def dynamic_layers(model: nn.Module) -> list[DynamicConv2d]:
    """Return the dynamic convolutions of a model in its order."""
    return [module for module in model.modules() if isinstance(module, DynamicConv2d)]


def settle(model: nn.Module, own_softmax: bool = False) -> nn.Module:
    """Fix in every dynamic convolution what can be decided once training is over, as for an export.

    Args:
        model: any module; changed in place and returned. Its parameters must not change afterwards.
        own_softmax: whether what will run the model has a softmax of its own that is faster than exponentials
            without a maximum and what brings their sum to one, and takes a softmax between two products for
            attention.
    """
    for layer in dynamic_layers(model):
        layer.settle_(own_softmax)
    return model


def lowerings_of(layer: DynamicConv2d | type[DynamicConv2d]) -> list[str]:
    """Return the names of the lowerings that a layer has, or that all layers of a family have."""
    return [name for name, row in LOWERINGS.items() if row.common or name in layer.extra_lowerings]


def anneals(layer: DynamicConv2d) -> bool:
    """Return whether :func:`anneal` changes anything about a layer."""
    return type(layer).anneal is not DynamicConv2d.anneal


def common_lowerings(model: nn.Module) -> list[str]:
    """Return the names of the lowerings that every dynamic convolution of a model has."""
    layers = dynamic_layers(model)
    return [name for name in LOWERINGS if layers and all(name in lowerings_of(layer) for layer in layers)]


def check_lowering(name: str) -> None:
    """Raise a :class:`ZooError` unless ``name`` is ``"auto"`` or in ``LOWERINGS``."""
    known = ("auto", *LOWERINGS)
    if name not in known:
        close = nearest(str(name), known)
        raise ZooError(f"unknown lowering {name!r}; choose from {', '.join(known)}.{close}")
