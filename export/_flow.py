"""The one way from a model to a certified artifact, whatever the format.

The artifact is written to a temporary file in the folder of its name, certified there, and gets its name,
together with its certificate, only when it has passed.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from export._metadata import Weights, describe, name_of, to_strings
from export.base import ExportOptions, Predict, Runtime, first_line, installed
from export.certificate import Certificate, CertificateError
from export.parity import certify, prepared, reference
from zoo.cli import atomic_path
from zoo.errors import ZooError
from zoo.models import create_model
from zoo.pretrained import file_sha256, manifest_entry


def export(
    runtime: Runtime,
    model: nn.Module | str,
    path: str | os.PathLike,
    options: ExportOptions,
    images: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    metadata: dict[str, str] | None = None,
    weights: Weights | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Certificate:
    """Write a certified artifact; the arguments and errors are those of :func:`export.onnx.export`.

    Args:
        weights: where the weights of a module came from.
        say: takes a line of progress.
    """
    path = Path(path)
    preflight(runtime, path, options)
    if isinstance(model, str):
        model, weights = load_model(model)
    weights = weights or Weights("given in memory")
    size = _input_size(model, options)
    options = replace(options, input_size=size)
    expected = reference(model)
    outputs = _count_outputs(expected, name_of(model), size)
    if images is not None:
        _check_images(images, size)
    lowered = prepared(model, options.lowering)
    facts = describe(model, lowered, runtime, options, outputs, weights, class_names)
    stored = {**facts, **(metadata or {})}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(f"{facts['model']}: {parameters / 1e6:.2f} M parameters, {weights.origin}")

    with atomic_path(certificate_path(path)) as record, atomic_path(path) as artifact:
        start = time.perf_counter()
        runtime.export(lowered, artifact, options)
        seconds = time.perf_counter() - start
        say(f"exported to {runtime.title}, {_choices(facts, options)}, in {seconds:.1f} s")
        certificate = certify(
            runtime.load(artifact),
            expected,
            size,
            exact=reference(model, torch.float64),
            batch=options.batch,
            images=images,
            pixels=_pixels(facts),
            runtime=f"{runtime.packages[-1]} {installed(runtime.packages[-1])}, cpu",
        )
        if not certificate.passed:
            raise CertificateError(certificate, str(path))
        runtime.annotate(artifact, to_strings({**stored, "certificate": certificate.to_json()}))
        content = artifact.read_bytes()
        identity = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        record.write_text(certificate.to_json(artifact=identity, about=stored) + "\n", encoding="utf-8")
    say(certificate.summary())
    say(
        f"certified: max relative error {certificate.max_rel:.1e} over {certificate.images} images; "
        f"wrote {path} ({len(content) / 1e6:.1f} MB)"
    )
    return certificate


def preflight(runtime: Runtime, path: Path, options: ExportOptions) -> None:
    """Refuse at once what would otherwise fail after minutes.

    Raises:
        ZooError: the artifact cannot be written to ``path``, certified here, or made with these options.
    """
    if path.is_dir():
        raise ZooError(f"cannot write {path}: it is a folder; give a file name.")
    if not path.parent.is_dir():
        raise ZooError(f"cannot write {path}: the folder {path.parent} does not exist; create it first.")
    if not os.access(path.parent, os.W_OK):
        raise ZooError(f"cannot write {path}: the folder {path.parent} is not writable; choose another.")
    if reason := runtime.available():
        raise ZooError(f"cannot certify {runtime.title} here: {reason}.")
    runtime.check(options)


def load_model(
    name: str, pretrained: bool = True, checkpoint: Path | None = None, **kwargs: Any
) -> tuple[nn.Module, Weights]:
    """Return one of the zoo's models and where its weights came from: a checkpoint, or else pretraining."""
    model = create_model(name, pretrained=pretrained, checkpoint=checkpoint, **kwargs)
    if checkpoint is not None:
        digest = file_sha256(checkpoint, checkpoint.stat().st_mtime_ns)
        return model, Weights(f"weights of {checkpoint.name}", digest)
    if pretrained:
        return model, Weights("pretrained weights", (manifest_entry(name) or {}).get("sha256", ""))
    return model, Weights("random weights")


def certificate_path(path: Path) -> Path:
    """Return where the certificate of the artifact at ``path`` lies.

    The suffix stays in the name, so that two formats of one model do not share a certificate.
    """
    return path.with_name(f"{path.name}.certificate.json")


def _input_size(model: nn.Module, options: ExportOptions) -> tuple[int, int, int]:
    config = getattr(model, "pretrained_cfg", None) or {}
    size = options.input_size or config.get("input_size")
    if size is None:
        cure = "give input_size=(channels, height, width)"
        raise ZooError(f"{name_of(model)} does not say its input size; {cure}.")
    channels, height, width = size
    return channels, height, width


def _count_outputs(expected: Predict, name: str, size: tuple[int, int, int]) -> int:
    """Run one input through the eager model: what it cannot take, no artifact of it can."""
    try:
        logits = expected(np.zeros((1, *size), np.float32))
    except (RuntimeError, ValueError) as error:
        shape = "x".join(map(str, size))
        raise ZooError(
            f"{name} cannot take inputs of {shape} ({first_line(error)}); give another size."
        ) from error
    except (AttributeError, TypeError) as error:
        what = "must map one tensor (N, C, H, W) to one tensor (N, classes)"
        raise ZooError(f"{name} {what}: {first_line(error)}.") from error
    return logits.shape[-1]


def _check_images(images: np.ndarray, size: tuple[int, int, int]) -> None:
    if images.dtype != np.float32 or images.shape[1:] != size or not len(images):
        raise ZooError(
            f"images of shape {images.shape}, {images.dtype}, do not fit the model; "
            f"give normalised float32 images of shape (N, {', '.join(map(str, size))})."
        )


def _pixels(facts: dict) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the normalised values of a black and of a white pixel."""
    if len(facts.get("mean", ())) != facts["input_size"][0]:
        return None
    mean, std = np.array(facts["mean"]), np.array(facts["std"])
    return -mean / std, (1 - mean) / std


def _choices(facts: dict, options: ExportOptions) -> str:
    counts = Counter(facts.get("lowerings", {}).values())
    found = ", ".join(f"{count} x {name}" for name, count in counts.items()) or "no dynamic layer"
    batch = "dynamic batch" if options.batch is None else f"batch {options.batch}"
    return f"{batch}, lowering {options.lowering} ({found})"
