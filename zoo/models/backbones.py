"""The table of backbones: timm's networks with CIFAR's stem, before any convolution becomes dynamic."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from timm.models.efficientnet import efficientnet_b0, mobilenetv2_100
from timm.models.mobilenetv3 import mobilenetv3_small_100
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from zoo.errors import ZooError


@dataclass(frozen=True)
class Backbone:
    """One row of the table.

    Args:
        build: timm's model class, or its entry point of a model.
        args: its arguments that make this backbone.
        shrink_stem: turns the freshly built ImageNet stem into CIFAR's, in place.
        first_conv, classifier: names of those modules, as in timm's ``default_cfg``.
        stages: name prefix of each stage, in order, for attention modules; which convolutions become dynamic
            follows from resolutions, see :func:`zoo.models.find_sites`.
        gate_after: in a block, the convolution whose output the block's ``se`` gates; an attention module
            put there takes that convolution's ``out_channels``.
        paper: arXiv id.
        feature_cfg: how ``features_only`` takes the network apart, as ``build_model_with_cfg`` reads it.
    """

    build: Callable[..., nn.Module]
    args: dict[str, Any]
    shrink_stem: Callable[[nn.Module], None]
    first_conv: str
    classifier: str
    stages: tuple[str, ...]
    gate_after: str
    paper: str
    feature_cfg: Mapping[str, Any] = field(default_factory=dict)


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
    _divide_reductions(model)


def _shrink_mobile_stem(model: Any) -> None:
    """Let the first two stride-2 convolutions, the stem and a depthwise one, keep the image's size.

    Raises:
        ZooError: fewer than two convolutions have stride 2, because the model was built with arguments that
            downsample in another way (``output_stride``, ``aa_layer``).
    """
    strided = [conv for conv in model.modules() if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2)][:2]
    if len(strided) < 2:
        raise ZooError(
            "CIFAR's stem needs two stride-2 convolutions to remove; leave out output_stride and aa_layer, "
            "or give stem='imagenet'."
        )
    for conv in strided:
        conv.stride = (1, 1)
    _divide_reductions(model)


def _divide_reductions(model: Any) -> None:
    """Correct ``feature_info`` for a network whose first two steps, by 2 each, are gone."""
    for info in model.feature_info:
        info["reduction"] = max(1, info["reduction"] // 4)


def _resnet(block: type[nn.Module], *layers: int) -> Backbone:
    return Backbone(
        build=ResNet,
        args={"block": block, "layers": layers},
        shrink_stem=_shrink_resnet_stem,
        first_conv="conv1",
        classifier="fc",
        stages=("layer1", "layer2", "layer3", "layer4"),
        gate_after="conv2" if block is BasicBlock else "conv3",
        paper="arXiv:1512.03385",
    )


def _mobile(build: Callable[..., nn.Module], stages: int, paper: str) -> Backbone:
    return Backbone(
        build=build,
        args={},
        shrink_stem=_shrink_mobile_stem,
        first_conv="conv_stem",
        classifier="classifier",
        stages=tuple(f"blocks.{stage}" for stage in range(stages)),
        gate_after="conv_dw",
        paper=paper,
        # Features come from the stages within the one Sequential called blocks.
        feature_cfg={"flatten_sequential": True},
    )


BACKBONES: dict[str, Backbone] = {
    "resnet10": _resnet(BasicBlock, 1, 1, 1, 1),
    "resnet18": _resnet(BasicBlock, 2, 2, 2, 2),
    "resnet34": _resnet(BasicBlock, 3, 4, 6, 3),
    "resnet50": _resnet(Bottleneck, 3, 4, 6, 3),
    "mobilenetv2_100": _mobile(mobilenetv2_100, 7, "arXiv:1801.04381"),
    "mobilenetv3_small_100": _mobile(mobilenetv3_small_100, 6, "arXiv:1905.02244"),
    "efficientnet_b0": _mobile(efficientnet_b0, 7, "arXiv:1905.11946"),
}
