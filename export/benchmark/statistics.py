"""Percentiles, ratios of interleaved samples, and how far to trust them. Pure functions of numbers.

A machine's speed drifts: its clock, its temperature, its other users. Two candidates that are timed one right
after the other see the same machine, so their ratio is free of the drift, and the median over rounds is free
of the rounds in which something else disturbed one of the two.

A candidate's samples are ``rounds``: for every round the seconds of each call. What lasts as long as a pass
is the same in all of its rounds: so ratios come by pass, and an interval is over passes as over rounds.
"""

import functools
from collections.abc import Sequence
from statistics import NormalDist, median
from typing import NamedTuple

import numpy as np

Rounds = Sequence[Sequence[float]]

Ratios = Sequence[Sequence[float] | np.ndarray]
"""For every pass a ratio for each of its rounds."""

CONFIDENCE = 0.95
_RESAMPLES = 2000


class Latency(NamedTuple):
    """Percentiles over all calls, and the mean, in seconds."""

    p50: float
    p90: float
    p99: float
    mean: float


class Interval(NamedTuple):
    """An estimate and the bounds that hold it with the confidence asked for."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Tell whether ``value`` lies outside the bounds."""
        return not self.low <= value <= self.high


def latency(rounds: Rounds) -> Latency:
    """Summarise all calls of a candidate."""
    calls = np.concatenate([np.asarray(calls, float) for calls in rounds])
    p50, p90, p99 = np.percentile(calls, (50, 90, 99))
    return Latency(float(p50), float(p90), float(p99), float(calls.mean()))


def paired_ratios(rounds: Rounds, twin: Rounds) -> np.ndarray:
    """Return for each round the candidate's median call over its twin's.

    Raises:
        ValueError: the two were not timed in the same rounds.
    """
    pairs = zip(rounds, twin, strict=True)
    return np.array([median(calls) / median(others) for calls, others in pairs])


def by_pass(values: Sequence[float] | np.ndarray, lengths: Sequence[int]) -> Ratios:
    """Split what there is one of for each round into passes of these lengths; without any it is one pass."""
    if not lengths:
        return [tuple(values)]
    ends = np.cumsum(lengths)
    return [tuple(values[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


def bootstrap_median(ratios: Ratios, seed: int = 0) -> Interval:
    """Return the median and its percentile bootstrap interval; equal arguments give equal intervals.

    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; in two stages, passes and then
    rounds of each: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.)
    """
    return _interval(_median(ratios), _resampled_medians(tuple(map(tuple, ratios)), seed))


def paired_ratio(rounds: Rounds, twin: Rounds, seed: int = 0) -> Interval:
    """Return the latency over the twin's in one pass: the median over rounds of the ratio within each."""
    return bootstrap_median([paired_ratios(rounds, twin)], seed)


def change(now: Ratios, then: Ratios, seed: int = 0) -> Interval:
    """Return the ratio of two runs' medians; the runs are independent, so each is resampled by itself.

    Args:
        now, then: of :func:`paired_ratios`, by pass.
        seed: of the resampling.
    """
    resampled = [
        _resampled_medians(tuple(map(tuple, each)), seed + more) for more, each in enumerate((now, then))
    ]
    return _interval(_median(now) / _median(then), resampled[0] / resampled[1])


def mean_interval(values: np.ndarray) -> Interval:
    """Return the mean of independent values, so many that it is normally distributed, and its interval."""
    mean = float(values.mean())
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * float(values.std(ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - reach, mean + reach)


def _median(ratios: Ratios) -> float:
    return float(np.median(np.concatenate([np.asarray(each, float) for each in ratios])))


@functools.lru_cache(maxsize=8192)  # one table shows what another one does, and each asks anew
def _resampled_medians(ratios: tuple[tuple[float, ...], ...], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    lengths = np.array([len(each) for each in ratios])
    padded = np.full((len(ratios), lengths.max()), np.nan)
    for row, each in zip(padded, ratios, strict=True):
        row[: len(each)] = each
    passes = random.integers(0, len(ratios), (_RESAMPLES, len(ratios), 1))
    picks = random.integers(0, lengths[passes], (_RESAMPLES, *padded.shape))
    drawn = np.where(np.arange(padded.shape[1]) < lengths[passes], padded[passes, picks], np.nan)
    return np.nanmedian(drawn.reshape(_RESAMPLES, -1), axis=1)


def _interval(value: float, resampled: np.ndarray) -> Interval:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(resampled, (tail, 100 - tail))
    return Interval(value, float(low), float(high))
