"""The one way from a model to a certified artifact, whatever the format.

The artifact is written to a temporary file in the folder of its name, certified there, and gets its name,
together with its certificate, only when it has passed.
"""

import contextlib
import functools
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from export._inputs import check_images, count_outputs, input_size
from export._metadata import Weights, describe, name_of, to_strings
from export._trials import Draws, Trial
from export.base import FP16, FP32, INT8, ExportOptions, Predict, Runtime, first_line, installed
from export.certificate import Certificate, CertificateError
from export.ends import Ends, ends
from export.half import in_half
from export.lowering import chosen
from export.parity import TOLERANCE_FP16, certify, certify_int8, in_torch, measure, prepared, reference
from export.quantize import SHARE
from zoo.cli import atomic_path
from zoo.errors import ZooError
from zoo.layers import fold
from zoo.models import create_model
from zoo.pretrained import file_sha256, manifest_entry

_LEAST_IMAGES = 32
_FEW = 3


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
    threads: int | None = None,
) -> Certificate:
    """Write a certified artifact; the arguments and errors are those of :func:`export.onnx.export`.

    Args:
        weights: where the weights of a module came from.
        say: takes a line of progress.
        threads: that an operator may use while ``tune`` measures; None leaves it to the library. The
            certificate's runs are left to it always: what is computed does not depend on them.
    """
    path = Path(path)
    preflight(runtime, path, options)
    if isinstance(model, str):
        model, weights = load_model(model)
    weights = weights or Weights("given in memory")
    size = input_size(model, options)
    options = replace(options, input_size=size)
    outputs = count_outputs(reference(model), name_of(model), size)
    end = ends(model, options)

    def eager(dtype: torch.dtype) -> Predict:
        return end.through(reference(end.around(model), dtype))

    expected = eager(torch.float32)
    if images is not None:
        check_images(images, size)
    if options.dtype == INT8 and (images is None or len(images) < _LEAST_IMAGES):
        raise ZooError(
            f"{options.dtype} needs at least {_LEAST_IMAGES} images, one half to see ranges on and the other "
            "to certify with; give more."
        )
    inner = replace(options, preprocess=False)
    choice = chosen(runtime, model, inner, tuning_path(path), say, threads)
    lowered = prepared(model, choice, runtime)
    facts = describe(model, lowered, runtime, options, end, outputs, weights, class_names)
    stored = {**facts, **(metadata or {})}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(f"{facts['model']}: {parameters / 1e6:.2f} M parameters, {weights.origin}")

    record_path = certificate_path(path)
    ran_by = f"{runtime.packages[-1]} {installed(runtime.packages[-1])}, cpu"
    judged = functools.partial(
        certify, batch=options.batch, images=images, pixels=_pixels(facts), runtime=ran_by
    )

    def passed(certificate: Certificate) -> Certificate:
        if not certificate.passed:
            raise CertificateError(certificate, str(path))
        return certificate

    with _writing(path), atomic_path(record_path) as record, atomic_path(path) as artifact:
        start = time.perf_counter()
        network = fold(lowered)
        runtime.export(end.around(network), artifact, options)
        say(f"exported to {runtime.title}, {_choices(facts, options)}, in {_since(start)}")
        runtime.annotate(artifact, to_strings(stored))
        certificate = passed(
            judged(end.through(runtime.load(artifact)), expected, size, other_precision=eager(torch.float64))
        )
        about: dict[str, Any] = {}
        if options.dtype != FP32:
            # Coarser numbers err by more than some mistakes about batches do, so fp32 has to pass first.
            about["in_fp32"] = json.loads(certificate.to_json())
            stored = {**_coarsened(runtime, network, artifact, options, end, images, say), **stored}
            runtime.annotate(artifact, to_strings(stored))
            predict = end.through(runtime.load(artifact))
            if options.dtype == INT8:
                assert images is not None
                certificate = certify_int8(
                    predict, expected, images[1::2], batch=options.batch, runtime=ran_by
                )
            else:
                half = eager(torch.float16)
                certificate = judged(predict, expected, size, other_precision=half, tolerance=TOLERANCE_FP16)
                # A runtime may compute on a CPU in fp32 what is stored in fp16, and so never overflow there.
                inputs = Draws(np.random.default_rng(2), size).unlike(options.batch or _FEW)
                own = end.through(in_torch(end.around(in_half(network))))
                trial = Trial("computed in fp16 by torch", len(inputs), inputs, own, expected, half)
                certificate = replace(
                    certificate, checks=(*certificate.checks, measure(trial, TOLERANCE_FP16))
                )
            passed(certificate)
        inputs = np.random.default_rng(1).standard_normal((options.batch or 2, *size), dtype=np.float32)
        anew = end.through(_anew(runtime, artifact))
        certified = anew(inputs)
        runtime.annotate(artifact, to_strings({**stored, "certificate": certificate.to_json()}))
        shipped = measure(Trial("as shipped", len(inputs), inputs, anew, lambda _: certified), 0)
        if not shipped.passed:
            raise CertificateError(replace(certificate, checks=(*certificate.checks, shipped)), str(path))
        content = artifact.read_bytes()
        identity = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        record.write_text(
            certificate.to_json(artifact=identity, about=stored, **about) + "\n", encoding="utf-8"
        )
    say(certificate.summary())
    relaxed = len(certificate.relaxed)
    apart = f", {relaxed} of {len(certificate.checks)} checks relaxed" if relaxed else ""
    say(
        f"certified: max relative error {certificate.max_rel:.1e} over {certificate.images} images{apart}; "
        f"wrote {path} ({len(content) / 1e6:.1f} MB)"
    )
    return certificate


