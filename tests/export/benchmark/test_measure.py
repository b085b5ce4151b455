import gc
import statistics

import pytest

from export.benchmark.measure import LEAST_ROUNDS, calls_per_turn, interleave, orders


class Machine:
    """A machine on which time passes only while it works, ever more slowly.

    Args:
        slowdown: by how much it is slower after each second.
    """

    def __init__(self, slowdown=0.0):
        self.now = 0.0
        self.slowdown = slowdown
        self.log = []

    def clock(self):
        return self.now

    def call(self, name, seconds):
        def run():
            self.log.append(name)
            self.now += seconds * (1 + self.slowdown * self.now)

        return run


def test_every_order_is_a_permutation_and_they_differ():
    found = list(orders(50, 6, seed=0))
    assert all(sorted(order) == list(range(6)) for order in found)
    assert len({tuple(order) for order in found}) > 40
    assert {order[0] for order in found} == set(range(6))
    assert found == list(orders(50, 6, seed=0)) != list(orders(50, 6, seed=1))


def test_all_candidates_take_their_turn_in_every_round():
    machine = Machine()
    calls = [machine.call(name, 1.0) for name in "abc"]
    samples = interleave(calls, [1, 2, 3], rounds=7, clock=machine.clock)
    assert [[len(turn) for turn in each.own] for each in samples] == [[1] * 7, [2] * 7, [3] * 7]
    assert all(each.partner == [] for each in samples)
    log = iter(machine.log)
    for order in orders(7, 3, seed=0):
        for index in order:
            turn = [next(log) for _ in range(1 + [1, 2, 3][index])]  # the first is not timed
            assert turn == ["abc"[index]] * len(turn)
    assert next(log, None) is None


def test_the_first_call_of_a_turn_is_not_timed():
    """A cold call takes a second, the next ones a millisecond."""
    machine = Machine()
    last = []

    def call(name):
        def run():
            machine.now += 1e-3 if last == [name] else 1.0
            last[:] = [name]

        return run

    samples = interleave([call("a"), call("b")], [2, 2], rounds=6, clock=machine.clock)
    assert max(max(turn) for each in samples for turn in each.own) == pytest.approx(1e-3)


def test_a_partner_has_its_turn_right_beside():
    machine = Machine()
    calls = [machine.call(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 4.0))]
    samples = interleave(calls, [1, 1, 1], 6, [2, 2, None], clock=machine.clock)
    assert [each.partner for each in samples] == [[[4.0]] * 6, [[4.0]] * 6, []]
    assert [each.own[0] for each in samples] == [[1.0], [2.0], [4.0]]
    turns = machine.log[::2]  # each is one untimed and one timed call
    for number, order in enumerate(orders(6, 3, seed=0)):
        pairs = [("ac", "bc", "c")[index][:: -1 if number % 2 else 1] for index in order]
        assert "".join(turns[5 * number : 5 * number + 5]) == "".join(pairs)


def test_interleaving_cancels_the_drift_that_misleads_blocks():
    def ratio(samples):
        slow, fast = ([statistics.median(turn) for turn in each.own] for each in samples)
        return statistics.median(a / b for a, b in zip(slow, fast, strict=True))

    # A turn of two calls and an untimed one slows the machine by a twentieth; all rounds, fourfold.
    machine = Machine(slowdown=0.02)
    both = [machine.call("slow", 0.3), machine.call("fast", 0.2)]
    samples = interleave(both, [2, 2], rounds=40, clock=machine.clock)
    assert samples[0].own[-1][-1] > 3 * samples[0].own[0][0]
    assert ratio(samples) == pytest.approx(1.5, rel=0.05)

    machine = Machine(slowdown=0.02)
    apart = [
        interleave([machine.call(*one)], [2], rounds=40, clock=machine.clock)[0]
        for one in (("fast", 0.2), ("slow", 0.3))
    ]
    assert ratio(reversed(apart)) > 2


def test_no_round_begins_after_the_time_is_over():
    machine = Machine()
    samples = interleave([machine.call("a", 1.0)], [1], rounds=1000, seconds=60, clock=machine.clock)
    assert len(samples[0].own) == 30
    samples = interleave([machine.call("a", 1.0)], [1], rounds=1000, seconds=0.1, clock=machine.clock)
    assert len(samples[0].own) == LEAST_ROUNDS


@pytest.mark.parametrize(("seconds", "calls"), [(1.0, 1), (2**-10, 6), (2**-14, 82), (0.0, 1000)])
def test_short_calls_fill_a_turn(seconds, calls):
    """The times are powers of two, which a clock adds up without rounding; a turn lasts 5 ms."""
    machine = Machine()
    assert calls_per_turn(machine.call("a", seconds), machine.clock) == calls
    assert len(machine.log) >= 3


@pytest.mark.parametrize("fails", [False, True])
def test_no_garbage_is_collected_meanwhile(fails):
    seen = []

    def call():
        seen.append(gc.isenabled())
        if fails:
            raise RuntimeError("broken")

    if fails:
        with pytest.raises(RuntimeError, match="broken"):
            interleave([call], [1], rounds=5)
    else:
        interleave([call], [1], rounds=5)
    assert set(seen) == {False}
    assert gc.isenabled()
