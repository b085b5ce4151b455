"""torch.compile for training: where it cannot, one sentence instead of its trace."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from zoo.errors import ZooError


def compiled(model: nn.Module) -> Any:
    """Return ``model`` as torch.compile runs it: made anew for each size of images."""
    return torch.compile(model, dynamic=False)


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what torch.compile raises, in the forward or the first backward, into a :class:`ZooError`.

    Args:
        name: of the model.
    """
    try:
        yield
    except Exception as error:
        from torch._dynamo.exc import TorchDynamoException  # slow to import, and most runs need none of it

        if not isinstance(error, TorchDynamoException):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ZooError(f"torch.compile cannot compile {name} ({reason}); leave --compile out.") from error
