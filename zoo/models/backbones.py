"""The table of backbones: timm's networks with CIFAR's stem, before any convolution becomes dynamic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn


@dataclass(frozen=True)
class Backbone:
    """One row of the table.

    Args:
        build: timm's model class.
        args: its arguments that make this backbone.
        shrink_stem: turns the freshly built ImageNet stem into CIFAR's, in place.
        first_conv, classifier: names of those modules, as in timm's ``default_cfg``.
        stages: name prefix of each stage, in order; convolutions outside them (the stem) stay static.
        paper: arXiv id.
    """

    build: Callable[..., nn.Module]
    args: dict[str, Any]
    shrink_stem: Callable[[nn.Module], None]
    first_conv: str
    classifier: str
    stages: tuple[str, ...]
    paper: str


def _shrink_resnet_stem(model: Any) -> None:
    """Replace the 7x7 stride-2 convolution by a 3x3 stride-1 one and drop the max-pool."""
    old = model.conv1
    model.conv1 = nn.Conv2d(
        old.in_channels,
        old.out_channels,
        3,
        padding=1,
        bias=False,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    # The stem shrank the image by 2 and the pool by 2 more; neither does now.
    for index, info in enumerate(model.feature_info):
        info["reduction"] //= 2 if index == 0 else 4


def _resnet(block: type[nn.Module], *layers: int) -> Backbone:
    return Backbone(
        build=ResNet,
        args={"block": block, "layers": layers},
        shrink_stem=_shrink_resnet_stem,
        first_conv="conv1",
        classifier="fc",
        stages=("layer1", "layer2", "layer3", "layer4"),
        paper="arXiv:1512.03385",
    )


BACKBONES: dict[str, Backbone] = {
    "resnet10": _resnet(BasicBlock, 1, 1, 1, 1),
    "resnet18": _resnet(BasicBlock, 2, 2, 2, 2),
    "resnet34": _resnet(BasicBlock, 3, 4, 6, 3),
    "resnet50": _resnet(Bottleneck, 3, 4, 6, 3),
}
