"""Small dynamic networks with weights that leave nothing without effect, and runs nobody had to wait for."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from export.benchmark.environment import FACTS
from export.benchmark.plan import Candidate
from export.benchmark.results import Result, Run
from zoo.layers import FAMILIES

Stir = Callable[..., nn.Module]


@pytest.fixture(scope="session")
def stir() -> Stir:
    """Return ``stir(model, seed=0)``, which moves every parameter and statistic of ``model`` off its start.

    Untrained ResNets multiply each block's branch by zero, and some families start with kernels that hardly
    depend on the input; parity of such a network would say nothing about its dynamic kernels.
    """

    @torch.no_grad()
    def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
        random = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            size = parameter.square().mean().sqrt().clamp(min=0.1)
            parameter.add_(0.1 * size * torch.randn(parameter.shape, generator=random))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.3, 0.8, generator=random)
                module.reset_running_stats()
                module.momentum = None
        # Measured statistics keep a deep network from magnifying its activations, and with them rounding: up
        # to the largest inputs of a certificate, where eager fp32 would else be off by anything.
        contrast, brightness = torch.linspace(0.3, 12, 8), torch.linspace(-1, 1, 8)
        images = torch.randn(8, 3, 32, 32, generator=random)
        model.train()(images * contrast.view(-1, 1, 1, 1) + brightness.view(-1, 1, 1, 1))
        return model.eval()

    return stirred


@pytest.fixture(scope="session")
def small(stir: Stir) -> Callable[..., nn.Module]:
    """Return ``small(family, seed=0)``: one static and two dynamic convolutions, 3x12x10 to 7."""

    def build(family: str, seed: int = 0) -> nn.Module:
        layer = FAMILIES[family]
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            layer(8, 12, 3, padding=1),
            nn.ReLU(),
            layer(12, 8, 3, stride=2, padding=1, groups=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 7),
        )
        return stir(model, seed)

    return build


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
