"""Timing calls in turn: A B C, B C A, ..., so that whatever else the machine does hits all alike."""

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Clock = Callable[[], float]

SAMPLE = 5e-3
"""Seconds that a candidate's turn lasts at least: short calls are repeated within it."""

LEAST_ROUNDS = 5
"""Fewer say nothing about their own spread."""

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
    seconds: float = math.inf,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> list[list[list[float]]]:
    """Time every candidate once a round, in an order drawn anew for each round.

    Every turn opens with a call that is not timed: it brings the candidate's weights back into the caches
    that the others' have filled, as they would be where one model runs alone.

    Args:
        calls: one for each candidate; each returns when its result is there.
        turns: how many timed calls each candidate makes in a round.
        rounds: how many at most.
        seconds: after which no further round begins, once there are :data:`LEAST_ROUNDS`.
        seed: of the orders.
        clock: seconds since some moment.

    Returns:
        For each candidate its rounds, for each round the seconds of every call. All candidates have the same
        number of rounds.
    """
    samples: list[list[list[float]]] = [[] for _ in calls]
    start = clock()
    with _without_gc():
        for done, order in enumerate(orders(rounds, len(calls), seed)):
            if done >= LEAST_ROUNDS and clock() - start >= seconds:
                break
            for index in order:
                call = calls[index]
                call()
                samples[index].append([_timed(call, clock) for _ in range(turns[index])])
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
