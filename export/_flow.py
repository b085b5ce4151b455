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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from export._inputs import check_images, count_outputs, input_size
from export._metadata import Weights, describe, name_of, to_strings
from export._trials import Draws, PixelDraws, Trial
from export.base import AUTO, FP16, FP32, INT8, PLAIN, ExportOptions, Runtime, first_line, installed
from export.certificate import Certificate, CertificateError
from export.ends import Ends, ends
from export.half import check_half, in_half
from export.lowering import chosen
from export.parity import (
    TOLERANCE,
    TOLERANCE_FP16,
    certify,
    certify_int8,
    in_torch,
    judge,
    prepared,
    reference,
)
from export.quantize import SHARE
from zoo.cli import atomic_path
from zoo.errors import ZooError
from zoo.layers import fold
from zoo.models import create_model
from zoo.pretrained import file_sha256, manifest_entry

_LEAST_IMAGES = 32
_LOUDEST = 16


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
    plain, end = ends(model, options, outputs)
    if images is not None:
        check_images(images, size)
    if options.dtype == INT8 and (images is None or len(images) < _LEAST_IMAGES):
        raise ZooError(
            f"{options.dtype} needs at least {_LEAST_IMAGES} images, one half to see ranges on and the other "
            "to certify with; give more."
        )
    if options.dtype == FP16:
        network = in_half(prepared(model, AUTO, runtime))
        check_half(network, replace(options, preprocess=False).example())
    # Layers, which tune measures one by one, take no pixels.
    choice = chosen(runtime, model, replace(options, preprocess=False), tuning_path(path), say, threads)
    lowered = prepared(model, choice, runtime)
    facts = describe(model, lowered, runtime, options, end, outputs, weights, class_names)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(f"{facts['model']}: {parameters / 1e6:.2f} M parameters, {weights.origin}")

    record_path = certificate_path(path)
    with _writing(path), atomic_path(record_path) as record, atomic_path(path) as artifact:
        job = _Job(runtime, model, fold(lowered), artifact, images, facts, say)
        earlier: dict[str, Any] = {}
        for step, step_end in _steps(options, plain, end):
            stored = {**facts, **job.write(step, step_end), **(metadata or {})}
            runtime.annotate(artifact, to_strings(stored))
            certificate = job.judged(step, step_end)
            if not certificate.passed:
                raise CertificateError(certificate, str(path))
            if step != options:
                earlier[f"in_{step.dtype}"] = json.loads(certificate.to_json())
        content = job.sealed(options, certificate, stored, path)
        identity = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        record.write_text(
            certificate.to_json(artifact=identity, about=stored, **earlier) + "\n", encoding="utf-8"
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


def _steps(options: ExportOptions, plain: Ends, end: Ends) -> Iterator[tuple[ExportOptions, Ends]]:
    """Yield what is made and certified on the way to what ``options`` ask for, and last that.

    Coarser numbers err by more than some mistakes about batches do, and a softmax hides what is wrong with
    logits where one is far ahead, as it magnifies it elsewhere: so the network passes in fp32 first, laid out
    as it will be in fewer bits, and with its own ends before it gets others.
    """
    if options.dtype != FP32:
        yield replace(options, dtype=FP32, preprocess=False, layout=PLAIN), plain
    if options.preprocess:
        yield replace(options, preprocess=False), plain
    yield options, end


@dataclass
class _Job:
    """An artifact on its way.

    Attributes:
        runtime: its format.
        model: what it has to compute.
        network: the model lowered and folded, as it is exported.
        artifact: the temporary file.
        images: real ones to certify with, and to calibrate int8 on.
        facts: what its metadata says.
        say: takes a line of progress.
    """

    runtime: Runtime
    model: nn.Module
    network: nn.Module
    artifact: Path
    images: np.ndarray | None
    facts: dict[str, Any]
    say: Callable[[str], None]

    def write(self, options: ExportOptions, end: Ends) -> dict[str, Any]:
        """Write the artifact with its ends; return what its metadata gains by what was found out."""
        start = time.perf_counter()
        half = options.dtype == FP16
        network = in_half(self.network) if half else self.network
        self.runtime.export(end.around(network), self.artifact, options)
        what = (f" in {FP16}" if half else "") + (", taking pixels" if options.preprocess else "")
        made = f"{self.runtime.title}{what}, {_choices(self.facts, options)}"
        self.say(f"exported to {made}, in {_since(start)}")
        if options.dtype != INT8:
            return {}
        assert self.images is not None
        start = time.perf_counter()
        count = self.runtime.quantize(self.artifact, options, end.given(self.images[::2]))
        share = json.loads(self.runtime.metadata(self.artifact)[SHARE])
        self.say(
            f"rewrote {count} operations in {INT8}, {share:.1%} of the multiplies of all convolutions and "
            f"matrix products, in {_since(start)}"
        )
        return {SHARE: share}

    def judged(self, options: ExportOptions, end: Ends) -> Certificate:
        """Return the certificate of the artifact as :meth:`write` left it."""
        size = options.input_size
        assert size is not None
        predict, expected = self.runtime.load(self.artifact), end.around_eager(reference(self.model))
        given = None if self.images is None else end.given(self.images)
        library = self.runtime.packages[-1]
        ran_by = f"{library} {installed(library)}, cpu"
        if options.dtype == INT8:
            assert given is not None
            return certify_int8(predict, expected, size, given[1::2], batch=options.batch, runtime=ran_by)
        half = options.dtype == FP16
        precision = torch.float16 if half else torch.float64
        other = None if options.preprocess else reference(self.model, precision)
        certified = functools.partial(
            certify,
            expected=expected,
            input_size=size,
            other_precision=other,
            batch=options.batch,
            images=given,
            pixels=end.pixels,
            preprocess=options.preprocess,
            runtime=ran_by,
            tolerance=TOLERANCE_FP16 if half else TOLERANCE,
        )
        certificate = certified(predict)
        if not half or options.preprocess:
            return certificate
        # A runtime may compute on a CPU in fp32 what is stored in fp16, and pass where a GPU would overflow.
        # On a CPU torch is slow in fp16: of the images those that come closest to that.
        loudest = given if given is None else given[_loudness(given).argsort()[-_LOUDEST:]]
        own = certified(in_torch(in_half(self.network)), images=loudest, batches=False)
        checks = [replace(check, name=f"{check.name}, computed in fp16 by torch") for check in own.checks]
        return replace(certificate, checks=(*certificate.checks, *checks))

    def sealed(
        self, options: ExportOptions, certificate: Certificate, stored: dict[str, Any], path: Path
    ) -> bytes:
        """Store the certificate in the artifact, check that it still computes the same, return its bytes.

        Args:
            options: of the last step.
            certificate: of the last step.
            stored: the metadata so far.
            path: what the artifact will be called.

        Raises:
            CertificateError: the artifact computes something else.
        """
        assert options.input_size is not None
        draws = (PixelDraws if options.preprocess else Draws)(np.random.default_rng(1), options.input_size)
        inputs = draws.normal(options.batch or 2)

        def anew(images: np.ndarray) -> np.ndarray:
            return self.runtime.load(self.artifact)(images)

        certified = anew(inputs)
        with_certificate = {**stored, "certificate": certificate.to_json()}
        self.runtime.annotate(self.artifact, to_strings(with_certificate))
        shipped = judge(Trial("as shipped", len(inputs), inputs, anew, lambda _: certified), 0)
        if not shipped.passed:
            raise CertificateError(replace(certificate, checks=(*certificate.checks, shipped)), str(path))
        return self.artifact.read_bytes()


def _loudness(images: np.ndarray) -> np.ndarray:
    return np.abs(images).reshape(len(images), -1).mean(axis=1)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in a sentence what keeps ``path`` from being written, such as a full disk."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ZooError(f"cannot write {path}: {reason}; make room or choose another folder.") from error


def _choices(facts: dict, options: ExportOptions) -> str:
    counts = Counter(facts.get("lowerings", {}).values())
    found = ", ".join(f"{count} x {name}" for name, count in counts.items()) or "no dynamic layer"
    batch = "dynamic batch" if options.batch is None else f"batch {options.batch}"
    return f"{batch}, lowering {options.lowering} ({found})"


def _since(start: float) -> str:
    return f"{time.perf_counter() - start:.1f} s"
