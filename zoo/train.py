"""Train a model of the zoo on augmented CIFAR-10.

python -m zoo.train --model resnet18_dpk --epochs 30
python -m zoo.train --model resnet18_kw --recipe gpu
python -m zoo.train --model resnet18_kw --phases 16:20 32:5 --warm-start weights/resnet18_static.safetensors
accelerate launch -m zoo.train --model resnet50_fgk --epochs 100 --publish
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import zoo
from zoo import cli
from zoo.errors import ZooError
from zoo.evaluate import DRAWS
from zoo.pretrained import lineage, manifest_entry
from zoo.training import checkpoint, loop, memory, optimizer, recipes
from zoo.training.augment import Augmentation
from zoo.training.chain import Run, check_same, plan
from zoo.training.data import Split, load_cifar10
from zoo.training.processes import first_process_first, is_first_process, launched, leave
from zoo.training.publish import check_folder, comparable, device, facts, finished_run, publish
from zoo.training.recipe import COMPUTED, Recipe, parse_phases

#: What all runs of a recipe have of the command line; the rest is for the last one.
_COMMON = {"held_out", "images_per_epoch", "batch_size", *COMPUTED}

#: How far apart two seeds of the command line lie for a recipe by name, whose runs have one each.
_SEED_STRIDE = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(words)
    if not (options.model or options.run_dir):
        raise ZooError("nothing to train: give --model, or --run-dir with --resume or --publish-only.")
    if options.eval_every is not None and options.eval_every < 0:
        raise ZooError(f"--eval-every is {options.eval_every}; it must be at least 0.")
    cli.check_counts(options, "save_every", "draws", "epochs")
    if options.model:
        options.model = zoo.models.check_name(options.model)
    if options.teacher:
        options.teacher = zoo.models.check_name(options.teacher)
    memory.keep_freed_memory()
    run_dir = Path(options.run_dir or Path("runs") / options.model)
    if options.publish or options.publish_only:
        check_folder()
    elif options.replace or options.draws is not None:
        flag = "--replace" if options.replace else "--draws"
        raise ZooError(f"{flag} is about publishing; add --publish or --publish-only, or leave it out.")
    if options.publish_only:
        _check_publish_only(options, finished_run(run_dir).recipe)  # before the images are decoded
    else:
        _train(options, run_dir, shlex.join([*launched(), "-m", "zoo.train", *words]))
    if (options.publish or options.publish_only) and is_first_process():
        test = load_cifar10("test", options.data)
        found = publish(
            run_dir, test, options.data_note, draws=options.draws or DRAWS, replace_better=options.replace
        )
        print(f"published: top-1 {found['top1']:.2f} %, on augmented images {found['top1_augmented']:.2f} %")
    return 0


def _check_publish_only(options: argparse.Namespace, recipe: Recipe) -> None:
    """Raise a :class:`ZooError` for options that a run which is over cannot follow."""
    if options.model not in (None, recipe.model):
        raise ZooError(f"the run is of {recipe.model}, not of {options.model}; leave --model out.")
    kept = {"model", "run_dir", "data", "data_note", "publish", "publish_only", "replace", "draws"}
    unset = _parser().parse_args([])
    for name, value in vars(options).items():
        if name not in kept and value != getattr(unset, name):
            flag = f"--{name.replace('_', '-')}"
            raise ZooError(
                f"{flag} changes how a model is trained, and --publish-only trains none; leave it out."
            )


def _train(options: argparse.Namespace, run_dir: Path, command: str) -> None:
    runs = _runs(options, run_dir)
    wanted = runs[-1].recipe
    optimizer.check_name(wanted.optimizer)
    if wanted.teacher and manifest_entry(wanted.teacher) is None:
        raise ZooError(
            f"the teacher {wanted.teacher} has no trained weights yet; train and publish it first."
        )
    if options.warm_start and not options.resume:
        checkpoint.read_weights(options.warm_start)  # before the images are decoded
    with first_process_first():  # it alone downloads
        tested = options.eval_every != 0 and not wanted.held_out
        test = load_cifar10("test", options.data) if tested or options.publish else None
        if test is not None and options.publish and not options.replace:  # before hours of training
            comparable(wanted.model, test)
        data = load_cifar10("train", options.data)
    if runs[0].progress is not None:
        checkpoint.check_data(runs[0].folder, data.sha256)
    if len(runs) > 1:  # what is wrong with the last is better said before hours of training
        _check_teacher(wanted, data)
        loop.check(wanted, zoo.create_model(wanted.model))
    for run in runs:
        if options.recipe:
            _note(str(run))
        if run is runs[-1] or not run.finished:
            _train_run(run, data, test if tested else None, options, command)
    leave()


def _train_run(run: Run, data: Split, test: Split | None, options: argparse.Namespace, command: str) -> None:
    """Train a run to its end; what it starts from is there by now."""
    recipe, folder, resume = run.recipe, run.folder, run.progress is not None
    if not resume and (folder / checkpoint.FILE).exists():
        raise ZooError(
            f"another training has begun in {folder} meanwhile; wait until it is done, then add --resume."
        )
    torch.manual_seed(recipe.seed)
    model = zoo.create_model(recipe.model)
    if resume:
        # It keeps the facts that it was started with; the file of its warm start may be gone.
        assert run.progress is not None
        known: dict[str, Any] = _moved(run.progress)
    else:
        if recipe.warm_start:
            _warm_start(model, recipe.warm_start)
        known = facts(data, options.data_note, command, recipe)
        _check_teacher(recipe, data)
        _check_start(recipe, data, lineage(known["started_from"]))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"cannot make {folder}: {error.strerror}; choose another --run-dir.") from None
    loop.train(
        recipe,
        model,
        data,
        folder,
        test=test,
        eval_every=options.eval_every,
        save_every=options.save_every,
        resume=resume,
        facts=known,
    )


def _check_teacher(recipe: Recipe, data: Split) -> None:
    """Check what a teacher, where there is one, has learned from against what the run holds out."""
    if recipe.teacher:
        _check_spared(f"the teacher {recipe.teacher}", lineage(manifest_entry(recipe.teacher)), recipe, data)


def _check_start(recipe: Recipe, data: Split, before: Sequence[Mapping[str, Any]]) -> None:
    """Say what is wrong with going on from the runs ``before``, those behind a warm start.

    Raises:
        ZooError: they learned from images that this run holds out.
    """
    _check_spared(f"the weights in {recipe.warm_start}", before, recipe, data)
    used = {run.get("recipe", {}).get("seed") for run in before}
    if recipe.seed in used:
        unused = min(set(range(len(used) + 1)) - used)
        _note(
            f"the run that {recipe.warm_start} comes from had --seed {recipe.seed}, too: its images come "
            f"again, warped alike; --seed {unused} draws anew"
        )


def _note(text: str) -> None:
    if is_first_process():
        print(text, flush=True)


def _check_spared(source: str, runs: Sequence[Mapping[str, Any]], recipe: Recipe, data: Split) -> None:
    """Raise a :class:`ZooError` if runs learned from images that a recipe holds out.

    Args:
        source: what they made, in words.
        runs: as :func:`zoo.pretrained.lineage` returns them.
        recipe: with the images to hold out.
        data: that these are among.
    """
    for run in runs if recipe.held_out else ():
        if not run["images_seen"]:
            _note(f"whether {source} learned from the images to hold out is not known")
        elif not _spared(run, recipe, data):
            raise ZooError(
                f"{source} may have learned from some of the {recipe.held_out} images to hold out; take "
                f"what had --held-out {recipe.held_out} and these --data all along, or leave it out."
            )


def _spared(run: Mapping[str, Any], recipe: Recipe, data: Split) -> bool:
    """Tell whether a run held out what a recipe does: the last images of the same files."""
    same = (run.get("data") or {}).get("sha256") == data.sha256
    return same and run.get("recipe", {}).get("held_out", 0) >= recipe.held_out


def _moved(progress: checkpoint.Progress) -> dict[str, str]:
    """Return what a run computed on so far, and the device it goes on with."""
    before = progress.facts.get("device", "unrecorded")
    now = device(progress.recipe.threads)
    return {"device": before if before.split(", then ")[-1] == now else f"{before}, then {now}"}


def _runs(options: argparse.Namespace, run_dir: Path) -> list[Run]:
    """Return the runs that the command line asks for, the model's own at the end.

    Raises:
        ZooError: a folder holds another run than is asked for, or one that is not to be gone on with.
    """
    if options.resume and not options.recipe:
        progress = checkpoint.read_progress(run_dir)
        check_same(run_dir, progress.recipe, _changed(progress.recipe, options))
        return [Run(progress.recipe, run_dir, progress)]
    if options.model is None:
        raise ZooError("give the --model to train.")
    return plan(options.recipe, _recipes(options), run_dir, options.resume, _given(Recipe, options).keys())


def _recipes(options: argparse.Namespace) -> list[Recipe]:
    """Return the recipes of the runs, the last with all that the command line sets.

    Those before have of it what :data:`_COMMON` names and a seed of their own. A start of the user's takes
    their place.
    """
    if options.recipe is None:
        return [_changed(Recipe(options.model), options)]
    *before, own = recipes.named(options.recipe, options.model)
    if options.warm_start:
        return [_changed(own, options)]
    given = _given(Recipe, options)
    common = {name: value for name, value in given.items() if name in _COMMON}
    changed = [*(replace(recipe, **common) for recipe in before), _changed(own, options)]
    if options.seed is None:
        return changed
    seeds = [_SEED_STRIDE * options.seed + recipe.seed for recipe in (*before, own)]
    return [replace(recipe, seed=seed) for recipe, seed in zip(changed, seeds, strict=True)]


def _changed(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """Return a recipe with what the command line sets."""
    augmentation = replace(recipe.augmentation, **_given(Augmentation, options))
    given = _given(Recipe, options)
    if "freeze" in given:
        given["freeze"] = tuple(given["freeze"])
    for name in ("distillation", "attention"):
        if name in given and given.get("teacher", recipe.teacher) is None:
            raise ZooError(f"--{name} says how to learn from a teacher; add a --teacher, or leave it out.")
    if options.epochs is not None:
        given["phases"] = ((32, options.epochs),)
    elif options.phases is not None:
        given["phases"] = parse_phases(options.phases)
    return replace(recipe, augmentation=augmentation, **given)


def _warm_start(model: nn.Module, path: str) -> None:
    errors = zoo.models.warm_start(model, checkpoint.read_weights(path))
    held = [error for error in errors.values() if error is not None]
    summary = f", largest relative error of the kernels {max(held):.2g}" if held else ""
    if fresh := len(errors) - len(held):
        summary += f", {fresh} of them with kernels that start at random"
    _note(f"warm start from {path}: {len(errors)} dynamic layers{summary}")


def _given(kind: type[Recipe | Augmentation], options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a recipe, or of its augmentation, that the command line sets."""
    names = kind.__dataclass_fields__.keys() & vars(options).keys()
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m zoo.train", description="Train a model of the zoo on augmented CIFAR-10."
    )
    add = parser.add_argument
    add("--model", metavar="NAME", help="name of the model, for example resnet18_dpk")
    add("--data", metavar="DIR", help="folder of parquet files (default: torchvision's download)")
    add("--data-note", metavar="TEXT", help="kept beside the source of the data in the manifest")
    add("--run-dir", metavar="DIR", help="folder of the run (default: runs/NAME)")
    add(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in --run-dir; with --recipe, from where its runs were stopped",
    )
    add("--eval-every", type=int, metavar="N", help="in epochs; 0: never (default: after each phase)")
    add(
        "--save-every",
        type=int,
        default=1,
        metavar="N",
        help="in epochs: how often a checkpoint is written (default: 1)",
    )
    add("--publish", action="store_true", help="when done, evaluate and store the weights")
    add("--publish-only", action="store_true", help="publish the finished run in --run-dir")
    add(
        "--draws",
        type=int,
        metavar="N",
        help=f"random warps of every image that is published on (default: {DRAWS})",
    )
    add(
        "--replace",
        action="store_true",
        help="publish even where the published weights do better, or were measured on other images",
    )

    add(
        "--recipe",
        metavar="NAME",
        help=f"one of {', '.join(recipes.names())}: runs from nothing to the trained model, of which those "
        "before the last lie beside --run-dir and serve other models, too; with --warm-start the last alone",
    )

    group = parser.add_argument_group(
        "recipe",
        "Defaults are those of zoo.training.recipe.Recipe. Of a recipe by name they change the last run; "
        f"{', '.join('--' + name.replace('_', '-') for name in sorted({*_COMMON, 'seed'}))} change all of "
        "its runs. Give them again with --resume.",
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, metavar="N", help="epochs at 32x32 pixels")
    length.add_argument("--phases", nargs="+", metavar="SIZE:EPOCHS", help="such as 16:4 24:1 32:1")
    add = group.add_argument
    add("--shared-epochs", type=int, metavar="N", help="first epochs, in which images share their kernels")
    add("--shared-images", type=int, metavar="N", help="so many of a batch share them (default: all)")
    add(
        "--upright",
        type=float,
        metavar="SHARE",
        help="share of the images that are not warped, only mirrored and shifted",
    )
    add(
        "--turned",
        type=float,
        metavar="SHARE",
        help="share of the images that are turned by 90, 180 or 270 degrees, mirrored and shifted only",
    )
    add(
        "--held-out",
        type=int,
        metavar="N",
        help="training images not to learn from: until it is published, a run is evaluated on them alone",
    )
    add("--images-per-epoch", type=int, metavar="N", help="a fresh random subset each epoch")
    add("--batch-size", type=int, metavar="N", help="images an update, over all processes")
    add("--optimizer", metavar="NAME", help="name in timm's optimizer registry")
    add("--lr", type=float, help="peak learning rate")
    add("--weight-decay", type=float, metavar="DECAY")
    add("--warmup", type=float, metavar="SHARE", help="share of all updates, 0 to 1")
    add("--anneal", type=float, metavar="SHARE", help="share of all updates in which layers anneal, 0 to 1")
    add("--label-smoothing", type=float, metavar="SHARE")
    add("--mixup", type=float, metavar="ALPHA", help="blend images of a batch; 0: none")
    add("--cutmix", type=float, metavar="ALPHA", help="put a box of one image into another; 0: none")
    add("--clip-grad", type=float, metavar="NORM")
    add("--ema-decay", type=float, metavar="DECAY")
    add(
        "--seed",
        type=int,
        help="of the initial weights, the order of the images and their warps; with --recipe and no "
        f"--warm-start added, {_SEED_STRIDE} times over, to those that its runs have",
    )
    add("--amp", choices=["bf16", "no"])
    add(
        "--warm-start",
        metavar="FILE",
        help="safetensors file or checkpoint of the static twin, or of the model itself",
    )
    add(
        "--freeze",
        nargs="+",
        metavar="PATTERN",
        help="names of parameters that stay as they start, such as '*.vectors'",
    )
    add("--teacher", metavar="NAME", help="pretrained model to learn from as well")
    add("--distillation", type=float, metavar="SHARE", help="weight of the teacher's opinion, 0 to 1")
    add("--attention", type=float, metavar="WEIGHT", help="weight of looking where the teacher looks")
    add("--lowering", metavar="NAME", help="how dynamic convolutions are computed (default: auto)")
    add(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        help="images as NHWC in memory, or as NCHW (default: NHWC, but NCHW on a CPU where most depthwise "
        "layers fold the batch into groups, as most dynamic ones do)",
    )
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="use torch.compile: slow to start, then faster for some models (docs/performance.md)",
    )
    add("--threads", type=int, metavar="N", help="CPU threads of a process")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
