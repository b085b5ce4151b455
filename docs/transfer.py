"""Fine-tune to other classes, and a static network into a dynamic one, each against training from scratch.

python docs/transfer.py --data ../shared/cifar10

Writes transfer.json, which docs/results.md shows. Needs ``pip install -e '.[train]'``. It starts from:

- ``timm.create_model("resnet18_kw", pretrained=True, num_classes=2)``: the trained network with a new head;
- ``zoo.dynamize(static, "kw")``: the trained static twin, every spatial convolution made dynamic with its
  outputs unchanged;
- the same networks with random weights, and the static twin itself, trained on alike.
"""

import argparse
import json
import math
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from comparing import check_folder
from torch import nn

import zoo
from zoo import cli
from zoo.catalog import split_name
from zoo.cli import portable
from zoo.errors import ZooError
from zoo.layers import FAMILIES, STATIC
from zoo.pretrained import manifest_entry, verify_weights, weights_dir
from zoo.training import memory
from zoo.training.augment import Augmentation
from zoo.training.checkpoint import FILE, load_weights
from zoo.training.data import Split, first, load_cifar10
from zoo.training.evaluate import top1
from zoo.training.loop import train
from zoo.training.recipe import Recipe

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(words)
    cli.check_counts(options, "images", "test_images", "epochs", "size", "batch_size", "threads")
    check_folder(options.out)
    if not (math.isfinite(options.lr) and options.lr > 0):
        raise ZooError(f"--lr is {options.lr}; it must be above 0.")
    options.model = zoo.models.check_name(options.model)
    starts = trained_starts(options.model)
    memory.keep_freed_memory()
    data = first(load_cifar10("train", options.data), options.images)
    test = first(load_cifar10("test", options.data), options.test_images)
    rows = []
    for title, make, change in ways(options.model):
        learned, tested = change(data), change(test)
        recipe = Recipe(
            options.model,
            phases=((options.size, options.epochs),),
            # Kernels of each image's own come last: on a CPU they take long.
            shared_epochs=options.epochs - 1,
            # Images close to upright: a few epochs teach little of those at any angle.
            augmentation=Augmentation(vflip=False, degrees=15.0, scale=(0.9, 1.1), shear=5.0),
            batch_size=min(options.batch_size, len(data)),
            ema_decay=0.9,
            lr=options.lr,
            threads=options.threads,
        )
        torch.manual_seed(recipe.seed)
        model = make()
        before = top1(model, tested)
        with tempfile.TemporaryDirectory() as folder:
            train(recipe, model, learned, Path(folder))
            load_weights(model, Path(folder) / FILE)  # the averaged ones, as they are published
        row = {
            "title": title,
            "classes": len(learned.classes),
            "commonest": round(100 * float(tested.labels.bincount().max()) / len(tested), 2),
            "before": round(before, 2),
            "top1": round(top1(model, tested), 2),
        }
        rows.append(row)
        print(f"{title}: {row['before']:.1f} -> {row['top1']:.1f} % of {len(tested):,} images", flush=True)
    record = {
        "model": options.model,
        "images": len(data),
        "epochs": options.epochs,
        "size": options.size,
        "test_images": len(test),
        "command": shlex.join(["python", "docs/transfer.py", *map(portable, words)]),
        "starts": starts,
        "rows": rows,
    }
    with cli.atomic_path(options.out / "transfer.json") as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def trained_starts(name: str) -> dict[str, dict[str, Any]]:
    """Return the sha256 of the trained weights that a comparison starts from, and their clean top-1.

    Args:
        name: the dynamic model.

    Returns:
        By the name of the model and of its static twin ``sha256`` and ``top1``, in percent.

    Raises:
        ZooError: the model has no dynamic kernels or cannot start from static ones, or the weights of one of
            the two are missing or damaged.
    """
    backbone, family = split_name(name)
    if family not in FAMILIES:
        raise ZooError(f"{name} has no dynamic kernels; choose a --model that has, such as {backbone}_kw.")
    if FAMILIES[family].holds_static is None:
        raise ZooError(
            f"{name} cannot start from the kernels of its static twin; "
            f"choose a --model that can, such as {backbone}_kw."
        )
    starts = {}
    for start in (name, f"{backbone}_{STATIC}"):
        entry = manifest_entry(start)
        if entry is None:
            raise ZooError(
                f"{start}, from which {name} would start, has no trained weights yet; "
                f"choose another --model, or train it with python -m zoo.train --model {start} --publish."
            )
        verify_weights(start, weights_dir() / entry["file"])
        starts[start] = {"sha256": entry["sha256"], "top1": (entry.get("figures") or {}).get("top1")}
    return starts


Way = tuple[str, Callable[[], nn.Module], Callable[[Split], Split]]


def ways(name: str) -> list[Way]:
    """Return a title, the network to train, and what becomes of the data, of every way to start."""
    backbone, family = split_name(name)

    def dynamized() -> nn.Module:
        return zoo.dynamize(timm.create_model(f"{backbone}_{STATIC}", pretrained=True), family)

    return [
        (
            f"{name} with its trained weights and a new head, animal or vehicle",
            lambda: timm.create_model(name, pretrained=True, num_classes=2),
            animal_or_vehicle,
        ),
        (
            f"{name} from scratch, animal or vehicle",
            lambda: timm.create_model(name, num_classes=2),
            animal_or_vehicle,
        ),
        (
            f"{backbone}_{STATIC} with its trained weights, dynamized to {family}",
            dynamized,
            lambda data: data,
        ),
        (
            f"{backbone}_{STATIC} with its trained weights, left static",
            lambda: timm.create_model(f"{backbone}_{STATIC}", pretrained=True),
            lambda data: data,
        ),
        (f"{name} from scratch", lambda: timm.create_model(name), lambda data: data),
    ]


def animal_or_vehicle(data: Split) -> Split:
    """Return the same images with two classes for CIFAR-10's ten."""
    is_animal = torch.tensor([name in ANIMALS for name in data.classes])
    return replace(data, labels=is_animal[data.labels].long(), classes=("vehicle", "animal"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python docs/transfer.py", description=__doc__.splitlines()[0])
    add: Any = parser.add_argument
    add("--model", default="resnet18_kw", metavar="NAME", help="default: resnet18_kw")
    add("--data", metavar="DIR", help="folder of parquet files (default: torchvision's download)")
    add("--images", type=int, default=4000, metavar="N", help="to learn from (default: 4000)")
    add("--test-images", type=int, default=10000, metavar="N", help="default: 10000")
    add("--epochs", type=int, default=3, metavar="N", help="default: 3")
    add("--size", type=int, default=32, metavar="PIXELS", help="of the training images (default: 32)")
    add("--batch-size", type=int, default=64, metavar="N", help="images an update (default: 64)")
    add("--lr", type=float, default=5e-4, help="peak learning rate (default: 5e-4)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    add("--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="default: beside this file")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
