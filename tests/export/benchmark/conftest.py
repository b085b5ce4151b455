"""A network of two dynamic convolutions in some families, and runs that nobody had to wait for."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from export.benchmark.environment import FACTS
from export.benchmark.plan import Candidate
from export.benchmark.prepare import Workshop
from export.benchmark.results import Result, Run
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


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """Return ``make_run(taxes, ...)``: a run of made-up candidates with these taxes, on a noisy machine."""

    def make(taxes: dict[Candidate, float], rounds: int = 12, seed: int = 0, noise: float = 0.01) -> Run:
        random = np.random.default_rng(seed)
        drift = random.uniform(1, 3, rounds)  # of the machine, the same for all candidates of a round
        results = []
        for candidate in dict.fromkeys(each for one in taxes for each in (one.twin, one)):
            tax = 1.0 if candidate.is_static else taxes[candidate]
            own, twin = (
                drift[:, None] * 2e6 * candidate.batch * random.uniform(1 - noise, 1 + noise, (rounds, 3))
                for _ in range(2)
            )
            nanoseconds = (tax * own).astype(int).tolist()
            beside = [] if candidate.is_static else twin.astype(int).tolist()
            top1 = 50.0 + len(candidate.model)
            results.append(
                Result(
                    candidate, nanoseconds, beside, {"unfold": 8}, 1_500_000, 2_000_000, top1, True, 3_000_000
                )
            )
        facts = dict.fromkeys(FACTS) | {"date": "2026-11-21", "cpu": "a CPU", "cores": 2, "load": 0.5}
        facts |= {"isa": "AVX2", "usable_cores": 2, "os": "Linux", "python": "3.12"}
        facts["versions"] = {"torch": "2.15.0", "openvino": None}
        return Run(tuple(results), facts, {"rounds": rounds}, ("skipped eager on cuda: there is none",))

    return make
