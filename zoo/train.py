"""Train a model of the zoo on augmented CIFAR-10.

python -m zoo.train --model resnet18_dpk --epochs 30
python -m zoo.train --model resnet18_kw --recipe gpu_finish
python -m zoo.train --model resnet18_kw --phases 16:20 32:5 --warm-start weights/resnet18_static.safetensors
accelerate launch -m zoo.train --model resnet50_fgk --epochs 100 --publish
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import zoo
from zoo import cli
from zoo.errors import ZooError
from zoo.evaluate import DRAWS
from zoo.pretrained import lineage, manifest_entry
from zoo.training import checkpoint, memory, optimizer, recipes
from zoo.training.augment import Augmentation
from zoo.training.data import load_cifar10
from zoo.training.loop import train
from zoo.training.processes import first_process_first, is_first_process, launched
from zoo.training.publish import check_folder, comparable, device, facts, finished_run, publish
from zoo.training.recipe import Recipe, parse_phases


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
    recipe = _recipe(options, run_dir)
    start = recipe.warm_start
    if start and not options.resume and not options.warm_start and not Path(start).is_file():
        raise ZooError(
            f"the recipe {options.recipe} starts {recipe.model} from {start}, which is not there; "
            f"train that first, as zoo/training/recipes/{options.recipe}.py says, or give a --warm-start."
        )
    optimizer.check_name(recipe.optimizer)
    if recipe.teacher and manifest_entry(recipe.teacher) is None:
        raise ZooError(
            f"the teacher {recipe.teacher} has no trained weights yet; train and publish it first."
        )
    torch.manual_seed(recipe.seed)
    model = zoo.create_model(recipe.model)
    if start and not options.resume:
        _warm_start(model, start)
    with first_process_first():  # it alone downloads
        tested = options.eval_every != 0 and not recipe.held_out
        test = load_cifar10("test", options.data) if tested or options.publish else None
        if test is not None and options.publish and not options.replace:  # before hours of training
            comparable(recipe.model, test)
        data = load_cifar10("train", options.data)
    if options.resume:
        checkpoint.check_data(run_dir, data.sha256)
    # A resumed run keeps those it was started with; the file of its warm start may be gone.
    known: dict[str, Any] = (
        _moved(run_dir, recipe) if options.resume else facts(data, options.data_note, command, recipe)
    )
    if not options.resume:
        _check_start(recipe, known)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"cannot make {run_dir}: {error.strerror}; choose another --run-dir.") from None
    train(
        recipe,
        model,
        data,
        run_dir,
        test=test if tested else None,
        eval_every=options.eval_every,
        save_every=options.save_every,
        resume=options.resume,
        facts=known,
    )


def _check_start(recipe: Recipe, known: dict[str, Any]) -> None:
    """Say what is wrong with going on from the runs behind a warm start, and with their like as a teacher.

    Args:
        recipe: of the run that goes on.
        known: the facts that it is started with.

    Raises:
        ZooError: they learned from images that this run holds out.
    """
    start = f"the weights in {recipe.warm_start}"
    sources = {start: lineage(known["started_from"])}
    if recipe.teacher:
        sources[f"the teacher {recipe.teacher}"] = lineage(manifest_entry(recipe.teacher))
    for source, runs in sources.items() if recipe.held_out else ():
        for run in runs:
            if not run["images_seen"]:
                _note(f"whether {source} learned from the images to hold out is not known")
            elif not _spared(run, recipe, known):
                raise ZooError(
                    f"{source} may have learned from some of the {recipe.held_out} images to hold out; take "
                    f"what had --held-out {recipe.held_out} and these --data all along, or leave it out."
                )
    used = {run.get("recipe", {}).get("seed") for run in sources[start]}
    if recipe.seed in used:
        unused = min(set(range(len(used) + 1)) - used)
        _note(
            f"the run that {recipe.warm_start} comes from had --seed {recipe.seed}, too: its images come "
            f"again, warped alike; --seed {unused} draws anew"
        )


def _note(text: str) -> None:
    if is_first_process():
        print(text, flush=True)


def _spared(run: Mapping[str, Any], recipe: Recipe, known: dict[str, Any]) -> bool:
    """Tell whether a run held out what a recipe does: the last images of the same files."""
    same = (run.get("data") or {}).get("sha256") == known["data"]["sha256"]
    return same and run.get("recipe", {}).get("held_out", 0) >= recipe.held_out


def _moved(run_dir: Path, recipe: Recipe) -> dict[str, str]:
    """Return what a run computed on so far, and the device it goes on with."""
    before = checkpoint.read_progress(run_dir).facts.get("device", "unrecorded")
    now = device(recipe.threads)
    return {"device": before if before.split(", then ")[-1] == now else f"{before}, then {now}"}


def _recipe(options: argparse.Namespace, run_dir: Path) -> Recipe:
    """Return the recipe that the command line gives, or that of the run it resumes."""
    if options.resume:
        if options.recipe is not None:
            raise ZooError("a resumed run has a recipe of its own; leave --recipe out.")
        recipe = checkpoint.read_progress(run_dir).recipe
        own, asked = recipe.settings(), _changed(recipe, options).settings()
        for name, value in asked.items():
            if value != own[name]:
                raise ZooError(
                    f"the run in {run_dir} has {name} {own[name]!r}, not {value!r}; "
                    "resume with its own settings, or choose another --run-dir."
                )
        return recipe
    if (run_dir / checkpoint.FILE).exists():
        raise ZooError(
            f"{run_dir} already holds a run; add --resume to go on with it, or choose another --run-dir."
        )
    if options.model is None:
        raise ZooError("give the --model to train.")
    named = Recipe if options.recipe is None else partial(recipes.named, options.recipe)
    return _changed(named(options.model), options)


def _changed(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """Return a recipe with what the command line sets."""
    augmentation = replace(recipe.augmentation, **_given(Augmentation, options))
    given = _given(Recipe, options)
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
    print(f"warm start from {path}: {len(errors)} dynamic layers{summary}", flush=True)


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
    add("--resume", action="store_true", help="go on from the checkpoint in --run-dir")
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

    add("--recipe", metavar="NAME", help=f"start from one of {', '.join(recipes.names())}")

    group = parser.add_argument_group("recipe", "defaults are those of zoo.training.recipe.Recipe")
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
    add("--seed", type=int)
    add("--amp", choices=["bf16", "no"])
    add(
        "--warm-start",
        metavar="FILE",
        help="safetensors file or checkpoint of the static twin, or of the model itself",
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
        help="use torch.compile: slow to start, faster from then on where measured: kw, fgk",
    )
    add("--threads", type=int, metavar="N", help="CPU threads of a process")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
