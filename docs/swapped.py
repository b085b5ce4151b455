"""Tell what a model's answers owe to kernels that are made for the image.

python docs/swapped.py --models "*" --data ../shared/cifar10
python docs/swapped.py --runs runs/kw --name swapped_runs --data ../shared/cifar10    # finished trainings

The same weights are tested with kernels that every dynamic convolution makes for the image itself, for
another image, for what a layer sees of all images in the mean, and, where images are warped, for the image
before it was. What the accuracy loses by that is what the network makes of them.

Writes NAME.json; docs/results.md shows swapped.json and swapped_trained_on.json. Needs
``pip install -e '.[train]'``.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from comparing import check_folder, command, write
from torch import Tensor, nn
from turning import layers_of

import zoo
from export.benchmark.statistics import mean_interval
from zoo import catalog, cli
from zoo.errors import ZooError
from zoo.layers import DynamicConv2d
from zoo.pretrained import read_manifest
from zoo.training import memory
from zoo.training.augment import Augmentation, normalise, warp
from zoo.training.checkpoint import FILE, load_weights
from zoo.training.data import Split, first, load_cifar10
from zoo.training.evaluate import AUGMENTED_SEED, BATCH_SIZES
from zoo.training.processes import progress_bar
from zoo.training.publish import finished_run

#: What the kernels are made for instead of the image.
MEAN, OTHER, UPRIGHT = "mean", "other", "upright"

#: Turns the contexts (N, I) of a layer, named, into those that its kernels are made for, of the same shape.
Choose = Callable[[str, Tensor], Tensor]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(words)
    cli.check_counts(options, "images")
    if options.images < 2:
        raise ZooError("--images is 1; give 2 or more, because kernels are made for another image.")
    check_folder(options.out)
    memory.keep_freed_memory()
    runs = {run: finished_run(run).recipe.model for run in options.runs}
    names = dynamic_names(options.models) if options.models or not runs else []
    test = first(load_cifar10("test", options.data), options.images)
    rows = []
    for name in names:
        model = zoo.create_model(name, pretrained=True)
        rows.append({"model": name, "sha256": read_manifest()[name]["sha256"], **measure(model, test)})
        print(rows[-1], flush=True)
    for run, name in runs.items():
        model = zoo.create_model(name)
        load_weights(model, run / FILE)
        rows.append({"model": name, "run": run.name, **measure(model, test)})
        print(rows[-1], flush=True)
    record = {
        "images": len(test),
        "data": test.describe(),
        "command": command("swapped", words),
        "rows": rows,
    }
    write(options.out / f"{options.name}.json", record)
    return 0


def dynamic_names(patterns: Sequence[str]) -> list[str]:
    """Return the models with trained weights that match and whose kernels depend on the image.

    Raises:
        ZooError: there are none.
    """
    trained = catalog.names(patterns, pretrained=True)
    with torch.device("meta"):
        made = {name: layers_of(zoo.create_model(name)).values() for name in trained}
    if names := [name for name, its in made.items() if any(one.sample_factor != "none" for one in its)]:
        return names
    raise ZooError(f"no trained model that {' '.join(patterns)} matches makes kernels for the image.")


def measure(model: nn.Module, test: Split) -> dict[str, Any]:
    """Test a model with its kernels made for one thing and another.

    Args:
        model: a classifier with dynamic convolutions; put into eval mode.
        test: the images.

    Returns:
        By ``clean`` and ``augmented``: the ``top1`` of its own kernels in percent, and by what else they are
        made for the points gained, with the interval that the images leave open.
    """
    model.eval()
    generator = torch.Generator().manual_seed(AUGMENTED_SEED)
    maps = Augmentation().draw(len(test), test.images.shape[-1], generator)
    upright = normalise(test.images)
    return {
        "clean": compare(model, test.labels, upright),
        "augmented": compare(model, test.labels, warp(test.images, maps), upright),
    }


def compare(model: nn.Module, labels: Tensor, inputs: Tensor, before: Tensor | None = None) -> dict[str, Any]:
    """Test a model in eval mode on inputs (N, 3, H, W), with its own kernels and with others'.

    Args:
        model: a classifier with dynamic convolutions.
        labels: (N,).
        inputs: as the model takes them.
        before: the same images before they were warped.

    Returns:
        ``top1`` in percent; by what else the kernels are made for, :data:`MEAN`, :data:`OTHER` and, with
        ``before``, :data:`UPRIGHT`, the points gained and their interval.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, contexts: Tensor) -> Tensor:
        sums[name] = sums.get(name, torch.zeros(())) + contexts.double().sum(dim=0)
        return contexts

    def mean(name: str, contexts: Tensor) -> Tensor:
        return (sums[name] / len(inputs)).to(contexts.dtype).expand_as(contexts)

    own = right(model, labels, inputs, add)
    others = {
        MEAN: right(model, labels, inputs, mean),
        OTHER: right(model, labels, inputs, lambda _name, contexts: contexts.roll(1, dims=0)),
    }
    if before is not None:
        others[UPRIGHT] = right(model, labels, inputs, first_half_twice, before)
    gains = {of: mean_interval(100 * (found.double() - own.double()).numpy()) for of, found in others.items()}
    return {"top1": round(100 * float(own.double().mean()), 2), **gains}


def first_half_twice(_name: str, contexts: Tensor) -> Tensor:
    """Return the first half of contexts (2 N, I) twice: those of images for other views of them as well."""
    return contexts[: len(contexts) // 2].repeat(2, 1)


@torch.inference_mode()
def right(
    model: nn.Module, labels: Tensor, inputs: Tensor, choose: Choose, before: Tensor | None = None
) -> Tensor:
    """Return which of inputs (N, 3, H, W) a model gets right, (N,), with kernels made as ``choose`` says.

    Args:
        model, labels, inputs: see :func:`compare`.
        choose: tells the contexts that kernels are made for, from those of a batch.
        before: stands before the inputs in every batch, without an answer of its own.
    """
    batches = -(-len(inputs) // BATCH_SIZES["cpu"])
    found = []
    with kernels_for(model, choose):
        for rows in progress_bar(torch.arange(len(inputs)).tensor_split(batches), unit=" batches"):
            views = [inputs[rows]] if before is None else [before[rows], inputs[rows]]
            answers = model(torch.cat(views).contiguous(memory_format=torch.channels_last))
            found.append(answers[-len(rows) :].argmax(dim=1) == labels[rows])
    return torch.cat(found)


@contextlib.contextmanager
def kernels_for(model: nn.Module, choose: Choose) -> Iterator[None]:
    """Let a model's dynamic convolutions make their kernels for other contexts than their inputs'."""
    layers = layers_of(model)

    def chosen(name: str, layer: DynamicConv2d) -> Callable[[Tensor], Tensor]:
        context = layer.context
        return lambda x: choose(name, context(x))

    for name, layer in layers.items():
        layer.context = chosen(name, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.context


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python docs/swapped.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--models", nargs="+", default=[], metavar="NAME", help="with trained weights: names or patterns")
    add("--runs", nargs="+", default=[], type=Path, metavar="DIR", help="folders of finished runs")
    add("--name", default="swapped", help="of what is written, without .json (default: swapped)")
    add("--data", metavar="DIR", help="folder of parquet files (default: torchvision's download)")
    add("--images", type=int, default=2000, metavar="N", help="the first of the test images (default: 2000)")
    add("--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="default: beside this file")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
