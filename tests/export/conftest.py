"""Small dynamic networks with weights that leave nothing without effect."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

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
            parameter.add_(0.5 * size * torch.randn(parameter.shape, generator=random))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(0.5 + 0.5 * torch.rand(module.weight.shape, generator=random))
                module.running_mean.normal_(std=0.1, generator=random)
                module.running_var.uniform_(0.5, 2, generator=random)
        return model.eval()

    return stirred


@pytest.fixture(scope="session")
def small(stir: Stir) -> Callable[..., nn.Module]:
    """Return ``small(family, seed=0)``: a network of one static and two dynamic convolutions, 3x12x10 to 7."""

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
