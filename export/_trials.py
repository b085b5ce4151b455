"""What a parity certificate asks of an artifact; :mod:`export.parity` judges the answers."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from export.base import Predict

BATCHES = (1, 2, 3, 5, 8, 17)
"""Batch sizes that certify a dynamic batch; none of them is ``export.base.TRACE_BATCH``."""

_FEW = 3
_MIXED = 8
_CHUNK = 16
_MAGNITUDE = 10


@dataclass(frozen=True)
class Trial:
    """One question: do ``got`` and ``want`` agree on ``inputs``?

    Attributes:
        name: of the check.
        batch: how many inputs the artifact takes at a time.
        inputs: (N, C, H, W), float32, or pixels (N, H, W, C), uint8.
        got: the artifact.
        want: what it should compute.
        other_precision: ``want`` in another precision, where rounding alone may move it far.
    """

    name: str
    batch: int
    inputs: np.ndarray
    got: Predict
    want: Predict
    other_precision: Predict | None = None


@dataclass(frozen=True)
class Draws:
    """A source of random inputs (N, C, H, W), float32.

    Attributes:
        random: the generator.
        size: (channels, height, width).
        pixels: the least and the greatest normalised pixel of each channel, (C,) each; None means -1 and 1.
    """

    random: np.random.Generator
    size: tuple[int, int, int]
    pixels: tuple[np.ndarray, np.ndarray] | None = field(default=None, kw_only=True)

    def normal(self, count: int) -> np.ndarray:
        """Return ``count`` samples of the standard normal distribution."""
        return self.random.standard_normal((count, *self.size), dtype=np.float32)

    def unlike(self, count: int) -> np.ndarray:
        """Return samples of unlike contrast and brightness, so that a context which leaks is seen."""
        scale = self.random.uniform(0.3, 3, (count, 1, 1, 1))
        shift = self.random.uniform(-1, 1, (count, 1, 1, 1))
        images = self.normal(count)
        if images.dtype == np.uint8:
            values = 128 + (images - 128.0) * scale + 40 * shift
            return values.clip(0, 255).astype(np.uint8)
        return (images * scale + shift).astype(np.float32)

    def unusual(self, count: int) -> dict[str, np.ndarray]:
        """Return samples that lie in memory in another way, and extreme ones, by name."""
        channels = self.size[0]
        low, high = self.pixels or (-np.ones(channels), np.ones(channels))
        coins = self.random.integers(0, 2, (count, *self.size))
        extreme = np.where(coins, high[:, None, None], low[:, None, None]).astype(np.float32)
        return {
            "memory order NHWC": _relaid(self.normal(count), 1, 3),
            "every second of a larger array": self.normal(2 * count)[::2],
            "all zeros": np.zeros((count, *self.size), np.float32),
            "all ones": np.ones((count, *self.size), np.float32),
            "darkest and brightest pixels": extreme,
        }

    def loud(self, count: int) -> dict[str, np.ndarray]:
        """Return samples of a magnitude that no image has, by name."""
        return {f"magnitude {_MAGNITUDE}": _MAGNITUDE * self.normal(count)}


class PixelDraws(Draws):
    """A source of random pixels (N, H, W, C), uint8."""

    def normal(self, count: int) -> np.ndarray:
        """Return ``count`` images of pixels that are drawn one by one."""
        channels, height, width = self.size
        return self.random.integers(0, 256, (count, height, width, channels), np.uint8)

    def unusual(self, count: int) -> dict[str, np.ndarray]:
        """Return images that lie in memory in another way, and extreme ones, by name."""
        images = self.normal(count)
        return {
            "memory order NCHW": _relaid(images, 3, 1),
            "every second of a larger array": self.normal(2 * count)[::2],
            "all black": np.zeros_like(images),
            "all white": np.full_like(images, 255),
            "black and white values": np.where(self.normal(count) < 128, np.uint8(0), np.uint8(255)),
        }

    def loud(self, count: int) -> dict[str, np.ndarray]:
        """Return nothing: pixels have one range."""
        return {}


@dataclass(frozen=True)
class ImageDraws(Draws):
    """A source of given images or their pixels, for artifacts that know the range of images alone."""

    images: np.ndarray

    def normal(self, count: int) -> np.ndarray:
        """Return ``count`` of the images."""
        return self.images[self.random.integers(len(self.images), size=count)]


def about_batches(predict: Predict, expected: Predict, draws: Draws, batch: int | None) -> Iterator[Trial]:
    """Yield the trials about batch sizes, and about samples that share a batch.

    The latter hold the artifact against itself: a model that mixes samples agrees with its artifact.
    """
    for size in BATCHES if batch is None else (batch,) * _FEW:
        yield Trial("fresh inputs", size, draws.normal(size), predict, expected)
    mixed = batch or _MIXED
    if mixed == 1:
        return
    some = min(mixed, _FEW if batch else _MIXED)  # each costs a run of a whole fixed batch
    order = np.roll(np.arange(mixed), 1)

    def together(inputs: np.ndarray) -> np.ndarray:
        return predict(inputs)[:some]

    def alone(inputs: np.ndarray) -> np.ndarray:
        # A fixed batch is filled with copies of the one sample.
        return np.concatenate(
            [predict(np.repeat(one[None], batch or 1, axis=0))[:1] for one in inputs[:some]]
        )

    def reordered(inputs: np.ndarray) -> np.ndarray:
        return predict(inputs[order])[order.argsort()]

    yield Trial("mixed batch against single samples", mixed, draws.unlike(mixed), together, alone)
    yield Trial("batch in another order", mixed, draws.unlike(mixed), predict, reordered)


def about_inputs(
    predict: Predict,
    expected: Predict,
    other_precision: Predict | None,
    draws: Draws,
    batch: int | None,
) -> Iterator[Trial]:
    """Yield the trials about how inputs lie in memory, and about extreme values."""
    few = batch or _FEW
    for name, inputs in draws.unusual(few).items():
        yield Trial(name, few, inputs, predict, expected)
    for name, inputs in draws.loud(few).items():
        yield Trial(name, few, inputs, predict, expected, other_precision)


def about_images(predict: Predict, expected: Predict, images: np.ndarray, batch: int | None) -> Trial:
    """Return the trial on real images."""
    size = batch or _CHUNK
    return Trial("real images", size, images, _chunked(predict, size), _chunked(expected, size))


def _relaid(images: np.ndarray, axis: int, place: int) -> np.ndarray:
    """Return equal images whose ``axis`` lies at ``place`` in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(images, axis, place)), place, axis)


def _chunked(predict: Predict, size: int) -> Predict:
    """Return the function that runs images in batches of ``size``, filling the last with the first ones."""

    def run(inputs: np.ndarray) -> np.ndarray:
        rows = [np.arange(start, start + size) % len(inputs) for start in range(0, len(inputs), size)]
        return np.concatenate([predict(inputs[row]) for row in rows])[: len(inputs)]

    return run
