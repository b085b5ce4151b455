"""Where the time goes: ``python -m export.benchmark --breakdown resnet18_dpk``.

The model is exported and optimised as for the runtime, which then clocks every operator itself. On the CPU
alone: on CUDA the clocks would show when an operator was started, not how long it ran.
"""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from export._trials import Draws, Trial
from export.base import FP32, ExportOptions, Runtime, runtime
from export.benchmark.attribution import Attribution, mark, origins
from export.benchmark.clocks import CLOCKS
from export.benchmark.plan import Candidate
from export.benchmark.prepare import TOLERANCE, WrongResult
from export.benchmark.profile import Profile, summarise
from export.benchmark.subjects import TIMM, Subjects
from export.cost import Work, count
from export.onnx import to_proto
from export.parity import judge
from export.places import places
from zoo.catalog import complexity
from zoo.errors import ZooError

_WARM = 3


def break_down(candidate: Candidate, subjects: Subjects, calls: int) -> Profile:
    """Profile one model on the CPU.

    Args:
        candidate: which model, runtime, lowering, batch size and threads; the runtime one of :data:`CLOCKS`.
        subjects: the models.
        calls: how many to clock; the slower half is left out where each has clocks of its own.

    Raises:
        ZooError: the lowering is not one of this project's, the layers lack it or it cannot take the batch
            size; or the model cannot be expressed in ONNX.
        WrongResult: what would be profiled computes something else than the model.
    """
    import onnx

    if candidate.lowering == TIMM:
        raise ZooError("the parts of timm's layer are not known; give a lowering of this project.")
    batch = candidate.batch if candidate.frozen else None
    deployment = runtime(candidate.runtime)
    model = subjects.deployed(candidate.model, candidate.lowering, deployment, batch, candidate.threads)
    size = subjects.size(candidate.model)
    options = ExportOptions(input_size=size, batch=batch)
    proto = to_proto(model, options, deployment.layout(options))
    known = origins(proto.graph, model)
    mark(proto.graph)
    images = Draws(np.random.default_rng(0), size).unlike(candidate.batch)
    with tempfile.TemporaryDirectory(prefix="breakdown-") as folder:
        path = Path(folder, "model.onnx")
        onnx.save(proto, path)
        clock = CLOCKS[candidate.runtime](path, candidate.threads, Path(folder))
        expected = subjects.expected(candidate.model)
        trial = Trial("what is profiled", candidate.batch, images, clock.run, expected)
        if not (check := judge(trial, TOLERANCE[FP32])).passed:
            raise WrongResult(check.note or "its outputs are wrong")
        for _ in range(_WARM + calls):
            clock.run(images)
        found = summarise(candidate, clock.stop(calls), Attribution(proto.graph, known, clock.ran()))
    if candidate.is_static:
        multiplies = candidate.batch * complexity(model, size).macs
        return replace(found, work={"convolution": float(multiplies)})
    return replace(found, work=_work(model, options, deployment, candidate.batch))


def _work(model: nn.Module, options: ExportOptions, deployment: Runtime, batch: int) -> Work:
    """Add up the work of the dynamic layers as they are lowered."""
    total: Counter[str] = Counter()
    for place in places(model, options, deployment):
        lowering = str(model.get_submodule(place.name).lowering)
        total.update(count(place.layer, lowering, (batch, *place.size)))
    return total
