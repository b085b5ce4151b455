"""CIFAR-10 as tensors, from torchvision's download or from a folder of parquet files."""

import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.pretrained import CIFAR10_CLASSES
from zoo.training._require import require
from zoo.training.processes import progress_bar

SIDE = 32

SplitName = Literal["train", "test"]


@dataclass(frozen=True)
class Split:
    """One split of the data, decoded and held in memory.

    Attributes:
        images: (N, 3, 32, 32), uint8.
        labels: (N,), int64, indices into ``classes``.
        classes: names of the classes.
        source: where the data came from, for people.
        sha256: hash of the files read, their bytes taken in order of name.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    source: str
    sha256: str

    def __len__(self) -> int:
        return len(self.labels)

    def is_of(self, measured: Mapping[str, Any]) -> bool:
        """Tell whether figures or curves with a ``data`` as :meth:`describe` returns are of these files."""
        return measured.get("data", {}).get("sha256") == self.sha256

    def describe(self, note: str | None = None) -> dict[str, Any]:
        """Return what the weights manifest keeps about the data.

        Args:
            note: what to say beside the source, such as how the images were compressed.

        Returns:
            ``source``, ``note`` and ``sha256``.
        """
        return {"source": self.source, "note": note, "sha256": self.sha256}


def first(split: Split, count: int) -> Split:
    """Return the first ``count`` images of a split, or all of them where there are fewer."""
    return replace(split, images=split.images[:count], labels=split.labels[:count])


def hold_out(split: Split, count: int) -> tuple[Split, Split]:
    """Return a split without its last ``count`` images, and these.

    Raises:
        ZooError: none would be left to learn from.
    """
    left = len(split) - count
    if left < 1:
        raise ZooError(
            f"{count} images cannot be held out of the {len(split)} in {split.source}; hold out fewer."
        )
    held = replace(split, images=split.images[left:], labels=split.labels[left:])
    return first(split, left), held


def load_cifar10(
    split: SplitName, folder: str | os.PathLike | None = None, download_root: str | os.PathLike | None = None
) -> Split:
    """Load a split of CIFAR-10.

    Args:
        split: ``train`` (50,000 images) or ``test`` (10,000).
        folder: a folder in the Hugging Face parquet layout: ``*.parquet`` files, themselves or in ``data/``,
            with the split in their names and the columns ``img`` (a struct with ``bytes``) and ``label``.
            None downloads the original through torchvision.
        download_root: where downloads are kept; None means ``$ZOO_DATA``, or else
            ``~/.cache/dynamic-kernel-zoo``.

    Raises:
        ZooError: the data is missing, unreadable, or not CIFAR-10 shaped.
    """
    if folder is not None:
        return _from_parquet(split, Path(folder))
    root = download_root or os.environ.get("ZOO_DATA") or Path.home() / ".cache" / "dynamic-kernel-zoo"
    return _from_torchvision(split, Path(root))


def _from_torchvision(split: SplitName, root: Path) -> Split:
    from torchvision.datasets import CIFAR10

    try:
        dataset = CIFAR10(root, train=split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise ZooError(
            f"cannot get CIFAR-10 into {root}: {error}. "
            "Check the connection, or give a folder of parquet files with --data."
        ) from None
    files = [root / CIFAR10.base_folder / name for name, _ in dataset.train_list + dataset.test_list]
    wanted = "test" if split == "test" else "data"
    return Split(
        torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(dataset.targets),
        tuple(dataset.classes),
        f"CIFAR-10, torchvision download, {split}",
        _sha256(file for file in files if file.name.startswith(wanted)),
    )


def _from_parquet(split: SplitName, folder: Path) -> Split:
    if not folder.is_dir():
        raise ZooError(
            f"there is no data folder {folder}; give one that holds parquet files, or leave --data out."
        )
    found = sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")])
    files = [file for file in found if split in file.stem.lower()]
    if not files:
        seen = ", ".join(file.name for file in found) or "no parquet file at all"
        raise ZooError(f"{folder} holds no parquet file with {split!r} in its name (it holds {seen}).")

    encoded: list[bytes | None] = []
    labels: list[int | None] = []
    for file in files:
        images_of, labels_of = _read(file)
        encoded += images_of
        labels += labels_of
    if not encoded:
        raise ZooError(f"the {split} split in {folder} is empty: its parquet files have no rows.")
    where = f"of the {split} split in {folder}"
    for row, label in enumerate(labels):
        if label is None or not 0 <= label < len(CIFAR10_CLASSES):
            raise ZooError(f"label {label} in row {row} {where} is not a CIFAR-10 class, 0 to 9.")
    bar = progress_bar(encoded, desc=f"decode {split}", unit=" images")
    images = torch.stack([_decode(data, f"row {row} {where}") for row, data in enumerate(bar)])
    source = f"CIFAR-10, parquet folder {folder.resolve().name}, {split}"
    return Split(images, torch.tensor(labels), CIFAR10_CLASSES, source, _sha256(files))


def _read(file: Path) -> tuple[list[bytes | None], list[int | None]]:
    """Return the encoded images and the labels of one parquet file."""
    arrow = require("pyarrow")
    parquet = require("pyarrow.parquet")
    try:
        # One file, opened as such: a folder called split=... above it must not become a column.
        table = parquet.ParquetFile(file).read(columns=["img", "label"])
    except (arrow.ArrowException, OSError) as error:
        raise ZooError(f"{file} cannot be read as parquet ({error}); download it again.") from None
    missing = {"img", "label"} - set(table.column_names)
    if missing:
        lacking = " and ".join(sorted(missing))
        raise ZooError(f"{file} lacks the column {lacking}; CIFAR-10 needs img and label.")
    struct, integer = table.schema.field("img").type, table.schema.field("label").type
    if not arrow.types.is_struct(struct) or struct.get_field_index("bytes") < 0:
        raise ZooError(f"the column img of {file} is {struct}; expected a struct with a field bytes.")
    if not arrow.types.is_integer(integer):
        raise ZooError(f"the column label of {file} is {integer}; expected integers.")
    column = table.column("img").combine_chunks()
    return column.field("bytes").to_pylist(), table.column("label").to_pylist()


def _decode(data: bytes | None, where: str) -> Tensor:
    """Return one image as uint8 (3, 32, 32)."""
    import numpy
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            pixels = numpy.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises, by format
        reason = type(error).__name__
        raise ZooError(f"the image in {where} cannot be decoded ({reason}); get the file again.") from None
    height, width = pixels.shape[:2]
    if (height, width) != (SIDE, SIDE):
        raise ZooError(f"the image in {where} is {width}x{height} pixels; CIFAR-10 images are {SIDE}x{SIDE}.")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _sha256(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
