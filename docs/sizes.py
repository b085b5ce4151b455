"""What smaller factors and fewer dynamic layers save and cost: one network, trained alike, timed in turn.

python docs/sizes.py --data ../shared/cifar10
python docs/sizes.py --data ../shared/cifar10 --backbone mobilenetv3_small_100 --pretrained --epochs 1

Writes sizes_BACKBONE.json, which docs/performance.md shows. Needs ``pip install -e '.[train]'``. All networks
are the static one with its spatial convolutions made dynamic, or those of some stages. They start at random,
or from the static network's published weights as far as a family can hold them.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from comparing import check_folder
from torch import nn

import export.onnx
import zoo
from export.base import ExportOptions, Predict, runtime
from export.benchmark.environment import environment
from export.benchmark.measure import calls_per_turn, interleave
from export.benchmark.statistics import mean_interval, paired_ratio
from export.lowering import chosen
from export.parity import prepared
from zoo import cli
from zoo.catalog import complexity
from zoo.cli import portable
from zoo.layers import FAMILIES, STATIC, fold
from zoo.training import memory
from zoo.training.augment import Augmentation
from zoo.training.checkpoint import FILE, load_weights
from zoo.training.data import Split, first, load_cifar10
from zoo.training.evaluate import place, probabilities
from zoo.training.loop import train
from zoo.training.recipe import Recipe

Sizes = Mapping[str, Any]

_LATE: tuple[Sizes, ...] = ({}, {"stages": (2, 3)}, {"stages": (3,)})

#: What is compared for each backbone: families and sizes of theirs, each beside what is left at its default,
#: or the stages that are dynamic, where these are not all.
COMPARED: dict[str, tuple[tuple[str, Sizes], ...]] = {
    "resnet10": (
        ("fgk", {"embedding_dim": 2}),
        ("fgk", {"embedding_dim": 4}),
        ("fgk", {"embedding_dim": 9}),
        ("fgk", {"hidden_dim": 32}),
        ("dpk", {"bank_size": 2}),
        ("dpk", {"bank_size": 4}),
        ("dpk", {"bank_size": 8}),
        ("dpk", {"key_dim": 16}),
        ("kw", {"vector_dim": 1}),
        ("kw", {"vector_dim": 4}),
        ("kw", {"vector_dim": 9}),
        ("kwb", {"blocks": 1}),
        ("kwb", {"blocks": 4}),
        ("condconv", {"num_experts": 2}),
        ("condconv", {"num_experts": 4}),
    ),
    "mobilenetv3_small_100": (
        *product(("kw", "fgk", "condconv", "dyconv", "dpk"), _LATE),
        ("kw", {"vector_dim": 1}),
        ("kw", {"vector_dim": 9}),
        ("fgk", {"embedding_dim": 2}),
        ("fgk", {"embedding_dim": 9}),
        ("fgk", {"hidden_dim": 32}),
        ("condconv", {"num_experts": 2}),
        ("dyconv", {"num_experts": 2}),
        ("dpk", {"bank_size": 2}),
    ),
}

BATCHES = (1, 8)
SIZE = (3, 32, 32)
_ROUNDS = 15


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(words)
    cli.check_counts(options, "images", "test_images", "epochs", "threads")
    check_folder(options.out)
    static = zoo.models.check_name(f"{options.backbone}_{STATIC}")
    memory.keep_freed_memory()
    data = load_cifar10("train", options.data)
    test = first(load_cifar10("test", options.data), options.test_images)
    rows: list[dict[str, Any]] = []
    facts, answers = environment(), []
    with tempfile.TemporaryDirectory() as folder:
        artifacts = []
        for number, (family, sizes) in enumerate([(STATIC, {}), *COMPARED[options.backbone]]):
            model = network(static, family, sizes, options.pretrained)
            learn(model, recipe(static, options), data)
            right = probabilities(place(model), test).argmax(dim=1) == test.labels
            answers.append(100 * right.double().numpy())
            found = figures(model) | {"top1": round(float(answers[-1].mean()), 2)}
            if number:  # the same images are hard for both: pairs tell more than two means do
                found["over_static"] = [round(each, 2) for each in mean_interval(answers[-1] - answers[0])]
            rows.append({"family": family, "sizes": dict(sizes), **found})
            artifacts.append(Path(folder) / f"{number}.onnx")
            export.onnx.export(model, artifacts[-1])
            print(f"{family} {dict(sizes)}: {rows[-1]['top1']:.1f} % of {len(test):,} images", flush=True)
        predicts = [runtime("onnx").load(path, threads=1) for path in artifacts]
        for batch in BATCHES:
            for row, tax in zip(rows, taxes(predicts, (batch, *SIZE)), strict=True):
                row.setdefault("tax", {})[str(batch)] = round(tax, 3)
    record = {
        "model": options.backbone,
        "pretrained": options.pretrained,
        "recipe": recipe(static, options).to_dict(),
        "test_images": len(test),
        "environment": facts,
        "command": shlex.join(["python", "docs/sizes.py", *map(portable, words)]),
        "rows": rows,
    }
    with cli.atomic_path(options.out / f"sizes_{options.backbone}.json") as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def recipe(static: str, options: argparse.Namespace) -> Recipe:
    """Return how every network is trained: small images at first, kernels shared by a few for speed.

    Trained weights go on at full size, with kernels of their own.
    """
    common: dict[str, Any] = {
        "images_per_epoch": options.images,
        "batch_size": min(128, options.images),
        "augmentation": Augmentation(upright=0.5),
        "ema_decay": 0.99,
        "amp": options.amp,
        "channels_last": options.channels_last,
        "threads": options.threads,
    }
    if options.pretrained:
        # A seed that no recipe has: images that the weights have seen would come again, warped alike.
        return Recipe(static, phases=((32, options.epochs),), lr=5e-4, seed=3, **common)
    phases = ((16, options.epochs), (32, 1))
    return Recipe(static, phases=phases, shared_epochs=options.epochs + 1, shared_images=16, **common)


def network(static: str, family: str, sizes: Sizes, pretrained: bool = False) -> nn.Module:
    """Return a static network, or its dynamic version with some sizes or stages.

    Args:
        static: the network's name.
        family: of its layers.
        sizes: of theirs, or ``stages``.
        pretrained: whether it has published weights, a dynamic one as nearly as the family can hold them.
    """
    torch.manual_seed(0)
    model = timm.create_model(static, pretrained=pretrained)
    if family == STATIC:
        return model
    return zoo.dynamize(
        model, family, warm_start=pretrained and FAMILIES[family].holds_static is not None, **sizes
    )


def learn(model: nn.Module, how: Recipe, data: Split) -> None:
    """Train a network and give it its averaged weights, in place."""
    with tempfile.TemporaryDirectory() as folder:
        train(how, model, data, Path(folder))
        load_weights(model, Path(folder) / FILE)
    model.eval()


def figures(model: nn.Module) -> dict[str, Any]:
    """Return ``params`` that a network learns and ``macs`` for an image as deployed."""
    way = ExportOptions(input_size=SIZE)
    deployed = fold(prepared(model, chosen(runtime("onnx"), model, way), runtime("onnx")))
    return {
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "macs": complexity(deployed.to("meta"), SIZE).macs,
    }


def taxes(predicts: Sequence[Predict], shape: tuple[int, ...]) -> list[float]:
    """Return the time of each artifact over the first one's right beside it, the median over rounds."""
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    calls = [partial(predict, images) for predict in predicts]
    turns = [calls_per_turn(call) for call in calls]
    _, *others = interleave(calls, turns, _ROUNDS, [None, *[0] * (len(calls) - 1)])
    return [1.0, *(paired_ratio(seen.own, seen.partner).value for seen in others)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python docs/sizes.py", description=__doc__.splitlines()[0])
    add: Any = parser.add_argument
    add("--backbone", default="resnet10", choices=COMPARED, help="default: resnet10")
    add("--data", metavar="DIR", help="folder of parquet files (default: torchvision's download)")
    add("--images", type=int, default=5000, metavar="N", help="an epoch (default: 5000)")
    add("--test-images", type=int, default=4000, metavar="N", help="default: 4000")
    add("--epochs", type=int, default=4, metavar="N", help="at 16 px, before one at 32 (default: 4)")
    add("--pretrained", action="store_true", help="start from published weights; all epochs are at 32 px")
    add("--amp", choices=["bf16", "no"], default="no", help="precision of the training (default: no)")
    toggle = argparse.BooleanOptionalAction
    add("--channels-last", action=toggle, help="train as NHWC or NCHW (default: as zoo.train)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads of the training (default: 1)")
    add("--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="default: beside this file")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
