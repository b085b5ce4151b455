"""Trained weights: where they lie, what the manifest says of them, and how they are checked and stored.

``weights/manifest.json`` is the single source of every figure this project reports. It maps a model's name to
an entry with ``file``, ``sha256``, ``bytes``, how the weights were made (``recipe``, ``epochs``, ``seed``,
``data``, ``versions``) and what they reach (``figures``).

python -m zoo.pretrained card resnet18_kw    # and the other commands of zoo.hub
"""

import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo.cli import atomic_path, run
from zoo.errors import ZooError

#: CIFAR-10's classes, in the order of the labels.
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
TAG = "cifar10"
MANIFEST = "manifest.json"
#: Prefix of the averaged weights in a training run's checkpoint.
AVERAGED = "ema."
_THREADS = re.compile(r", \d+ threads?$")
#: Empty. Without one, Python warns that ``python -m zoo.pretrained`` runs what the package has imported.
__path__: list[str] = []


def weights_dir() -> Path:
    """Return the folder of weights: ``$ZOO_WEIGHTS``, else the installed package's, else the checkout's."""
    if chosen := os.environ.get("ZOO_WEIGHTS"):
        return Path(chosen).absolute()
    package = Path(__file__).resolve().parent
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


def read_manifest(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Read the manifest as a dict from model name to entry; a folder without one has no entries.

    Raises:
        ZooError: the manifest is not valid JSON, or an entry lacks what identifies its file.
    """
    path = (folder or weights_dir()) / MANIFEST
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ZooError(f"{path} is not valid JSON ({error}); restore it from the repository.") from None
    whole = isinstance(manifest, dict) and all(
        isinstance(entry, dict) and {"file", "sha256", "bytes"} <= entry.keys() for entry in manifest.values()
    )
    if not whole:
        raise ZooError(
            f"{path} does not name file, sha256 and bytes of each model; restore it from the repository."
        )
    return manifest


def manifest_entry(name: str) -> dict[str, Any] | None:
    """Return the manifest's entry of a model, or None where it has no trained weights.

    ``name`` may carry a tag (``resnet18_kw.cifar10``).
    """
    return read_manifest().get(name.split(".")[0])


def lineage(entry: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return a run and those that it goes on from, the latest first.

    Args:
        entry: of the manifest, or what one has as ``started_from``; None stands for no run.
    """
    return [entry, *lineage(entry.get("started_from"))] if entry else []


def images_seen(entry: Mapping[str, Any] | None) -> int:
    """Count the images behind a manifest entry, those of the runs it started from included.

    Args:
        entry: of the manifest, or what one has as ``started_from``; None counts as 0.
    """
    return sum(run["images_seen"] for run in lineage(entry))


def devices(entry: Mapping[str, Any]) -> list[str | None]:
    """Return what each run behind a manifest entry computed on, in their order; None: not recorded.

    Args:
        entry: of the manifest.
    """
    return [run.get("device") for run in reversed(lineage(entry))]


def trained_on(entry: Mapping[str, Any], brief: bool = False) -> str:
    """Return :func:`devices` as words, each device once, whatever its threads.

    Args:
        entry: of the manifest.
        brief: whether every processor is just a ``CPU``.
    """
    each_device = (device or "unrecorded" for device in devices(entry))
    # A run that went on elsewhere names both.
    names = [_THREADS.sub("", name) for device in each_device for name in device.split(", then ")]
    if brief:
        names = ["CPU" if name.startswith("CPU ") else name for name in names]
    return ", then ".join(dict.fromkeys(names))


def pretrained_cfg(name: str) -> dict[str, Any]:
    """Return the part of timm's ``pretrained_cfg`` that the manifest decides: file, labels, license."""
    entry = manifest_entry(name)
    if entry is None:
        return {}
    return {
        "file": str(weights_dir() / entry["file"]),
        "custom_load": False,
        "label_names": list(CIFAR10_CLASSES),
        "license": "apache-2.0",
    }


def verify_weights(name: str, path: str | Path) -> None:
    """Check the weights file of a model against the manifest.

    A file the manifest does not know (another model's, or a user's own) is left to the loader.

    Raises:
        ZooError: the manifest's file is missing, truncated or altered.
    """
    entry = manifest_entry(name)
    path = Path(path)
    if entry is None or path != weights_dir() / entry["file"]:
        return
    cure = "restore it from the repository (git checkout, or reinstall the package)"
    if not path.is_file():
        raise ZooError(f"the weights of {name} are missing: {path} does not exist; {cure}.")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ZooError(
            f"the weights of {name} are damaged: {path} has {size} bytes, not {entry['bytes']}; {cure}."
        )
    found = file_sha256(path, path.stat().st_mtime_ns)
    if found != entry["sha256"]:
        raise ZooError(
            f"the weights of {name} are altered: {path} has sha256 {found[:12]}..., "
            f"not {entry['sha256'][:12]}...; {cure}."
        )


@functools.lru_cache(maxsize=64)
def file_sha256(path: Path, _modified: int = 0) -> str:
    """Return the sha256 of a file in hex; ``_modified`` keys the cache, so an edited file is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file of parameters and buffers.

    Raises:
        ZooError: the file is missing, or not a whole safetensors file. Pickles are never loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise ZooError(f"no checkpoint at {path}; give the path of a .safetensors file.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ZooError(f"{path} is not a readable safetensors file ({error}); it may be cut short.") from None


def load_into(model: nn.Module, path: str | Path) -> None:
    """Load a safetensors file into a model, all names and shapes matching.

    Args:
        model: changed in place.
        path: plain weights, or the checkpoint of a training run, of which the averaged weights are taken.

    Raises:
        ZooError: see :func:`load_checkpoint`; or the file belongs to another model.
    """
    state = load_checkpoint(path)
    averaged = {key.removeprefix(AVERAGED): value for key, value in state.items() if key.startswith(AVERAGED)}
    fit(model, averaged or state, path)


def fit(model: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Load tensors into a model, all names and shapes matching.

    Args:
        model: changed in place.
        state: parameters and buffers.
        source: where they are from, for the error.

    Raises:
        ZooError: they belong to another model.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    names = wanted.keys() | found.keys()
    different = sorted(name for name in names if wanted.get(name) != found.get(name))
    if different:
        name = different[0]
        raise ZooError(
            f"{source} does not fit the model: {len(different)} of {len(names)} tensors differ, "
            f"the first is {name} (model {wanted.get(name, 'has none')}, file {found.get(name, 'has none')})."
        )
    model.load_state_dict(state)


def publish(name: str, state: dict[str, Tensor], entry: dict[str, Any], folder: Path | None = None) -> Path:
    """Store trained weights as fp16 safetensors and their entry in the manifest.

    Args:
        name: the model's name.
        state: its parameters and buffers; floats are stored as fp16, integers as they are.
        entry: what the manifest says beside ``file``, ``sha256`` and ``bytes``.
        folder: the weights folder; by default this installation's.

    Returns:
        The path of the weights file.

    Raises:
        ZooError: a weight does not fit fp16, or the folder cannot be written to.
    """
    folder = folder or weights_dir()
    path = folder / f"{name}.safetensors"
    half = {
        key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for key, value in state.items()
    }
    overflowed = [
        key for key, value in half.items() if value.is_floating_point() and not value.isfinite().all()
    ]
    if overflowed:
        raise ZooError(
            f"the weights of {name} do not fit fp16: {overflowed[0]} has values that are not finite."
        )
    with atomic_path(path) as temporary:
        # One key alone: safetensors writes several in any order, and equal weights are to be equal files.
        save_file(half, temporary, metadata={"format": "pt"})
        size = temporary.stat().st_size
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    _write_entry(name, {"file": path.name, "sha256": digest, "bytes": size, **entry}, folder)
    return path


def record_figures(name: str, figures: dict[str, Any], folder: Path | None = None) -> None:
    """Write measured figures into a model's entry, in place of those it has.

    Raises:
        ZooError: the manifest has no weights of that model.
    """
    folder = folder or weights_dir()
    entry = read_manifest(folder).get(name)
    if entry is None:
        raise ZooError(f"the manifest has no weights of {name}; train and publish them first.")
    entry["figures"] = figures
    _write_entry(name, entry, folder)


def _write_entry(name: str, entry: dict[str, Any], folder: Path) -> None:
    manifest = read_manifest(folder)
    manifest[name] = entry
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(dict(sorted(manifest.items())), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    from zoo.hub import main  # which imports this module

    sys.exit(run(main))
