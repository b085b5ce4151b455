"""The two ends of an artifact: normalised images in and logits out, or pixels in and probabilities out."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from export.base import ExportOptions, Predict
from zoo.errors import ZooError


@dataclass(frozen=True)
class Ends:
    """Those of the model itself: images (N, C, H, W), float32, normalised; logits (N, classes).

    Attributes:
        mean, std: that inputs are normalised by, of each channel, for pixels from 0 to 1; empty where the
            model does not say.
        output: what comes out, for people.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    output: ClassVar[str] = "logits"

    @property
    def input(self) -> str:
        """What goes in, for people."""
        return "float32 NCHW, normalised by mean and std" if self.mean else "float32 NCHW"

    @property
    def pixels(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The normalised values (C,) of a black and of a white pixel."""
        if not self.mean:
            return None
        mean, std = np.array(self.mean), np.array(self.std)
        return -mean / std, (1 - mean) / std

    def around(self, network: nn.Module) -> nn.Module:
        """Return what is exported of ``network``."""
        return network

    def around_eager(self, predict: Predict) -> Predict:
        """Return what an artifact with these ends should compute, from what the model computes."""
        return predict

    def given(self, images: np.ndarray) -> np.ndarray:
        """Return normalised images as an artifact takes them."""
        return images


class PixelEnds(Ends):
    """Pixels (N, H, W, C), uint8, as decoders write them; probabilities (N, classes)."""

    output = "probabilities"

    @property
    def input(self) -> str:
        """What goes in, for people."""
        return "uint8 NHWC, from 0 to 255"

    def around(self, network: nn.Module) -> nn.Module:
        """Return ``network`` between a normalisation and a softmax."""
        return _OfPixels(network, self.mean, self.std)

    def around_eager(self, predict: Predict) -> Predict:
        """Return a function of pixels that gives the softmax of what the model computes of them."""

        def probabilities(pixels: np.ndarray) -> np.ndarray:
            images = (pixels / 255 - np.array(self.mean)) / np.array(self.std)
            logits = predict(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32))
            shares = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
            return (shares / shares.sum(axis=-1, keepdims=True)).astype(np.float32)

        return probabilities

    def given(self, images: np.ndarray) -> np.ndarray:
        """Return the pixels closest to normalised images."""
        unit = images.transpose(0, 2, 3, 1) * np.array(self.std) + np.array(self.mean)
        return np.ascontiguousarray((255 * unit).round().clip(0, 255).astype(np.uint8))


def ends(model: nn.Module, options: ExportOptions, outputs: int) -> tuple[Ends, Ends]:
    """Return the ends of the model itself, and those that its artifact gets.

    Args:
        model: its ``pretrained_cfg`` says how inputs are normalised.
        options: with the input size filled in.
        outputs: how many outputs the model has.

    Raises:
        ZooError: pixels are asked for, and the model does not say how to normalise them, or its probabilities
            would say nothing.
    """
    assert options.input_size is not None
    channels = options.input_size[0]
    config = getattr(model, "pretrained_cfg", None) or {}
    mean, std = (_numbers(config.get(name)) for name in ("mean", "std"))
    if not len(mean) == len(std) == channels:
        mean = std = ()
    plain = Ends(mean, std)
    if not options.preprocess:
        return plain, plain
    if not mean:
        raise ZooError(
            "the model's pretrained_cfg does not say how its inputs are normalised; give it mean and std of "
            f"{channels} channels, or export without preprocessing."
        )
    if outputs < 2:
        raise ZooError(
            "the model has one output, and the softmax of one is 1 whatever the image; export without "
            "preprocessing."
        )
    return plain, PixelEnds(mean, std)


def _numbers(values: object) -> tuple[float, ...]:
    return tuple(float(value) for value in values) if isinstance(values, list | tuple) else ()


class _OfPixels(nn.Module):
    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.training = network.training  # of this module alone: a network may hold frozen parts
        self.network = network
        scale = 1 / (255 * torch.tensor(std).view(-1, 1, 1))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", -255 * torch.tensor(mean).view(-1, 1, 1) * scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return the probabilities (N, classes) of x (N, H, W, C), uint8."""
        x = x.permute(0, 3, 1, 2).to(self.scale.dtype)
        return self.network(x * self.scale + self.shift).softmax(dim=-1)
