"""Top-1 accuracy of a classifier, clean and augmented, and how far its confidence can be trusted."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.training.answers import Answers
from zoo.training.augment import Augmentation, normalise, warp
from zoo.training.data import Split
from zoo.training.processes import progress_bar

AUGMENTED_SEED = 0

#: Images a forward pass, by device. Kernels made for each of them take memory: 10 MB an image in one layer of
#: resnet18.
BATCH_SIZES = {"cpu": 50, "cuda": 200}

#: Bins of confidence that :func:`calibration_error` sorts predictions into.
BINS = 15


def top1(
    model: nn.Module,
    split: Split,
    maps: Tensor | None = None,
    *,
    batch_size: int | None = None,
    title: str = "evaluate",
) -> float:
    """Return the top-1 accuracy in percent; the arguments are those of :func:`probabilities`."""
    found = probabilities(model, split, maps, batch_size=batch_size, title=title)
    return 100 * float(_right(found, split.labels).double().mean())


@torch.inference_mode()
def probabilities(
    model: nn.Module,
    split: Split,
    maps: Tensor | None = None,
    *,
    batch_size: int | None = None,
    title: str = "evaluate",
) -> Tensor:
    """Return what a classifier thinks of every image: (N, classes), float32, on the CPU.

    Args:
        model: a classifier of (N, 3, H, W); put into eval mode meanwhile, run where its parameters are.
        split: N images and labels.
        maps: (N, 2, 3), a warp for each image (see :func:`zoo.training.augment.warp`); None: none.
        batch_size: images a forward pass; None means as :data:`BATCH_SIZES` has it for the device.
        title: shown beside the progress bar.
    """
    device = next(model.parameters()).device
    if batch_size is None:
        batch_size = BATCH_SIZES.get(device.type, BATCH_SIZES["cpu"])
    was_training = model.training
    model.eval()
    # One tensor for all: small ones that stay between the large ones that go would tear the memory to pieces.
    found = torch.empty(0)
    for start in progress_bar(range(0, len(split), batch_size), desc=title, unit=" batches"):
        rows = slice(start, start + batch_size)
        images = split.images[rows].to(device)
        inputs = normalise(images) if maps is None else warp(images, maps[rows])
        logits = model(inputs.contiguous(memory_format=torch.channels_last))
        if not start:
            found = torch.empty(len(split), logits.shape[1])
        found[rows] = logits.float().softmax(dim=1).cpu()
    model.train(was_training)
    return found


@dataclass(frozen=True)
class Evaluation:
    """What a classifier makes of a test split, clean and under several draws of random warps.

    Args:
        right: (1 + draws, N), bool: which images it gets right, the clean ones first.
        calibration_error: see :func:`calibration_error`, of the clean images.
        probe: see :func:`probe`.
        data: where the images are from, as :meth:`zoo.training.data.Split.describe` has it.
    """

    right: Tensor
    calibration_error: float
    probe: list[float]
    data: dict[str, Any]

    def figures(self) -> dict[str, Any]:
        """Return the figures that the weights manifest keeps for a model.

        Returns:
            ``top1`` and ``top1_augmented``, the mean over the draws, in percent; with several draws also
            their standard deviation ``top1_augmented_std``; ``calibration_error``, in percent; ``probe``;
            what they rest on.
        """
        clean, *augmented = [100 * float(row.double().mean()) for row in self.right]
        spread = statistics.stdev(augmented) if len(augmented) > 1 else None
        return {
            "top1": round(clean, 2),
            "top1_augmented": round(statistics.fmean(augmented), 2),
            **({} if spread is None else {"top1_augmented_std": round(spread, 3)}),
            "calibration_error": round(100 * self.calibration_error, 2),
            "probe": self.probe,
            "images": self.right.shape[1],
            "augmented_seed": AUGMENTED_SEED,
            "augmented_draws": len(augmented),
            "data": self.data,
        }

    def answers(self) -> Answers:
        """Return which images are right, to be kept beside the figures."""
        return Answers(self.right, self.data["sha256"])


def evaluate(
    model: nn.Module, split: Split, note: str | None = None, *, draws: int = 1, batch_size: int | None = None
) -> Evaluation:
    """Measure a classifier.

    Args:
        model: a classifier with its published weights.
        split: the test split.
        note: what to say beside the source of the data.
        draws: how many times every image is warped at random, the same for every model.
        batch_size: see :func:`probabilities`.
    """
    clean = probabilities(model, split, batch_size=batch_size, title="clean")
    right = [_right(clean, split.labels)]
    for draw in range(draws):
        generator = torch.Generator().manual_seed(AUGMENTED_SEED + draw)
        warped = Augmentation().draw(len(split), split.images.shape[-1], generator)
        found = probabilities(model, split, warped, batch_size=batch_size, title=f"augmented {draw + 1}")
        right.append(_right(found, split.labels))
    error = calibration_error(clean, split.labels)
    return Evaluation(torch.stack(right), error, probe(model, split.images.shape[-1]), split.describe(note))


@torch.inference_mode()
def probe(model: nn.Module, side: int = 32) -> list[float]:
    """Return what a classifier says of stripes that anyone can draw, rounded to four digits.

    Kept with the figures, it tells whether the code still computes with the weights what it was measured to.

    Args:
        model: a classifier; put into eval mode meanwhile.
        side: of the image, in pixels.
    """
    stripes = torch.arange(3 * side**2, dtype=torch.float64).mul(0.37).sin().float().view(1, 3, side, side)
    was_training = model.training
    logits = model.eval()(stripes.to(next(model.parameters()).device))
    model.train(was_training)
    return [round(logit, 4) for logit in logits[0].tolist()]


def calibration_error(found: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error (On Calibration of Modern Neural Networks, 1706.04599).

    Predictions are sorted into bins of equal width by their confidence; the error is the mean, weighted by
    the number of predictions, of the gap between a bin's confidence and its accuracy.

    Args:
        found: probabilities (N, classes).
        labels: (N,).
        bins: how many.

    Returns:
        0 to 1.
    """
    confidence, predicted = found.max(dim=1)
    right = (predicted == labels).to(confidence.dtype)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=confidence.dtype).index_add_(0, place, confidence - right)
    return float(gaps.abs().sum() / len(labels))


