"""The model that a test looks at."""

import pytest
import torch
from torch import nn

from tests.models.registry import create


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Return ``create(name)``; all tests of it share it, so one that changes it takes a copy."""
    torch.manual_seed(0)
    return create(request.param)
