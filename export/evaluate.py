"""What an artifact gets right: ``python -m export.evaluate resnet18_fgk.onnx --data DIR``.

Runs files of any format on the test images of CIFAR-10, as they will be deployed: in fewer bits, with their
own normalisation, in the library that runs them. A certificate says how far an artifact is from its model;
this says what that costs.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from export.base import RUNTIMES, Predict, Runtime, runtime
from export.benchmark.environment import environment
from export.benchmark.text import aligned
from export.ends import PixelEnds
from zoo.cli import atomic_path, check_counts, check_writable, portable, run
from zoo.errors import ZooError
from zoo.pretrained import CIFAR10_CLASSES, read_manifest
from zoo.training.augment import normalise
from zoo.training.data import SIDE, Split, first, load_cifar10
from zoo.training.evaluate import BATCH_SIZES
from zoo.training.processes import progress_bar

FORMAT = "artifacts 1"

_NEEDED = ("model", "output", "batch", "input_size", "dtype", "mean", "std")
_JSON = ("batch", "input_size", "class_names", "mean", "std")


@dataclass(frozen=True)
class Artifact:
    """A file of one of the formats, and what it says of itself.

    Attributes:
        path: of the file.
        runtime: of its format.
        about: its metadata, with what is no text decoded.
    """

    path: Path
    runtime: Runtime
    about: dict[str, Any]

    @property
    def side(self) -> int:
        """Height and width of its inputs."""
        return self.about["input_size"][-1]

    @property
    def batch(self) -> int | None:
        """The one batch size that it takes, None for any."""
        return None if self.about["batch"] == "dynamic" else int(self.about["batch"])

    def takes(self, pixels: Tensor) -> np.ndarray:
        """Return images (N, 3, 32, 32), uint8, as the artifact takes them: of its size, normalised by it."""
        mean, std = tuple(self.about["mean"]), tuple(self.about["std"])
        images = normalise(pixels, self.side, mean, std).numpy()
        return PixelEnds(mean, std).given(images) if self.about["output"] == PixelEnds.output else images

    def check(self, classes: Sequence[str]) -> None:
        """Raise a :class:`ZooError` where it is not for square colour images of these classes."""
        if tuple(self.about.get("class_names") or ()) != tuple(classes):
            said = ", ".join(self.about.get("class_names") or ["no names"])
            raise ZooError(f"{self.path} tells other classes apart ({said}) than {', '.join(classes)}.")
        channels, height, width = self.about["input_size"]
        if channels != 3 or height != width:
            raise ZooError(
                f"{self.path} takes images of {channels} x {height} x {width}; these are square, in colour."
            )


@dataclass(frozen=True)
class Accuracy:
    """What an artifact gets right.

    Attributes:
        file: its name.
        model: what was exported.
        format: a key of :data:`export.base.RUNTIMES`.
        provider: it ran on.
        dtype: it computes in.
        megabytes: of the file.
        images: how many.
        top1: in percent.
        weights_top1: of its weights on the same images, where the manifest has that.
    """

    file: str
    model: str
    format: str
    provider: str
    dtype: str
    megabytes: float
    images: int
    top1: float
    weights_top1: float | None


def read(path: Path, provider: str = "cpu") -> Artifact:
    """Return the artifact at ``path``; its suffix says of which format it is.

    Args:
        path: of the file.
        provider: what will run it.

    Raises:
        ZooError: there is no such file, no format has its suffix, its library is missing or cannot
            load it, or it does not say what it takes.
    """
    if not path.is_file():
        raise ZooError(f"there is no file {path}.")
    known = {name: runtime(name) for name in RUNTIMES}
    fits = [each for each in known.values() if path.name.endswith(each.suffix)]
    if not fits:
        suffixes = ", ".join(each.suffix for each in known.values())
        raise ZooError(f"{path} has no suffix of a format; give a file that ends in one of {suffixes}.")
    own = max(fits, key=lambda each: len(each.suffix))
    if reason := own.available(provider):
        raise ZooError(f"cannot run {path} on {provider}: {reason}.")
    stored = own.metadata(path)
    if missing := [name for name in _NEEDED if name not in stored]:
        raise ZooError(f"{path} does not say its {missing[0]}; export it with python -m export.{own.name}.")
    about = {name: _decoded(value) if name in _JSON else value for name, value in stored.items()}
    return Artifact(path, own, about)


def top1(artifact: Artifact, predict: Predict, split: Split) -> float:
    """Return the share of images that an artifact gets right, in percent.

    Args:
        artifact: of a classifier into the classes of ``split``.
        predict: it as a function.
        split: the images.

    Raises:
        ZooError: it is for other images.
    """
    artifact.check(split.classes)
    count = artifact.batch or BATCH_SIZES["cpu"]
    right = 0
    for start in progress_bar(range(0, len(split), count), desc=artifact.path.name, unit=" batches"):
        labels = split.labels[start : start + count].numpy()
        images = artifact.takes(split.images[start : start + count])
        if artifact.batch is not None:  # the last batch is filled up
            images = np.resize(images, (count, *images.shape[1:]))
        right += int((predict(images)[: len(labels)].argmax(axis=1) == labels).sum())
    return 100 * right / len(split)


def measure(artifact: Artifact, split: Split, provider: str = "cpu", threads: int | None = None) -> Accuracy:
    """Run an artifact on all images of a split.

    Args:
        artifact: of a classifier into the classes of ``split``.
        split: the images.
        provider: one of its runtime's.
        threads: how many threads an operator may use; None leaves it to the library.

    Raises:
        ZooError: it is for other images, or the provider cannot run here.
    """
    about, own = artifact.about, artifact.runtime
    found = top1(artifact, own.load(artifact.path, provider, threads), split)
    return Accuracy(
        file=artifact.path.name,
        model=about["model"],
        format=own.name,
        provider=provider,
        dtype=about["dtype"],
        megabytes=round(artifact.path.stat().st_size / 1e6, 2),
        images=len(split),
        top1=round(found, 2),
        weights_top1=_weights_top1(about.get("weights_sha256"), split) if artifact.side == SIDE else None,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser("python -m export.evaluate", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="artifacts of any format")
    add("--data", metavar="DIR", help="folder of parquet files (default: torchvision's download)")
    add("--images", type=int, metavar="N", help="the first so many test images (default: all)")
    add("--provider", default="cpu", help="what runs them, as python -m export lists (default: cpu)")
    add("--threads", type=int, metavar="N", help="that an operator may use (default: the library's choice)")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file")
    args = parser.parse_args(words)
    check_counts(args, "images", "threads")
    check_writable(args.json)
    artifacts = [read(path, args.provider) for path in args.files]
    for each in artifacts:
        each.check(CIFAR10_CLASSES)
    split = load_cifar10("test", args.data)
    if args.images is not None:
        split = first(split, args.images)
    rows = [measure(each, split, args.provider, args.threads) for each in artifacts]
    print(table(rows))
    if args.json is not None:
        record = {
            "format": FORMAT,
            "command": shlex.join(["python", "-m", "export.evaluate", *map(portable, words)]),
            "environment": environment(),
            "data": split.describe(),
            "rows": [asdict(row) for row in rows],
        }
        with atomic_path(args.json) as path:
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def table(rows: Sequence[Accuracy]) -> str:
    """Return figures laid out for a terminal."""
    header = ["file", "runs as", "dtype", "MB", "images", "top-1 %", "of the weights %"]
    cells = [
        [
            row.file,
            f"{row.format}, {row.provider}",
            row.dtype,
            f"{row.megabytes:.1f}",
            f"{row.images:,}",
            f"{row.top1:.2f}",
            "" if row.weights_top1 is None else f"{row.weights_top1:.2f}",
        ]
        for row in rows
    ]
    return aligned([header, *cells], "lll" + "r" * 4)


def _weights_top1(sha256: str | None, split: Split) -> float | None:
    for entry in read_manifest().values():
        figures = entry.get("figures") or {}
        if entry["sha256"] == sha256 and split.is_of(figures) and figures.get("images") == len(split):
            return figures["top1"]
    return None


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:  # a dynamic batch is a word
        return value


if __name__ == "__main__":
    raise SystemExit(run(main))
