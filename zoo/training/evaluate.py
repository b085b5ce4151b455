"""Top-1 accuracy of a classifier: clean, augmented, and against the angle of rotation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.training._require import progress_bar
from zoo.training.augment import Augmentation, inverse_affine, normalise, warp
from zoo.training.data import Split

AUGMENTED_SEED = 0
ANGLES = (0, 30, 60, 90, 120, 150, 180)


@torch.inference_mode()
def top1(
    model: nn.Module,
    split: Split,
    maps: Tensor | None = None,
    *,
    batch_size: int = 250,
    title: str = "evaluate",
) -> float:
    """Return the top-1 accuracy in percent.

    Args:
        model: a classifier of (N, 3, H, W); put into eval mode meanwhile, run where its parameters are.
        split: N images and labels.
        maps: (N, 2, 3), a warp for each image (see :func:`zoo.training.augment.warp`); None: none.
        batch_size: images a forward pass.
        title: shown beside the progress bar.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    correct = 0
    for start in progress_bar(range(0, len(split), batch_size), desc=title, unit=" batches"):
        rows = slice(start, start + batch_size)
        images = split.images[rows].to(device)
        inputs = normalise(images) if maps is None else warp(images, maps[rows])
        logits = model(inputs.contiguous(memory_format=torch.channels_last))
        correct += int((logits.argmax(1).cpu() == split.labels[rows]).sum())
    model.train(was_training)
    return 100 * correct / len(split)


def figures(
    model: nn.Module, split: Split, note: str | None = None, *, rotations: bool = False, batch_size: int = 250
) -> dict[str, Any]:
    """Return the figures that the weights manifest keeps for a model.

    Args:
        model: a classifier with its published weights.
        split: the test split.
        note: what to say beside the source of the data.
        rotations: also measure at every angle of ``ANGLES``.
        batch_size: images a forward pass.

    Returns:
        ``top1``, ``top1_augmented`` and, by degrees, ``top1_rotated``, in percent; what they rest on.
    """

    def measure(title: str, maps: Tensor | None = None) -> float:
        return round(top1(model, split, maps, batch_size=batch_size, title=title), 2)

    generator = torch.Generator().manual_seed(AUGMENTED_SEED)
    warped = Augmentation().draw(len(split), split.images.shape[-1], generator)
    measured: dict[str, Any] = {"top1": measure("clean"), "top1_augmented": measure("augmented", warped)}
    if rotations:
        measured["top1_rotated"] = {
            str(angle): measure(f"rotated by {angle}", rotation_maps(len(split), angle)) for angle in ANGLES
        }
    return measured | {
        "images": len(split),
        "augmented_seed": AUGMENTED_SEED,
        "data": split.describe(note),
    }


def rotation_maps(count: int, degrees: float) -> Tensor:
    """Return ``count`` times the map, (count, 2, 3), that turns an image clockwise about its centre."""
    zero = torch.zeros(count)
    linear = inverse_affine(zero + degrees, zero + 1, zero, zero)
    return torch.cat([linear, torch.zeros(count, 2, 1)], dim=2)


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
    """Lay out names and their :func:`figures` as text, one model a line.

    Args:
        rows: at least one, all measured with or all without rotations.
    """
    angles = list(rows[0][1].get("top1_rotated", ()))
    lines = [["model", "clean %", "augmented %", *(f"{angle} deg" for angle in angles)]]
    for name, found in rows:
        percent = [
            found["top1"],
            found["top1_augmented"],
            *(found["top1_rotated"][angle] for angle in angles),
        ]
        lines.append([name, *(f"{value:.2f}" for value in percent)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
    )