def fewer_draws(found: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Tell whether figures rest on fewer random warps of each image than others do."""
    return found.get("augmented_draws", 1) < known.get("augmented_draws", 1)


def with_unrounded(found: dict[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Add the top-1 before rounding to figures, which only :mod:`zoo.training.publish` can measure.

    Args:
        found: figures of the stored weights.
        known: other figures of the same weights, with ``top1_fp32`` or without.

    Returns:
        ``found``, and ``top1_fp32`` where ``known`` has it of the same images.
    """
    images = [figures.get("data", {}).get("sha256") for figures in (found, known)]
    if "top1_fp32" in known and images[0] == images[1]:
        return {**found, "top1_fp32": known["top1_fp32"]}
    return found


def as_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Round floats to half precision and back, as storing them in the weights folder does."""
    return {
        name: tensor.half().float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def place(model: nn.Module) -> nn.Module:
    """Move a model to the GPU where there is one, and to the memory layout that is fast on either."""
    model.to(device="cuda" if torch.cuda.is_available() else "cpu")
    return model.to(memory_format=torch.channels_last)


def table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Lay out names and their figures as text, one model a line."""
    lines = [["model", "clean %", "augmented %", "calibration error %"]]
    for name, found in rows:
        spread = f" +- {found['top1_augmented_std']:.2f}" if "top1_augmented_std" in found else ""
        sure = f"{found['calibration_error']:.1f}" if "calibration_error" in found else ""
        lines.append([name, f"{found['top1']:.2f}", f"{found['top1_augmented']:.2f}{spread}", sure])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
    )


def _right(found: Tensor, labels: Tensor) -> Tensor:
    """Return for which of N images the likeliest class is the label: (N,), bool."""
    return found.argmax(dim=1) == labels
