"""Measure models on the 10,000 test images of CIFAR-10 and keep the figures in the weights manifest.

python -m zoo.evaluate --model resnet18_kw
python -m zoo.evaluate --model "resnet18_*" --curves 2000
python -m zoo.evaluate --model resnet18_kw --checkpoint runs/resnet18_kw/checkpoint.safetensors

Top-1 of clean and of warped images and the calibration error; with ``--curves`` also top-1 and how many
predictions are kept, step by step, when the first so many images are turned, zoomed or sheared.
"""

import argparse
import fnmatch
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

import zoo
from zoo import cli
from zoo.errors import ZooError
from zoo.pretrained import manifest_entry, record_figures
from zoo.training import answers, invariance, memory
from zoo.training.checkpoint import load_weights
from zoo.training.data import Split, first, load_cifar10
from zoo.training.evaluate import BATCH_SIZES, evaluate, place, table, with_unrounded

TEST_IMAGES = 10_000

#: Random warps of every image, enough to tell their spread.
DRAWS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    options = _parser().parse_args(argv)
    names = expand(options.model)
    _check(options, names)
    memory.keep_freed_memory()
    # All of them are built before the first is measured: a wrong name costs a second, not an hour.
    models = [zoo.create_model(name, pretrained=options.checkpoint is None) for name in names]
    if options.checkpoint:
        load_weights(models[0], options.checkpoint)
    test = load_cifar10("test", options.data)
    wanted = options.checkpoint is None and not options.no_write
    whole = len(test) == TEST_IMAGES
    rows = []
    for name, model in zip(names, models, strict=True):
        note = _note(name, test, options.data_note)
        if not options.only_curves:
            rows.append((name, _figures(name, model, test, note, options, wanted and whole)))
        if options.curves is not None:
            _curves(name, model, test, note, options, wanted and whole)
    if rows:
        print(table(rows))
    if wanted and not whole:
        print(f"not recorded: {test.source} has {len(test):,} images, not {TEST_IMAGES:,}.")
    return 0


def _check(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Raise a :class:`ZooError` where options do not go together, or a model has no weights."""
    if options.only_curves and options.curves is None:
        raise ZooError("--only-curves leaves the other figures out; say with --curves on how many images.")
    if options.only_curves and options.draws is not None:
        raise ZooError("--draws is about the figures that --only-curves leaves out; leave one of them out.")
    if options.checkpoint and len(names) != 1:
        raise ZooError(f"a --checkpoint belongs to one model, but {len(names)} were given.")
    cli.check_counts(options, "batch_size", "draws", "curves")
    if missing := [name for name in names if not (options.checkpoint or manifest_entry(name))]:
        raise ZooError(
            f"{missing[0]} has no trained weights yet; give a --checkpoint, "
            f"or train it with python -m zoo.train --model {missing[0]} --publish."
        )


def _figures(
    name: str, model: nn.Module, test: Split, note: str | None, options: argparse.Namespace, record: bool
) -> dict[str, Any]:
    """Measure a model, and record its figures where they may take the place of those that are known."""
    draws = options.draws or DRAWS
    known = (manifest_entry(name) or {}).get("figures") or {}
    if record and not options.force:
        record = _may_replace(name, "figures", test, known, ("draws", draws, known.get("augmented_draws", 1)))
    measured = evaluate(place(model), test, note, draws=draws, batch_size=options.batch_size)
    if record:
        record_figures(name, with_unrounded(measured.figures(), known))
        answers.record(name, measured.answers())
    return measured.figures()


def _curves(
    name: str, model: nn.Module, test: Split, note: str | None, options: argparse.Namespace, record: bool
) -> None:
    """Follow a model through rotations, zooms and shears, and record it as :func:`_figures` does."""
    known = invariance.read().get(name, {})
    part = first(test, options.curves)
    if record and not options.force:
        record = _may_replace(name, "curves", test, known, ("curves", len(part), known.get("images", 0)))
    followed = invariance.curves(place(model), part, batch_size=options.batch_size)
    print(invariance.summary(name, followed), flush=True)
    if record:
        invariance.record(name, followed | {"data": part.describe(note)})


def _may_replace(
    name: str, what: str, test: Split, known: Mapping[str, Any], counts: tuple[str, int, int]
) -> bool:
    """Tell whether what is measured may be recorded; say why not before it is, which can take an hour.

    Args:
        name: of the model.
        what: is measured.
        test: the images.
        known: what is recorded.
        counts: an option, what it says, and what it was for ``known``.
    """
    option, count, before = counts
    if known and not test.is_of(known):
        kept, cure = (
            f"of other images ({known.get('data', {}).get('source')})",
            "give the same --data, or --force to replace them",
        )
    elif before > count:
        kept, cure = f"of --{option} {before}, more than {count}", "give as many, or --force to replace them"
    else:
        return True
    print(f"not recorded: the weights folder has {what} of {name} {kept}; {cure}.", flush=True)
    return False


def _note(name: str, test: Split, given: str | None) -> str | None:
    """Return what to say beside the source of the data; by default what was said of these images before."""
    known = (manifest_entry(name) or {}).get("figures") or {}
    return known["data"].get("note") if given is None and test.is_of(known) else given


def expand(patterns: Sequence[str]) -> list[str]:
    """Return the models that the patterns name, without tags; one with wildcards means those with weights.

    Raises:
        ZooError: an unknown name, or nothing matches a pattern.
    """
    names: list[str] = []
    for pattern in patterns:
        if set(pattern).isdisjoint("*?["):
            found = [zoo.models.check_name(pattern)]
        else:
            found = [name for name in fnmatch.filter(zoo.list_models(), pattern) if manifest_entry(name)]
            if not found:
                raise ZooError(f"no model with trained weights matches {pattern!r}.")
        names += [name for name in found if name not in names]
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m zoo.evaluate", description="Measure models on the test images of CIFAR-10."
    )
    add = parser.add_argument
    add("--model", nargs="+", required=True, metavar="NAME", help='names or patterns, such as "resnet18_*"')
    add("--data", metavar="DIR", help="folder of parquet files (default: torchvision's download)")
    add("--data-note", metavar="TEXT", help="kept beside the source of the data in the manifest")
    add(
        "--checkpoint",
        metavar="FILE",
        help="safetensors file, or a run's checkpoint, in place of the weights",
    )
    add(
        "--draws",
        type=int,
        metavar="N",
        help=f"random warps of every image (default: {DRAWS})",
    )
    add(
        "--curves",
        type=int,
        metavar="IMAGES",
        help="also follow so many images through rotations, zooms and shears",
    )
    add("--only-curves", action="store_true", help="leave out what --curves does not ask for")
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"images a forward pass (default: {BATCH_SIZES['cpu']}, on a GPU {BATCH_SIZES['cuda']})",
    )
    writing = parser.add_mutually_exclusive_group()
    writing.add_argument("--no-write", action="store_true", help="leave the weights folder as it is")
    writing.add_argument(
        "--force", action="store_true", help="replace what is of more draws, of more images or of others"
    )
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
