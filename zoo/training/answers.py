"""Which test images every published model gets right, so that two of them can be held against each other.

Two networks are right and wrong on mostly the same images. How far apart they are rests on the others alone,
and is known better from these pairs than from the two accuracies.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from zoo.cli import atomic_path
from zoo.errors import ZooError
from zoo.pretrained import read_manifest, weights_dir

FILE = "answers.safetensors"


@dataclass(frozen=True)
class Answers:
    """What a model makes of N images, each as it is and then under the same warps for every model.

    Args:
        right: (1 + draws, N), bool: whether the likeliest class is the label; clean images first, then
            one row for every draw of warps (see :func:`zoo.training.evaluate.evaluate`).
        data_sha256: of the images.
    """

    right: Tensor
    data_sha256: str


def read(folder: Path | None = None) -> dict[str, Answers]:
    """Return the answers of the published weights, by the name of the model.

    Those of other weights than the manifest has now are left out.

    Args:
        folder: of the weights; None means :func:`zoo.pretrained.weights_dir`.

    Raises:
        ZooError: the file is damaged.
    """
    folder = folder or weights_dir()
    manifest = read_manifest(folder)
    return {
        name: Answers(_unpack(packed, about["images"]), about["data_sha256"])
        for name, (packed, about) in _stored(folder).items()
        if about["weights_sha256"] == manifest.get(name, {}).get("sha256")
    }


def record(name: str, answers: Answers, folder: Path | None = None) -> None:
    """Keep a model's answers beside the published weights, with the sha256 of these.

    Args:
        name: of the model, which the manifest has.
        answers: of its weights.
        folder: see :func:`read`.
    """
    folder = folder or weights_dir()
    about = {
        "weights_sha256": read_manifest(folder)[name]["sha256"],
        "data_sha256": answers.data_sha256,
        "images": answers.right.shape[1],
    }
    stored = {**_stored(folder), name: (_pack(answers.right), about)}
    tensors = {model: packed for model, (packed, _) in sorted(stored.items())}
    metadata = {model: json.dumps(of) for model, (_, of) in stored.items()}
    with atomic_path(folder / FILE) as path:
        save_file(tensors, path, metadata)


def _stored(folder: Path) -> dict[str, tuple[Tensor, dict]]:
    """Return packed answers and what is known of them, whatever weights they are of."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: (file.get_tensor(name), json.loads(of)) for name, of in file.metadata().items()}
    except SafetensorError as error:
        raise ZooError(f"{path} is damaged ({error}); restore it from the repository.") from None


def _pack(right: Tensor) -> Tensor:
    """Return eight answers a byte."""
    return torch.from_numpy(np.packbits(right.numpy(), axis=1))


def _unpack(packed: Tensor, count: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=count)).bool()
