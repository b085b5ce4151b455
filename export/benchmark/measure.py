"""Timing calls in turn, each beside the one it is compared with: A B, C B, then B A, B C, ...

Whatever else the machine does for longer than such a pair hits both alike.
"""

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

Clock = Callable[[], float]

SAMPLE = 5e-3
"""Seconds that a candidate's turn lasts at least: short calls are repeated within it."""

LEAST_ROUNDS = 5
"""Fewer say nothing about their own spread."""


class Samples(NamedTuple):
    """What was timed of one candidate: for each round the seconds of every call.

    Attributes:
        own: its calls.
        partner: those of its partner right before or after them; empty without one.
        seen: what the watch saw before each; empty without one.
    """

    own: list[list[float]]
    partner: list[list[float]]
    seen: Sequence[int] = ()


_MOST_CALLS = 1000
_WARM_SECONDS, _WARM_CALLS = 0.1, 3


def orders(rounds: int, count: int, seed: int) -> Iterator[list[int]]:
    """Yield for each round the order in which ``count`` candidates take their turns."""
    random = np.random.default_rng(seed)
    for _ in range(rounds):
        yield random.permutation(count).tolist()


def calls_per_turn(call: Callable[[], object], clock: Clock = time.perf_counter) -> int:
    """Warm a candidate up; return how many of its calls fill a turn of :data:`SAMPLE` seconds."""
    start, fastest, calls = clock(), math.inf, 0
    while calls < _WARM_CALLS or clock() - start < _WARM_SECONDS:
        fastest = min(fastest, _timed(call, clock))
        calls += 1
        if calls == _MOST_CALLS:
            break
    return max(1, min(_MOST_CALLS, math.ceil(SAMPLE / max(fastest, 1e-9))))


def interleave(
    calls: Sequence[Callable[[], object]],
    turns: Sequence[int],
    rounds: int,
    partners: Sequence[int | None] | None = None,
    seconds: float = math.inf,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    watch: Callable[[], int] | None = None,
) -> list[Samples]:
    """Time every candidate once a round, with its partner, in an order drawn anew for each round.

    Every turn opens with a call that is not timed: it brings the candidate's weights back into the caches
    that the others' have filled, as they would be where one model runs alone.

    Args:
        calls: one for each candidate; each returns when its result is there.
        turns: how many timed calls each candidate makes in a turn.
        rounds: how many at most.
        partners: for each candidate the index of the one to time beside it, or None; None is without any.
        seconds: after which no further round begins, once there are :data:`LEAST_ROUNDS`.
        seed: of the orders.
        clock: seconds since some moment.
        watch: looks at the machine before a candidate and its partner have their turns.

    Returns:
        The samples of each candidate. All have the same number of rounds.
    """
    seen: list[list[int]] = [[] for _ in calls]
    samples = [Samples([], [], each) for each in seen]
    beside = partners or [None] * len(calls)
    start = clock()

    def turn(index: int) -> list[float]:
        calls[index]()
        return [_timed(calls[index], clock) for _ in range(turns[index])]

    with _without_gc():
        for done, order in enumerate(orders(rounds, len(calls), seed)):
            if done >= LEAST_ROUNDS and clock() - start >= seconds:
                break
            for index in order:
                own, partner, _ = samples[index]
                pair = [(own, index)]
                if (other := beside[index]) is not None:
                    pair.append((partner, other))
                if watch is not None:
                    seen[index].append(watch())
                # Neither is always the first, in case that is worth something.
                for kept, each in pair[:: -1 if done % 2 else 1]:
                    kept.append(turn(each))
    return samples


def _timed(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Collect garbage now, and not while something is being timed."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
