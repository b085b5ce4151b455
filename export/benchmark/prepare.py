"""From candidates to calls: every artifact written first, every candidate right before it is timed."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export._flow import export as certified_export
from export._trials import Draws, Trial
from export.base import ExportOptions
from export.benchmark.engines import ENGINES, Bound, Exported, Setting
from export.benchmark.plan import Candidate
from export.benchmark.subjects import TIMM, Subjects
from export.certificate import CertificateError
from export.parity import measure
from export.torchscript import _no_tf32
from zoo.errors import ZooError

TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}
"""Largest relative error against the unlowered eager model that a figure may come from."""

Say = Callable[[str], None]


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
    """

    def __init__(self, subjects: Subjects, folder: Path, certify: bool = False, cuda_graphs: bool = False):
        self.subjects = subjects
        self.folder = folder
        self.certify = certify
        self.cuda_graphs = cuda_graphs

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
        )

    def place(self, candidate: Candidate) -> Path:
        """Return the folder of a candidate's artifacts, whatever they are run with."""
        return self.folder / f"{candidate.model}-{candidate.lowering}"

    def export(self, candidate: Candidate) -> Path | None:
        """Write a candidate's artifact unless it is there; return it, or None where it needs none.

        Raises:
            ZooError: the format cannot express the model.
            WrongResult: it failed its certificate.
        """
        engine, setting = ENGINES[candidate.runtime], self.setting(candidate)
        path = engine.artifact(setting, self.place(candidate))
        if path is None or path.exists():
            return path
        if self.certify and isinstance(engine, Exported) and candidate.lowering != TIMM:
            path.parent.mkdir(parents=True)
            options = ExportOptions(
                lowering=candidate.lowering,
                batch=candidate.batch if candidate.frozen else None,
                input_size=setting.input_size,
            )
            try:
                certified_export(engine.runtime, self.subjects.model(candidate.model), path, options)
            except CertificateError as error:
                raise WrongResult(str(error)) from None
        else:
            engine.export(self.subjects.deployed(candidate.model, candidate.lowering), setting, path)
        return path

    def prepare(self, candidate: Candidate) -> Ready:
        """Load a candidate, run it once and hold the result against the unlowered eager model.

        Raises:
            ZooError: it cannot be run.
            WrongResult: the results differ by more than :data:`TOLERANCE`.
        """
        engine, setting = ENGINES[candidate.runtime], self.setting(candidate)
        folder = self.place(candidate)
        model = self.subjects.deployed(candidate.model, candidate.lowering)
        bind = engine.prepare(model, setting, folder)
        images = Draws(np.random.default_rng(0), setting.input_size).unlike(candidate.batch)
        bound = bind(images)
        check = measure(
            Trial(
                "what is timed",
                candidate.batch,
                images,
                lambda _: bound.fetch(bound.call()),
                self.subjects.expected(candidate.model),
            ),
            TOLERANCE[candidate.dtype],
        )
        if not check.passed:
            why = check.note or f"off by {check.max_rel:.1e} of the outputs, top-1 agrees on {check.top1:.0%}"
            raise WrongResult(why)
        return Ready(candidate, bound, check.max_rel, engine.artifact(setting, folder))


def each_artifact(candidates: Iterable[Candidate], workshop: Workshop) -> Iterator[Candidate]:
    """Yield one candidate for each artifact that they need."""
    seen: set[Path] = set()
    for candidate in candidates:
        engine = ENGINES[candidate.runtime]
        path = engine.artifact(workshop.setting(candidate), workshop.place(candidate))
        if path is not None and path not in seen:
            seen.add(path)
            yield candidate


def export_all(candidates: Iterable[Candidate], workshop: Workshop, say: Say) -> dict[Path, str]:
    """Write every artifact; return the failed ones with the reason."""
    failed: dict[Path, str] = {}
    needed = list(each_artifact(candidates, workshop))
    for number, candidate in enumerate(needed, 1):
        head = f"  [{number}/{len(needed)}] {candidate.label} to {candidate.runtime}"
        head += f", batch {candidate.batch}" if candidate.frozen else ""
        start = time.perf_counter()
        try:
            path = workshop.export(candidate)
        except (ZooError, WrongResult) as error:
            path = ENGINES[candidate.runtime].artifact(workshop.setting(candidate), workshop.place(candidate))
            assert path is not None
            failed[path] = str(error)
            say(f"{head}: {error}")
        else:
            say(f"{head}: {time.perf_counter() - start:.1f} s")
    return failed


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Run torch on so many threads, and on CUDA in real fp32."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _no_tf32() if torch.cuda.is_available() else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(before)
