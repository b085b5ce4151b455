"""Switches over a whole model: how its dynamic convolutions are computed and trained."""

from torch import nn

from zoo.errors import ZooError, nearest
from zoo.layers.base import DynamicConv2d
from zoo.layers.lowerings import LOWERINGS


def set_lowering(model: nn.Module, name: str) -> nn.Module:
    """Choose how every dynamic convolution of a model is computed; the numbers stay the same.

    Args:
        model: any module; changed in place and returned.
        name: one of ``LOWERINGS``, or ``"auto"`` for each layer's own choice.

    Raises:
        ZooError: an unknown name.
    """
    check_lowering(name)
    for module in model.modules():
        if isinstance(module, DynamicConv2d):
            module.lowering = module.auto_lowering() if name == "auto" else name
    return model


def share_context(model: nn.Module, shared: bool) -> nn.Module:
    """Let the samples of a training batch share the kernels that their mean context makes, or stop doing so.

    Kernels are then made once a batch instead of once an image, which makes a cheaper first part of a
    run. It acts in training mode alone: in eval mode every sample has its own kernels.

    Args:
        model: any module; changed in place and returned.
        shared: whether to share.
    """
    for module in model.modules():
        if isinstance(module, DynamicConv2d):
            module.shared_context = shared
    return model


def check_lowering(name: str) -> None:
    """Raise a :class:`ZooError` unless ``name`` is ``"auto"`` or in ``LOWERINGS``."""
    known = ("auto", *LOWERINGS)
    if name not in known:
        raise ZooError(f"unknown lowering {name!r}; choose from {', '.join(known)}.{nearest(name, known)}")
