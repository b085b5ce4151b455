"""From a finished run to weights in the manifest, with how they were made and what they reach."""

import os
import platform
import shlex
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

import zoo
from zoo import pretrained
from zoo.errors import ZooError
from zoo.training import checkpoint
from zoo.training._require import on_cuda
from zoo.training.data import Split
from zoo.training.evaluate import as_published, figures, place
from zoo.training.recipe import Recipe


def facts(data: Split, note: str | None, command: str, recipe: Recipe) -> dict[str, Any]:
    """Return what a run is started with and the manifest keeps.

    Args:
        data: the training images.
        note: what to say beside their source.
        command: the command line.
        recipe: of the run.
    """
    teacher = None if recipe.teacher is None else pretrained.manifest_entry(recipe.teacher)
    return {
        "started_from": origin(Path(recipe.warm_start)) if recipe.warm_start else None,
        "teacher_sha256": teacher and teacher["sha256"],
        "train_images": len(data),
        "data": data.describe(note),
        "device": torch.cuda.get_device_name() if on_cuda() else f"CPU {platform.machine()}",
        "command": command,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
            "zoo": zoo.__version__,
        },
    }


def origin(path: Path) -> dict[str, Any]:
    """Return how the weights in a file were made.

    Args:
        path: a run's checkpoint, a file of the weights folder or a copy of one, or any other file.

    Returns:
        ``model``, ``phases``, ``augmentation``, ``images_seen``, ``seconds`` and ``started_from``; for a file
        of unknown origin ``file``, ``sha256``, 0 ``images_seen`` and 0 ``seconds``.
    """
    if checkpoint.is_run(path):
        progress = checkpoint.read_progress(path)
        return {
            "model": progress.recipe.model,
            "phases": progress.recipe.phases,
            "augmentation": progress.recipe.to_dict()["augmentation"],
            "images_seen": progress.step * progress.recipe.batch_size,
            "seconds": round(progress.seconds),
            "started_from": progress.facts.get("started_from"),
        }
    digest = pretrained.file_sha256(path)
    for name, entry in pretrained.read_manifest().items():
        if entry["sha256"] == digest:
            kept = {key: entry[key] for key in ("images_seen", "seconds", "started_from")}
            recipe = {key: entry["recipe"][key] for key in ("phases", "augmentation")}
            return {"model": name, **recipe, **kept}
    return {"file": path.name, "sha256": digest, "images_seen": 0, "seconds": 0}


def finished_run(run_dir: Path) -> checkpoint.Progress:
    """Return the progress of a finished run.

    Raises:
        ZooError: there is no run, it is not finished, or its checkpoint is damaged.
    """
    progress = checkpoint.read_progress(run_dir)
    if not progress.finished:
        raise ZooError(
            f"the run in {run_dir} has done {progress.epoch} of {len(progress.recipe.sizes)} epochs; "
            "finish it with --resume first."
        )
    return progress


def check_folder() -> None:
    """Raise a :class:`ZooError` unless the weights folder can be written to."""
    folder = pretrained.weights_dir()
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ZooError(
            f"cannot publish into {folder}; set ZOO_WEIGHTS to a folder that exists and is writable."
        )


def publish(run_dir: Path, test: Split, note: str | None = None) -> dict[str, Any]:
    """Evaluate the averaged weights of a finished run and store them in the weights folder.

    Args:
        run_dir: folder of the run.
        test: the images to evaluate on.
        note: what to say beside the source of ``test``; None repeats what was said of the training images.

    Returns:
        The figures that went into the manifest.

    Raises:
        ZooError: there is no run, it is not finished, or its checkpoint is damaged.
    """
    progress = finished_run(run_dir)
    recipe = progress.recipe
    state = checkpoint.read_ema(run_dir)
    model = zoo.create_model(recipe.model)
    model.load_state_dict(as_published(state))
    measured = figures(place(model), test, note or progress.facts["data"]["note"])

    seen = progress.step * recipe.batch_size
    described = recipe.to_dict()
    if recipe.warm_start:
        described["warm_start"] = portable(recipe.warm_start)
    entry = {
        "recipe": described,
        "epochs": round(seen / progress.facts["train_images"], 2),
        "images_seen": seen,
        "seed": recipe.seed,
        "seconds": round(progress.seconds),
        **progress.facts,
        "command": shlex.join(map(portable, shlex.split(progress.facts["command"]))),
        "figures": measured,
    }
    pretrained.publish(recipe.model, state, entry)
    return measured


def portable(word: str) -> str:
    """Shorten an absolute path to its last two parts, which mean something on other machines too."""
    return "/".join(("...", *Path(word).parts[1:][-2:])) if os.path.isabs(word) else word
