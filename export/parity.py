"""The parity certificate: does an artifact compute what the eager model computes, at every batch size?

Dynamic kernels make this a real question. An exporter can freeze the batch it traced, or let the kernels of
one sample reach another, and the file still loads, runs and is right on the traced input. So the inputs here
are fresh, their batch sizes are not the traced one, and the reference is the unlowered eager model.
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from export.base import Predict
from export.certificate import Certificate, Check
from zoo.layers import set_lowering

BATCHES = (1, 2, 3, 5, 8, 17)
"""Batch sizes that certify a dynamic batch."""

TRACE_BATCH = 4
"""Batch size that exporters trace a dynamic batch at: above 1, and none of :data:`BATCHES`."""

TOLERANCE = 1e-4
"""Largest relative error of an fp32 artifact."""

_FEW = 3
_MIXED = 8
_CHUNK = 16


class _Trial(NamedTuple):
    name: str
    inputs: np.ndarray
    batch: int
    got: Predict
    want: Predict


def prepared(model: nn.Module, lowering: str) -> nn.Module:
    """Return a copy of ``model`` in fp32 on the CPU, in evaluation mode, with ``lowering``."""
    return set_lowering(copy.deepcopy(model).eval().cpu().float().requires_grad_(False), lowering)


def reference(model: nn.Module) -> Predict:
    """Return the eager model as a function of arrays, unlowered, in fp32 on the CPU."""
    eager = prepared(model, "grouped")

    @torch.inference_mode()
    def predict(images: np.ndarray) -> np.ndarray:
        return eager(to_tensor(images)).numpy()

    return predict


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """Return ``images`` as a tensor with the same strides where torch can have them, else as a copy."""
    if images.flags.writeable and min(images.strides) >= 0:
        return torch.from_numpy(images)
    return torch.from_numpy(images.copy())


def certify(
    predict: Predict,
    expected: Predict,
    input_size: tuple[int, int, int],
    *,
    batch: int | None = None,
    images: np.ndarray | None = None,
    pixels: tuple[np.ndarray, np.ndarray] | None = None,
    runtime: str = "unnamed",
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Certificate:
    """Hold an artifact against its reference.

    Args:
        predict: the artifact.
        expected: what it should compute, as :func:`reference` makes it.
        input_size: (channels, height, width).
        batch: the one batch size the artifact takes; None certifies every size in :data:`BATCHES`.
        images: real ones, (N, C, H, W), float32, normalised as the model wants them.
        pixels: the least and the greatest normalised pixel of each channel, (C,) each; None means -1 and 1.
        runtime: what runs the artifact, for the record.
        tolerance: largest relative error that passes.
        seed: of the random inputs.

    Returns:
        The certificate, passed or not; errors that the artifact raises are failed checks.
    """
    trials = _trials(predict, expected, input_size, batch, images, pixels, np.random.default_rng(seed))
    return Certificate(
        runtime=runtime,
        reference="unlowered eager model, torch fp32 on the CPU",
        tolerance=tolerance,
        seed=seed,
        input_size=input_size,
        batch=batch,
        checks=tuple(_measure(trial, tolerance) for trial in trials),
    )


def _trials(
    predict: Predict,
    expected: Predict,
    input_size: tuple[int, int, int],
    batch: int | None,
    images: np.ndarray | None,
    pixels: tuple[np.ndarray, np.ndarray] | None,
    random: np.random.Generator,
) -> Iterator[_Trial]:
    def draw(count: int) -> np.ndarray:
        return random.standard_normal((count, *input_size), dtype=np.float32)

    def trial(name: str, inputs: np.ndarray, want: Predict = expected) -> _Trial:
        return _Trial(name, inputs, len(inputs), predict, want)

    for size in BATCHES if batch is None else (batch,) * _FEW:
        yield trial("fresh inputs", draw(size))

    mixed = batch or _MIXED
    if mixed > 1:
        # Samples of unlike brightness and contrast have unlike kernels, so one that leaks is seen.
        scale, shift = random.uniform(0.3, 3, (mixed, 1, 1, 1)), random.uniform(-1, 1, (mixed, 1, 1, 1))
        yield trial(
            "mixed batch against single samples", _float(draw(mixed) * scale + shift), _alone(predict, batch)
        )
        order = np.roll(random.permutation(mixed), 1)
        yield trial("batch in another order", _float(draw(mixed) * scale + shift), _reordered(predict, order))

    few = batch or _FEW
    yield trial("memory order NHWC", _float(draw(few).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))
    yield trial("every second of a larger array", draw(2 * few)[::2])

    low, high = pixels if pixels is not None else (-np.ones(input_size[0]), np.ones(input_size[0]))
    coins = random.integers(0, 2, (few, *input_size))
    yield trial("all zeros", np.zeros((few, *input_size), np.float32))
    yield trial("all ones", np.ones((few, *input_size), np.float32))
    yield trial("magnitude 100", 100 * draw(few))
    yield trial(
        "darkest and brightest pixels", _float(np.where(coins, high[:, None, None], low[:, None, None]))
    )

    if images is not None:
        size = batch or _CHUNK
        yield _Trial("real images", images, size, _chunked(predict, size), _chunked(expected, size))


def _alone(predict: Predict, batch: int | None) -> Predict:
    """Return the function that runs each sample beside no other, or beside copies of itself."""

    def run(inputs: np.ndarray) -> np.ndarray:
        return np.concatenate([predict(np.repeat(sample[None], batch or 1, axis=0))[:1] for sample in inputs])

    return run


def _reordered(predict: Predict, order: np.ndarray) -> Predict:
    """Return the function that runs a batch in ``order`` and puts the outputs back."""
    return lambda inputs: predict(inputs[order])[np.argsort(order)]


def _chunked(predict: Predict, size: int) -> Predict:
    """Return the function that runs images in batches of ``size``, filling the last with the first ones."""

    def run(inputs: np.ndarray) -> np.ndarray:
        starts = range(0, len(inputs), size)
        rows = [np.arange(start, start + size) % len(inputs) for start in starts]
        return np.concatenate([predict(inputs[row]) for row in rows])[: len(inputs)]

    return run


def _measure(trial: _Trial, tolerance: float) -> Check:
    try:
        got, want = trial.got(trial.inputs), trial.want(trial.inputs)
    except Exception as error:  # whatever a runtime raises, the artifact does not take this input
        return _failed(trial, f"{type(error).__name__}: {_first_line(error)}")
    if got.shape != want.shape:
        return _failed(trial, f"output shape {got.shape}, expected {want.shape}")

    got, want = (array.reshape(len(array), -1).astype(np.float64) for array in (got, want))
    max_abs, scale = float(np.abs(got - want).max()), float(np.abs(want).max())
    max_rel = max_abs / scale if scale else (0.0 if max_abs == 0 else np.inf)
    top1 = _top1(got, want, tolerance * scale)
    passed = bool(max_rel <= tolerance and top1 == 1.0)  # comparisons with NaN are false
    note = "" if np.isfinite(max_abs) else "outputs are not finite"
    return Check(trial.name, trial.batch, len(trial.inputs), max_abs, max_rel, top1, passed, note)


def _top1(got: np.ndarray, want: np.ndarray, margin: float) -> float:
    """Return the share of equal winners among rows whose two best differ by more than ``margin``."""
    if want.shape[1] < 2:
        return 1.0
    runner_up, best = np.sort(want, axis=1)[:, -2:].T
    decided = best - runner_up > margin
    return float((got.argmax(1) == want.argmax(1))[decided].mean()) if decided.any() else 1.0


def _failed(trial: _Trial, note: str) -> Check:
    nan = float("nan")
    return Check(trial.name, trial.batch, len(trial.inputs), nan, nan, nan, False, note)


def _float(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.float32)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
