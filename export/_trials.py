"""What a parity certificate asks of an artifact; :mod:`export.parity` judges the answers."""

from collections.abc import Iterator
from dataclasses import dataclass

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
        inputs: (N, C, H, W), float32.
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
    """A source of random inputs of one size, (channels, height, width)."""

    random: np.random.Generator
    size: tuple[int, int, int]

    def normal(self, count: int) -> np.ndarray:
        """Return ``count`` samples of the standard normal distribution."""
        return self.random.standard_normal((count, *self.size), dtype=np.float32)

    def unlike(self, count: int) -> np.ndarray:
        """Return samples of unlike contrast and brightness, so that a context which leaks is seen."""
        scale = self.random.uniform(0.3, 3, (count, 1, 1, 1))
        shift = self.random.uniform(-1, 1, (count, 1, 1, 1))
        return (self.normal(count) * scale + shift).astype(np.float32)


@dataclass(frozen=True)
class ImageDraws(Draws):
    """A source of given images, ``(N, C, H, W)``, for artifacts that know the range of images alone."""

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
    pixels: tuple[np.ndarray, np.ndarray] | None,
) -> Iterator[Trial]:
    """Yield the trials about how inputs lie in memory, and about extreme values."""
    few = batch or _FEW
    shape = (few, *draws.size)
    low, high = pixels if pixels is not None else (-np.ones(shape[1]), np.ones(shape[1]))
    coins = draws.random.integers(0, 2, shape)
    inputs = {
        "memory order NHWC": np.ascontiguousarray(draws.normal(few).transpose(0, 2, 3, 1)).transpose(
            0, 3, 1, 2
        ),
        "every second of a larger array": draws.normal(2 * few)[::2],
        "all zeros": np.zeros(shape, np.float32),
        "all ones": np.ones(shape, np.float32),
        "darkest and brightest pixels": np.where(coins, high[:, None, None], low[:, None, None]).astype(
            np.float32
        ),
    }
    for name, array in inputs.items():
        yield Trial(name, few, array, predict, expected)
    loud = _MAGNITUDE * draws.normal(few)
    yield Trial(f"magnitude {_MAGNITUDE}", few, loud, predict, expected, other_precision)


def about_images(predict: Predict, expected: Predict, images: np.ndarray, batch: int | None) -> Trial:
    """Return the trial on real images."""
    size = batch or _CHUNK
    return Trial("real images", size, images, _chunked(predict, size), _chunked(expected, size))


def _chunked(predict: Predict, size: int) -> Predict:
    """Return the function that runs images in batches of ``size``, filling the last with the first ones."""

    def run(inputs: np.ndarray) -> np.ndarray:
        rows = [np.arange(start, start + size) % len(inputs) for start in range(0, len(inputs), size)]
        return np.concatenate([predict(inputs[row]) for row in rows])[: len(inputs)]

    return run
