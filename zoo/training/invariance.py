"""What a classifier makes of an image that is turned, zoomed or sheared.

The question dynamic kernels raise is whether kernels made for the image follow its viewpoint. So a model is
measured against each transformation alone, step by step, next to its static twin.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.cli import atomic_path
from zoo.errors import ZooError
from zoo.pretrained import read_manifest, weights_dir
from zoo.training.augment import inverse_affine
from zoo.training.data import Split
from zoo.training.evaluate import probabilities

FILE = "evaluation.json"

STEPS: dict[str, tuple[float, ...]] = {
    "rotation": tuple(range(0, 360, 15)),
    "scale": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5),
    "shear": tuple(range(-30, 31, 5)),
}
"""By transformation, where accuracy is measured: degrees, zoom factor, degrees along x."""

NEUTRAL: dict[str, float] = {"rotation": 0, "scale": 1.0, "shear": 0}
"""By transformation, the step that leaves an image as it is."""


def curves(model: nn.Module, split: Split, *, batch_size: int | None = None) -> dict[str, Any]:
    """Measure a classifier along every transformation of :data:`STEPS`.

    Args:
        model: a classifier.
        split: the images.
        batch_size: see :func:`zoo.training.evaluate.probabilities`.

    Returns:
        ``images``, their number; ``top1`` in percent and ``unchanged``, the percentage of images whose
        prediction is that for the upright image, both by transformation and step.
    """
    before = probabilities(model, split, batch_size=batch_size, title="upright").argmax(dim=1)
    found: dict[str, Any] = {"images": len(split), "top1": {}, "unchanged": {}}
    for name, steps in STEPS.items():
        found["top1"][name], found["unchanged"][name] = {}, {}
        for step in steps:
            maps = transformation(name, step, len(split))
            warped = probabilities(model, split, maps, batch_size=batch_size, title=f"{name} {step}")
            predicted = warped.argmax(dim=1)
            found["top1"][name][str(step)] = _percent(predicted == split.labels)
            found["unchanged"][name][str(step)] = _percent(predicted == before)
    return found


def transformation(name: str, step: float, count: int) -> Tensor:
    """Return ``count`` times the map (count, 2, 3) of a transformation about the image's centre.

    Args:
        name: a key of :data:`STEPS`.
        step: degrees clockwise, zoom factor, or degrees of shear along x.
        count: how many.
    """
    zero = torch.zeros(count)
    degrees = zero + step if name == "rotation" else zero
    scale = zero + step if name == "scale" else zero + 1
    shear = zero + step if name == "shear" else zero
    linear = inverse_affine(degrees, scale, shear, zero)
    return torch.cat([linear, torch.zeros(count, 2, 1)], dim=2)


def summary(name: str, found: Mapping[str, Any]) -> str:
    """Return :func:`curves` in a line: the :func:`curve_mean` of each transformation."""
    words = []
    for what in found["top1"]:
        right, same = (curve_mean(found, figure, what) for figure in ("top1", "unchanged"))
        words.append(f"{what} {right:.1f} % ({same:.1f} %)")
    return f"{name}: top-1 (unchanged predictions) of {found['images']} images, mean over {', '.join(words)}"


def read(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return what was measured of the published weights, by the name of the model.

    Curves of other weights than the manifest has now are left out.

    Raises:
        ZooError: the file is damaged.
    """
    folder = folder or weights_dir()
    path = folder / FILE
    if not path.is_file():
        return {}
    manifest = read_manifest(folder)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: of
            for name, of in found.items()
            if of.get("weights_sha256") == manifest.get(name, {}).get("sha256", "none")
        }
    except ValueError as error:
        raise ZooError(f"{path} is not valid JSON ({error}); restore it from the repository.") from None


def record(name: str, found: Mapping[str, Any], folder: Path | None = None) -> None:
    """Put a model's :func:`curves` into the file that the tables and pictures are made from.

    They are kept with the sha256 of its published weights, so that other weights do not go by them.
    """
    folder = folder or weights_dir()
    sha256 = read_manifest(folder)[name]["sha256"]
    known = {**read(folder), name: {**found, "weights_sha256": sha256}}
    with atomic_path(folder / FILE) as path:
        path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


def curve_mean(found: Mapping[str, Any], figure: str, what: str) -> float:
    """Return the mean of one of :func:`curves` over its steps.

    Args:
        found: what :func:`curves` returns.
        figure: ``top1``, or ``unchanged``, of which the step that changes nothing (:data:`NEUTRAL`) is left
            out: it is 100 % whatever the model.
        what: a key of :data:`STEPS`.
    """
    steps = [step for step in STEPS[what] if figure != "unchanged" or step != NEUTRAL[what]]
    return mean_over(found[figure][what], steps)


def mean_over(steps: Mapping[str, float], chosen: Sequence[float]) -> float:
    """Return the mean over some steps of one curve."""
    return sum(steps[str(step)] for step in chosen) / len(chosen)


def _percent(hits: Tensor) -> float:
    return round(100 * float(hits.double().mean()), 2)
