"""The parity certificate: does an artifact compute what the eager model computes, at every batch size?

Dynamic kernels make this a real question. An exporter can freeze the batch it traced, or let the kernels of
one sample reach another, and the file still loads, runs and is right on the traced input. So the inputs here
are fresh, their batch sizes are not the traced one, and the reference is the unlowered eager model.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from export._trials import Draws, ImageDraws, PixelDraws, Trial, about_batches, about_images, about_inputs
from export.base import Predict, Runtime, first_line
from export.certificate import Certificate, Check
from zoo.layers import set_lowering, settle

TOLERANCE = 1e-4
"""Largest relative error of an fp32 artifact."""

TOLERANCE_FP16 = 0.05
"""Largest relative error of an fp16 artifact: eleven bits, rounded anew in every layer."""

TOLERANCE_INT8 = 0.25
"""Largest relative error of an int8 artifact: on any one image, so that nearly all are far below it."""

_REFERENCE = "unlowered eager model, torch fp32 on the CPU"
_SLACK, _MOST = 10, 5
_PLAIN = 8
_QUIET = 1e-2
_LEAST = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Int8Certificate(Certificate):
    """The record of an int8 artifact's checks, and of what its integers cost.

    Attributes:
        agreement: share of the images on which the artifact has the top class of the eager model, however
            close the next one is; None where the outputs are not such that they can be compared.
        agreement_images: how many images that are.
    """

    agreement: float | None
    agreement_images: int

    def summary(self) -> str:
        """Return the table of the checks, and below it the agreement."""
        if self.agreement is None:
            return super().summary()
        images = f"{self.agreement:.1%} of {self.agreement_images} images"
        return f"{super().summary()}\n  the top class is the eager model's on {images}"


def prepared(
    model: nn.Module, lowering: str | Mapping[str, str], runtime: Runtime | None = None
) -> nn.Module:
    """Return a copy of ``model`` in fp32 on the CPU, in evaluation mode, with ``lowering``, settled.

    Args:
        model: any module; it is left as it is.
        lowering: as :func:`zoo.layers.set_lowering` takes it.
        runtime: the format it will run in; None stands for PyTorch as it is.
    """
    return settle(_copied(model, lowering), runtime is not None and runtime.own_softmax)


def reference(model: nn.Module, dtype: torch.dtype = torch.float32) -> Predict:
    """Return a copy of the eager model, unlowered, on the CPU and in ``dtype``, as a function of arrays."""
    eager = in_torch(_copied(model, "grouped").to(dtype))
    return lambda images: eager(to_tensor(images).to(dtype))


def in_torch(model: nn.Module) -> Callable[[np.ndarray | torch.Tensor], np.ndarray]:
    """Return a module on the CPU as a function of arrays or tensors."""

    @torch.inference_mode()
    def predict(images: np.ndarray | torch.Tensor) -> np.ndarray:
        return model(to_tensor(images) if isinstance(images, np.ndarray) else images).numpy()

    return predict


def _copied(model: nn.Module, lowering: str | Mapping[str, str]) -> nn.Module:
    return set_lowering(copy.deepcopy(model).eval().cpu().float().requires_grad_(False), lowering)


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
    other_precision: Predict | None = None,
    batch: int | None = None,
    images: np.ndarray | None = None,
    pixels: tuple[np.ndarray, np.ndarray] | None = None,
    preprocess: bool = False,
    batches: bool = True,
    runtime: str = "unnamed",
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Certificate:
    """Hold an artifact against its reference.

    Args:
        predict: the artifact.
        expected: what it should compute, as :func:`reference` makes it.
        input_size: (channels, height, width).
        other_precision: ``expected`` in fp64 or, for an artifact in fp16, in that. On inputs of a magnitude
            far outside the pixels' a dynamic network can magnify rounding until its outputs say nothing,
            whatever computes it. For these alone the tolerance becomes ten times what the precision changes
            of ``expected`` itself, and the check's note says so. Where that is more than five times the
            tolerance, one measurement says too little of what rounding does: the inputs are halved, and the
            check's name says so, down to the magnitude of pixels, where nothing is excused. None keeps the
            tolerance.
        batch: the one batch size the artifact takes; None certifies the sizes of a dynamic batch.
        images: real ones, (N, C, H, W), float32, normalised as the model wants them, or their pixels.
        pixels: the least and the greatest normalised pixel of each channel, (C,) each; None means -1 and 1.
        preprocess: whether the artifact takes pixels (N, H, W, C), uint8. A softmax at its end can hide what
            is wrong before it, and magnify it: let the same network without that pass first.
        batches: whether to ask about batch sizes, and about samples that share a batch.
        runtime: what runs the artifact, for the record.
        tolerance: largest relative error that passes.
        seed: of the random inputs.

    Returns:
        The certificate, passed or not; errors that the artifact raises are failed checks.
    """
    random = np.random.default_rng(seed)
    draws = PixelDraws(random, input_size) if preprocess else Draws(random, input_size, pixels=pixels)
    trials = [
        *(about_batches(predict, expected, draws, batch) if batches else ()),
        *about_inputs(predict, expected, other_precision, draws, batch),
    ]
    if images is not None:
        trials.append(about_images(predict, expected, images, batch))
    return Certificate(
        runtime=runtime,
        reference=_REFERENCE,
        tolerance=tolerance,
        seed=seed,
        input_size=input_size,
        batch=batch,
        checks=tuple(judge(trial, tolerance) for trial in trials),
    )


def certify_int8(
    predict: Predict,
    expected: Predict,
    input_size: tuple[int, int, int],
    images: np.ndarray,
    *,
    batch: int | None = None,
    runtime: str = "unnamed",
    seed: int = 0,
) -> Int8Certificate:
    """Hold an int8 artifact against the eager model, on images, the only inputs that its ranges are for.

    Its errors are of another order than those of a mistake about batches, which could hide among them: let
    :func:`certify` pass the artifact that it is made of first.

    Args:
        predict: the artifact.
        expected: what it should compute, as :func:`reference` makes it.
        input_size: (channels, height, width).
        images: other ones than it was calibrated on, (N, C, H, W), float32, normalised, or their pixels.
        batch: the one batch size the artifact takes, or None.
        runtime: what runs the artifact, for the record.
        seed: of the choice of images.

    Returns:
        The certificate, passed or not, with the agreement on all ``images``. To pass, a top class may differ
        where the winner's lead is within the tolerance; the agreement counts these too.
    """
    draws = ImageDraws(np.random.default_rng(seed), input_size, images)
    outputs: dict[str, np.ndarray] = {}

    def kept(name: str, run: Predict) -> Predict:
        def running(inputs: np.ndarray) -> np.ndarray:
            outputs[name] = run(inputs)
            return outputs[name]

        return running

    last = about_images(predict, expected, images, batch)
    last = replace(last, got=kept("got", last.got), want=kept("want", last.want))
    trials = [*about_batches(predict, expected, draws, batch), last]
    checks = tuple(judge(trial, TOLERANCE_INT8) for trial in trials)
    return Int8Certificate(
        runtime=runtime,
        reference=_REFERENCE,
        tolerance=TOLERANCE_INT8,
        seed=seed,
        input_size=input_size,
        batch=batch,
        checks=checks,
        agreement=_agreement(outputs.get("got"), outputs.get("want")),
        agreement_images=len(images),
    )


def judge(trial: Trial, tolerance: float) -> Check:
    """Return the judgement of one trial; a tolerance of 0 asks for equal numbers."""

    def failed(note: str) -> Check:
        nan = float("nan")
        return Check(trial.name, trial.batch, len(trial.inputs), nan, nan, tolerance, nan, False, note)

    try:
        got, want = trial.got(trial.inputs), trial.want(trial.inputs)
        if got.shape != want.shape:
            return failed(f"output shape {got.shape}, expected {want.shape}")
        max_abs, max_rel = _difference(got, want)
        own = 0.0
        if trial.other_precision is not None and not max_rel <= tolerance:
            own = _difference(want, trial.other_precision(trial.inputs))[1]
    except Exception as error:  # whatever a runtime raises, the artifact does not take this input
        return failed(f"{type(error).__name__}: {first_line(error)[:200]}")

    allowed, note = tolerance, ""
    if not _SLACK * own <= _MOST * tolerance:
        if np.abs(trial.inputs).max() > _PLAIN:
            return judge(replace(trial, name=f"{trial.name}, halved", inputs=trial.inputs / 2), tolerance)
        note = f"cannot judge: rounding alone moves the eager model by {own:.0e}"
    elif not np.isfinite(max_abs):
        return failed("outputs are not finite")
    elif _SLACK * own > tolerance:
        allowed = _SLACK * own
        note = f"rounding alone moves the eager model by {own:.0e}"
    top1 = _top1(got, want, allowed)
    passed = max_rel <= allowed and top1 == 1.0
    return Check(trial.name, trial.batch, len(got), max_abs, max_rel, allowed, top1, passed, note)


def _difference(got: np.ndarray, want: np.ndarray) -> tuple[float, float]:
    """Return the largest difference, and the largest over what was expected of its row.

    A row of outputs counts as no quieter than a hundredth of the loudest: what is left where everything
    cancels is rounding.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(np.subtract(got, want, dtype=np.float64)).reshape(len(got), -1).max(axis=1)
        loud = np.abs(want, dtype=np.float64).reshape(len(want), -1).max(axis=1)
        return float(off.max()), float((off / np.maximum(loud, max(_QUIET * loud.max(), _LEAST))).max())


def _agreement(got: np.ndarray | None, want: np.ndarray | None) -> float | None:
    """Return the share of rows with equal winners; None where there are no such rows in both."""
    if got is None or want is None or got.shape != want.shape or not np.isfinite(got).all():
        return None
    got, want = got.reshape(len(got), -1), want.reshape(len(want), -1)
    return float((got.argmax(1) == want.argmax(1)).mean())


def _top1(got: np.ndarray, want: np.ndarray, tolerance: float) -> float:
    """Return the share of equal winners among rows whose winner leads by more than the tolerance."""
    got, want = got.reshape(len(got), -1), want.reshape(len(want), -1)
    if want.shape[1] < 2:
        return 1.0
    runner_up, best = np.sort(want, axis=1)[:, -2:].T
    decided = best - runner_up > tolerance * np.abs(want).max(axis=1)
    return float((got.argmax(1) == want.argmax(1))[decided].mean()) if decided.any() else 1.0