def preflight(runtime: Runtime, path: Path, options: ExportOptions) -> None:
    """Refuse at once what would otherwise fail after minutes.

    Raises:
        ZooError: the artifact cannot be written to ``path``, certified here, or made with these options.
    """
    try:
        is_folder = path.is_dir() or certificate_path(path).is_dir()
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}; give another name.") from None
    if is_folder:
        raise ZooError(f"cannot write {path}: it is a folder; give a file name.")
    if not path.parent.is_dir():
        raise ZooError(f"cannot write {path}: the folder {path.parent} does not exist; create it first.")
    if not os.access(path.parent, os.W_OK):
        raise ZooError(f"cannot write {path}: the folder {path.parent} is not writable; choose another.")
    if reason := runtime.available():
        raise ZooError(f"cannot certify {runtime.title} here: {reason}.")
    if options.dtype not in runtime.dtypes:
        raise ZooError(f"{runtime.title} has no {options.dtype} here; it has {', '.join(runtime.dtypes)}.")
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


def tuning_path(path: Path) -> Path:
    """Return where the measurements for the artifact at ``path`` lie."""
    return path.with_name(f"{path.name}.tuning.json")


def certificate_path(path: Path) -> Path:
    """Return where the certificate of the artifact at ``path`` lies.

    The suffix stays in the name, so that two formats of one model do not share a certificate.
    """
    return path.with_name(f"{path.name}.certificate.json")


def _coarsened(
    runtime: Runtime,
    network: nn.Module,
    artifact: Path,
    options: ExportOptions,
    end: Ends,
    images: np.ndarray | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write the artifact anew in a dtype other than fp32; return what its metadata gains by that."""
    start = time.perf_counter()
    if options.dtype == FP16:
        runtime.export(end.around(in_half(network)), artifact, options)
        say(f"exported anew in {FP16}, in {_since(start)}")
        return {}
    assert images is not None
    count = runtime.quantize(artifact, options, end.given(images[::2]))
    share = json.loads(runtime.metadata(artifact)[SHARE])
    say(
        f"rewrote {count} operations in {INT8}, {share:.1%} of the multiplies of all convolutions and matrix "
        f"products, in {_since(start)}"
    )
    return {SHARE: share}


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in a sentence what keeps ``path`` from being written, such as a full disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ZooError(f"cannot write {path}: {reason}; make room or choose another folder.") from error


def _anew(runtime: Runtime, artifact: Path) -> Predict:
    """Return the function that loads ``artifact`` as it is when called."""
    return lambda inputs: runtime.load(artifact)(inputs)


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


def _since(start: float) -> str:
    return f"{time.perf_counter() - start:.1f} s"
