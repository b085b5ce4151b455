"""A network of two dynamic convolutions in some families."""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from export.benchmark.prepare import Workshop
from export.benchmark.subjects import Subjects
from zoo.models import Backbone, register

from .registries import restored

FAMILIES = ("static", "kw", "dpk", "condconv", "convex")


class _Net(nn.Sequential):
    """A stem and two convolutions that a family makes dynamic, 3x32x32 to 10."""

    def __init__(self, num_classes: int = 10, in_chans: int = 3):
        stem = nn.Conv2d(in_chans, 8, 3, padding=1, bias=False)
        first = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        second = nn.Conv2d(12, 8, 3, stride=2, padding=1, bias=False)
        stage = OrderedDict(
            conv1=first, bn1=nn.BatchNorm2d(12), act1=nn.ReLU(), conv2=second, bn2=nn.BatchNorm2d(8)
        )
        super().__init__(
            OrderedDict(
                stem=stem,
                bn=nn.BatchNorm2d(8),
                act=nn.ReLU(),
                stage=nn.Sequential(stage),
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
                fc=nn.Linear(8, num_classes),
            )
        )


_TINY = Backbone(
    build=_Net,
    args={},
    shrink_stem=lambda model: None,
    first_conv="stem",
    classifier="fc",
    stages=("stage",),
    gate_after="conv2",
    paper="",
)


@pytest.fixture(scope="package", autouse=True)
def tiny_models() -> Iterator[None]:
    """Register ``benchnet_static``, ``benchnet_kw`` and so on while the tests of this folder run."""
    with restored():
        for family in FAMILIES:
            register(f"benchnet_{family}", _TINY, family)
        yield


@pytest.fixture(scope="package")
def subjects(tiny_models: None) -> Subjects:
    """The models with random weights."""
    return Subjects(pretrained=False)


@pytest.fixture
def workshop(subjects: Subjects, tmp_path: Path) -> Workshop:
    """A place for artifacts, empty."""
    return Workshop(subjects, tmp_path)
