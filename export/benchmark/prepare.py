"""From candidates to calls: every artifact written first, every candidate right before it is timed."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from export._flow import export as certified_export
from export._inputs import real_images
from export._torch import no_tf32
from export._trials import Draws, Trial
from export.base import FP16, FP32, INT8, TUNE, ExportOptions, Runtime, first_line
from export.benchmark.engine import Bound, FileEngine, Setting
from export.benchmark.engines import ENGINES
from export.benchmark.formats import Exported
from export.benchmark.plan import Candidate
from export.benchmark.subjects import TIMM, Subjects
from export.certificate import CertificateError
from export.parity import judge
from zoo.errors import ZooError

TOLERANCE = {FP32: 1e-3, FP16: 0.1, "bf16": 0.1, INT8: 0.5}
"""Largest relative error against the unlowered eager model that a figure may come from."""


class WrongResult(RuntimeError):
    """A candidate computes something else than its model; its speed is of no interest."""


@dataclass(frozen=True)
class Ready:
    """A candidate that may be timed.

    Attributes:
        candidate: which.
        bound: its batch and the call.
        error: relative, against the unlowered eager model.
        path: of its artifact, or None.
    """

    candidate: Candidate
    bound: Bound
    error: float
    path: Path | None

    @property
    def file_bytes(self) -> int | None:
        """The size of its artifact, all files together, or None where it has none."""
        if self.path is None:
            return None
        files = (file for file in self.path.parent.rglob("*") if file.is_file())
        return sum(file.stat().st_size for file in files if not file.name.endswith(".certificate.json"))


class Workshop:
    """Where candidates are made.

    Args:
        subjects: the models.
        folder: for artifacts; it outlives the workshop.
        certify: whether every artifact passes the whole certificate of ``python -m export``, beyond the one
            batch that every candidate is held against.
        cuda_graphs: see :class:`Setting`.
        data: a CIFAR-10 parquet folder, of whose images int8 candidates see one half for their ranges and are
            held against their models on the other; None means random inputs for both.
    """

    def __init__(
        self,
        subjects: Subjects,
        folder: Path,
        certify: bool = False,
        cuda_graphs: bool = False,
        data: Path | None = None,
    ):
        self.subjects = subjects
        self.folder = folder
        self.certify = certify
        self.cuda_graphs = cuda_graphs
        self.data = data
        self._images = functools.lru_cache(maxsize=None)(real_images)

    def setting(self, candidate: Candidate) -> Setting:
        """Return how a candidate is to be run."""
        return Setting(
            input_size=self.subjects.size(candidate.model),
            batch=candidate.batch,
            device=candidate.device,
            dtype=candidate.dtype,
            threads=candidate.threads,
            frozen=candidate.frozen,
            cuda_graphs=self.cuda_graphs,
            images=None if (images := self._real_images(candidate)) is None else images[::2],
        )

    def inputs(self, candidate: Candidate) -> np.ndarray:
        """Return the batch that a candidate is timed on, (N, C, H, W)."""
        images = self._real_images(candidate)
        if images is None:
            draws = Draws(np.random.default_rng(0), self.subjects.size(candidate.model))
            return draws.unlike(candidate.batch)
        others = images[1::2]
        return others[np.arange(candidate.batch) % len(others)]

    def _real_images(self, candidate: Candidate) -> np.ndarray | None:
        """Return the images of an int8 candidate; others compute the same whatever they see."""
        if self.data is None or candidate.dtype != INT8:
            return None
        return self._images(self.data, self.subjects.size(candidate.model)[1])

    def place(self, candidate: Candidate) -> Path:
        """Return the folder of a candidate's artifacts."""
        tuned = f"-t{candidate.threads}" if candidate.lowering == TUNE else ""
        return self.folder / f"{candidate.model}-{candidate.lowering}{tuned}"

    def artifact(self, candidate: Candidate) -> Path | None:
        """Return where a candidate's artifact lies or will; None where it runs the network itself."""
        return ENGINES[candidate.runtime].artifact(self.setting(candidate), self.place(candidate))

    def deployed(self, candidate: Candidate) -> nn.Module:
        """Return the network that a candidate runs, or that its artifact is made of."""
        return self.subjects.deployed(*self.way(candidate))

    def cost(self, candidate: Candidate) -> tuple[int, int]:
        """Return the parameters of a candidate's model, and its multiply-accumulates for one image."""
        return self.subjects.cost(*self.way(candidate))

    def way(self, candidate: Candidate) -> tuple[str, str, Runtime | None, int | None, int]:
        """Return what decides the network of a candidate, as :meth:`Subjects.deployed` takes it."""
        batch = candidate.batch if candidate.frozen else None
        runtime = ENGINES[candidate.runtime].runtime
        return candidate.model, candidate.lowering, runtime, batch, candidate.threads

    def export(self, candidate: Candidate) -> None:
        """Write a candidate's artifact.

        Raises:
            ZooError: the format cannot express the model.
            WrongResult: it failed its certificate.
        """
        engine, path = ENGINES[candidate.runtime], self.artifact(candidate)
        assert isinstance(engine, FileEngine)
        assert path is not None
        if not self.certify or not isinstance(engine, Exported) or candidate.lowering == TIMM:
            return engine.export(self.deployed(candidate), self.setting(candidate), path)
        path.parent.mkdir(parents=True, exist_ok=True)
        batch = candidate.batch if candidate.frozen else None
        layout = self.setting(candidate).layout
        options = ExportOptions(candidate.lowering, batch, dtype=candidate.dtype, layout=layout)
        try:
            certified_export(engine.runtime, self.subjects.model(candidate.model), path, options)
        except CertificateError as error:
            raise WrongResult(str(error)) from None

    def prepare(self, candidate: Candidate) -> Ready:
        """Load a candidate, run it once and hold the result against the unlowered eager model.

        Raises:
            ZooError: it cannot be run.
            WrongResult: the results differ by more than :data:`TOLERANCE`.
        """
        setting = self.setting(candidate)
        bind = ENGINES[candidate.runtime].prepare(self.deployed(candidate), setting, self.place(candidate))
        images = self.inputs(candidate)
        try:
            bound = bind(images)
            found = bound.fetch(bound.call())
        except ZooError:
            raise
        except Exception as error:  # what cannot run is not what runs wrongly, whatever a runtime raises
            raise ZooError(f"{type(error).__name__}: {first_line(error)}") from error
        expected = self.subjects.expected(candidate.model)
        trial = Trial("what is timed", candidate.batch, images, lambda _: found, expected)
        check = judge(trial, TOLERANCE[candidate.dtype])
        if not check.passed:
            off = f"off by {check.max_rel:.1e} of the outputs, top-1 agrees on {check.top1:.0%}"
            raise WrongResult(check.note or off)
        return Ready(candidate, bound, check.max_rel, self.artifact(candidate))


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Run torch on so many threads, and on CUDA in real fp32."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with no_tf32() if torch.cuda.is_available() else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(before)
