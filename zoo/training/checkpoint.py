"""A resumable training state in one safetensors file: no pickles, written whole or not at all.

Tensors are named ``model.*``, ``ema.*`` and ``optimizer.<parameter name>.<state>``; all else is JSON in the
file's metadata. Schedules and random numbers need no state of their own: both are functions of the recipe and
of how far the run has come.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.cli import atomic_path
from zoo.errors import ZooError
from zoo.pretrained import AVERAGED, fit, load_checkpoint
from zoo.training.recipe import Recipe

FILE = "checkpoint.safetensors"
_KEY = "training"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        recipe: what is being run.
        epoch: epochs finished.
        step: updates finished.
        seconds: time spent training, over all resumptions, evaluation left out.
        facts: what the run was started with, for the manifest (data, device, command line, versions).
    """

    recipe: Recipe
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether every epoch of the recipe is done."""
        return self.epoch >= len(self.recipe.sizes)


def save(
    run_dir: Path, progress: Progress, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write ``run_dir/checkpoint.safetensors``; a failure leaves the previous one as it was.

    Args:
        run_dir: an existing folder.
        progress: how far the run has come.
        model: the network being trained.
        ema: its average, of the same parameters and buffers.
        optimizer: of the parameters of ``model``.

    Raises:
        ZooError: the folder does not exist or cannot be written to.
    """
    tensors = _named(model, "model.") | _named(ema, AVERAGED)
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value)
    # safetensors wants contiguous tensors that do not share memory.
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = dataclasses.asdict(progress) | {"recipe": progress.recipe.to_dict()}
    with atomic_path(run_dir / FILE) as path:
        save_file(tensors, path, metadata={_KEY: json.dumps(described)})


def is_run(path: Path) -> bool:
    """Tell a run's checkpoint, whatever its name, from any other file."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except SafetensorError:
        return False


def read_progress(run: Path) -> Progress:
    """Return how far a run has come.

    Args:
        run: its folder, or its checkpoint under any name.

    Raises:
        ZooError: there is no checkpoint, or it is damaged.
    """
    metadata, _ = _open(run, "")
    try:
        values = json.loads(metadata[_KEY])
        return Progress(**{**values, "recipe": Recipe.from_dict(values["recipe"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ZooError(
            f"{_file(run)} does not describe a training run ({error}); train anew into another --run-dir."
        ) from None


def check_data(run: Path, sha256: str) -> None:
    """Raise a :class:`ZooError` if a run was started with other images than those of this sha256."""
    known = read_progress(run).facts.get("data") or {}
    if known.get("sha256", sha256) != sha256:
        raise ZooError(
            f"the run in {run} was started with other images ({known.get('source')}); "
            "go on with the same --data, or choose a --run-dir in another folder."
        )


def read_ema(run: Path) -> dict[str, Tensor]:
    """Return the averaged weights of a run, those that are evaluated and published.

    Args:
        run: its folder, or its checkpoint under any name.

    Raises:
        ZooError: there is no checkpoint, or it is damaged.
    """
    return _open(run, AVERAGED)[1]


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Return the weights in a safetensors file as float32: of a run's checkpoint the averaged ones.

    Raises:
        ZooError: the file is missing or damaged.
    """
    path = Path(path)
    if is_run(path):
        return read_ema(path)
    state = load_checkpoint(path)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def load_weights(model: nn.Module, path: str | os.PathLike) -> None:
    """Load what :func:`read_weights` returns into a model.

    Raises:
        ZooError: the file is missing or damaged, or belongs to another model.
    """
    fit(model, read_weights(path), Path(path))


def restore(run_dir: Path, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load the checkpoint of ``run_dir`` into a model, its average and its optimizer, in place.

    Raises:
        ZooError: there is no checkpoint, it is damaged, or it belongs to another model.
    """
    for module, prefix in ((model, "model."), (ema, AVERAGED)):
        try:
            module.load_state_dict(_open(run_dir, prefix)[1])
        except RuntimeError:
            raise ZooError(
                f"the tensors of {run_dir / FILE} do not fit this model; "
                "they were written by another version of it, so train anew into another --run-dir."
            ) from None
    stored = _open(run_dir, "optimizer.")[1]
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for index, parameter in enumerate(parameters):
        prefix = f"{names[parameter]}."
        state[index] = {
            # A state shaped like its parameter takes over its memory format too, channels_last included.
            key.removeprefix(prefix): torch.empty_like(parameter).copy_(value)
            if value.shape == parameter.shape and value.ndim
            else value
            for key, value in stored.items()
            if key.startswith(prefix) and "." not in key.removeprefix(prefix)
        }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _named(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def _file(run: Path) -> Path:
    return run if run.is_file() else run / FILE


def _open(run: Path, prefix: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata of a checkpoint and its tensors under ``prefix`` (none for an empty one)."""
    path = _file(run)
    if not path.is_file():
        raise ZooError(f"there is no checkpoint in {run}; start a run there first, without --resume.")
    try:
        with safe_open(path, framework="pt") as file:
            keys = [key for key in file.keys() if prefix and key.startswith(prefix)]  # noqa: SIM118
            return file.metadata() or {}, {key.removeprefix(prefix): file.get_tensor(key) for key in keys}
    except SafetensorError as error:
        raise ZooError(f"{path} is damaged ({error}); delete it and train anew.") from None
