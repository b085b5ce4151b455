"""From a finished run to weights in the manifest, with how they were made and what they reach."""

import os
import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor

import zoo
from zoo import machine, pretrained
from zoo.cli import portable
from zoo.errors import ZooError
from zoo.training import answers, checkpoint, processes
from zoo.training.data import Split
from zoo.training.evaluate import as_published, evaluate, fewer_draws, place, top1, with_unrounded
from zoo.training.processes import on_cuda
from zoo.training.recipe import Recipe

#: What an entry tells of a run that its own started from, beside the model.
_KEPT = ("recipe", "command", "device", "data", "epochs", "images_seen", "seconds", "started_from")


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
        "train_images": len(data) - recipe.held_out,
        "data": data.describe(note),
        "device": device(recipe.threads),
        "command": command,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
            "zoo": zoo.__version__,
        },
    }


def device(threads: int | None = None) -> str:
    """Return the name of what a run computes on: the GPUs, or the processor and its threads.

    Args:
        threads: CPU threads of a process; None means torch's choice.
    """
    if on_cuda():
        return f"{processes.count()} x " * (processes.count() > 1) + torch.cuda.get_device_name()
    count = processes.count() * (threads or torch.get_num_threads())
    return f"CPU {machine.cpu_model() or platform.machine()}, {count} thread{'s' * (count > 1)}"


def origin(path: Path) -> dict[str, Any]:
    """Return how the weights in a file were made.

    Args:
        path: a run's checkpoint, a file of the weights folder or a copy of one, or any other file.

    Returns:
        ``model``, ``recipe``, ``command``, ``device``, ``data``, ``epochs``, ``images_seen``, ``seconds`` and
        ``started_from``, as far as the run or the manifest tells; for a file of unknown origin ``file``,
        ``sha256``, 0 ``images_seen`` and 0 ``seconds``.
    """
    if checkpoint.is_run(path):
        progress = checkpoint.read_progress(path)
        made = _made(progress) | {"started_from": progress.facts.get("started_from")}
        return {"model": progress.recipe.model, **_kept(made)}
    digest = pretrained.file_sha256(path)
    for name, entry in pretrained.read_manifest().items():
        if entry["sha256"] == digest:
            return {"model": name, **_kept(entry)}
    return {"file": path.name, "sha256": digest, "images_seen": 0, "seconds": 0}


def _made(progress: checkpoint.Progress) -> dict[str, Any]:
    """Return how far a run came and by what recipe and command, as the manifest has it."""
    recipe, facts = progress.recipe.to_dict(), progress.facts
    if recipe["warm_start"]:
        recipe["warm_start"] = portable(recipe["warm_start"])
    seen = progress.step * progress.recipe.batch_size
    made: dict[str, Any] = {"recipe": recipe, "images_seen": seen, "seconds": round(progress.seconds)}
    # A run of the function `train` alone knows neither.
    if "train_images" in facts:
        made["epochs"] = round(seen / facts["train_images"], 2)
    for name in ("device", "data"):
        if name in facts:
            made[name] = facts[name]
    if "command" in facts:
        made["command"] = shlex.join(map(portable, shlex.split(facts["command"])))
    return made


def _kept(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of a run in the entry of one that starts from it."""
    return {key: made[key] for key in _KEPT if key in made}


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


def publish(
    run_dir: Path, test: Split, note: str | None = None, *, draws: int = 1, replace_better: bool = False
) -> dict[str, Any]:
    """Evaluate the averaged weights of a finished run and store them in the weights folder.

    Figures that the manifest has of the same weights with more random warps are kept.

    Args:
        run_dir: folder of the run.
        test: the images to evaluate on.
        note: what to say beside the source of ``test``; None repeats what was said of the training images.
        draws: how many times every image is warped at random.
        replace_better: replace published weights even by less accurate ones.

    Returns:
        The figures that went into the manifest: those of the weights as they are stored, and ``top1_fp32``,
        the clean top-1 of the weights before they were rounded.

    Raises:
        ZooError: there is no run, it is not finished, or its checkpoint is damaged; or the published weights
            are more accurate on these images, clean or warped, or were measured on others.
    """
    progress = finished_run(run_dir)
    recipe = progress.recipe
    known = {} if replace_better else comparable(recipe.model, test)
    state = checkpoint.read_ema(run_dir)
    model = zoo.create_model(recipe.model)
    model.load_state_dict(state)
    unrounded = top1(place(model), test, title="clean, fp32")
    if known:  # at once: the warps take minutes
        _check_no_worse(recipe.model, "clean", unrounded, known.get("top1_fp32", known["top1"]))
    rounded = as_published(state)
    model.load_state_dict(rounded)
    measured = evaluate(model, test, note or progress.facts["data"]["note"], draws=draws)
    found = measured.figures() | {"top1_fp32": round(unrounded, 2)}
    same = _known_figures(recipe.model, rounded)
    kept = test.is_of(same) and fewer_draws(found, same)
    if kept:
        found = with_unrounded(same, found)
    if "top1_augmented" in known and not same:
        # Each draw of the warps has another top-1.
        spread = max(figures.get("top1_augmented_std", 0) for figures in (known, found))
        _check_no_worse(recipe.model, "augmented", found["top1_augmented"], known["top1_augmented"], spread)

    made = _made(progress)
    # Made once more after the facts: its command names no folder of this machine.
    entry = {**made, "seed": recipe.seed, **progress.facts, **made, "figures": found}
    pretrained.publish(recipe.model, state, entry)
    if not kept:
        answers.record(recipe.model, measured.answers())
    return found


def comparable(name: str, test: Split) -> dict[str, Any]:
    """Return the manifest's figures of a model's weights, none where there are none.

    Raises:
        ZooError: they are of other images than ``test``.
    """
    known = (pretrained.manifest_entry(name) or {}).get("figures") or {}
    if known and not (known.get("images") == len(test) and test.is_of(known)):
        source = known.get("data", {}).get("source", "others")
        raise ZooError(
            f"the published weights of {name} were measured on other images ({source}), so others cannot be "
            "compared with them; give the same --data, add --replace to publish without comparing, or set "
            "ZOO_WEIGHTS to a folder of your own."
        )
    return known


def _check_no_worse(name: str, kind: str, reached: float, best: float, slack: float = 0.0) -> None:
    """Raise a :class:`ZooError` where the published weights of a model do better than new ones.

    Args:
        name: of the model.
        kind: of the images.
        reached: top-1 of the new weights in percent, before they are rounded where the images are clean.
        best: of the published ones.
        slack: points that are no difference.
    """
    if round(reached, 2) < best - slack:
        raise ZooError(
            f"the published weights of {name} have {best:.2f} % of the {kind} images right and these "
            f"{reached:.2f} %; nothing was replaced. --publish-only --replace publishes them nonetheless."
        )


def _known_figures(name: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the figures that the manifest has of weights, none where it has others of that name.

    The numbers are compared: another version of safetensors may lay out the same ones in another way.

    Args:
        name: of the model.
        state: its weights as they are stored, in float32.
    """
    entry = pretrained.manifest_entry(name) or {}
    path = pretrained.weights_dir() / entry.get("file", "")
    if not path.is_file() or pretrained.file_sha256(path, path.stat().st_mtime_ns) != entry["sha256"]:
        return {}
    stored = checkpoint.read_weights(path)
    same = stored.keys() == state.keys() and all(torch.equal(stored[key], state[key]) for key in state)
    return (entry.get("figures") or {}) if same else {}
