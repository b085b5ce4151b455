import numpy as np
import pytest

from export.benchmark import statistics
from export.benchmark.statistics import (
    bootstrap_median,
    by_pass,
    change,
    latency,
    mean_interval,
    paired_ratio,
    paired_ratios,
)


def test_latency_is_over_all_calls():
    """101 calls of 0 to 100 ms, split over rounds of unlike length."""
    calls = [number / 1e3 for number in range(101)]
    found = latency([calls[:70], calls[70:71], calls[71:]])
    assert found == pytest.approx((0.050, 0.090, 0.099, 0.050))


def test_the_paired_ratio_is_right_where_the_unpaired_is_not():
    """The candidate is 1.5 times as slow; the machine slows down tenfold, and hits one call of each round."""
    random = np.random.default_rng(0)
    drift = np.geomspace(1, 10, 30)[:, None]
    twin = drift * random.uniform(0.98, 1.02, (30, 5))
    slow = 1.5 * drift * random.uniform(0.98, 1.02, (30, 5))
    slow[:, 2] *= 20
    found = paired_ratio(slow, twin)
    assert found.value == pytest.approx(1.5, rel=0.02)
    assert found.low <= 1.5 <= found.high
    assert found.high - found.low < 0.05
    assert not 1.3 < np.mean(slow) / np.mean(twin) < 1.7
    # Without the pairing, the drift is all that the interval sees.
    spread = change([np.median(slow, axis=1)], [np.median(twin, axis=1)])
    assert spread.high - spread.low > 10 * (found.high - found.low)


def test_runs_of_one_after_the_other_would_mislead():
    """All of the twin's calls, then all of the candidate's: the ratio is the machine's, not the model's."""
    drift = np.geomspace(1, 4, 40)[:, None]
    assert np.median(1.5 * drift[20:]) / np.median(drift[:20]) > 2.5
    assert paired_ratio(1.5 * drift, drift).value == pytest.approx(1.5)


def test_rounds_must_be_the_same():
    with pytest.raises(ValueError, match="zip"):
        paired_ratios([[1.0], [2.0]], [[1.0]])


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(1)
    hits = 0
    for seed in range(300):
        found = bootstrap_median([random.lognormal(0.0, 0.1, 25)], seed)
        hits += found.low <= 1.0 <= found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_the_interval_follows_from_its_arguments():
    values = np.random.default_rng(2).normal(5, 1, 20)
    assert bootstrap_median([values], 3) == bootstrap_median([values], 3)
    # A median can only be one of the values or between two, so single seeds often agree.
    assert len({bootstrap_median([values], seed) for seed in range(10)}) > 1
    assert bootstrap_median([[2.0] * 5]) == (2.0, 2.0, 2.0)
    few, many = values[:6], np.tile(values, 50)
    width = [found.high - found.low for found in map(bootstrap_median, ([few], [many]))]
    assert width[0] > 3 * width[1]


def test_passes_that_differ_widen_the_interval_to_hold_them():
    """Three passes of a candidate whose speed depends on where it was loaded: no round of one knows of it."""
    random = np.random.default_rng(5)
    passes = [random.normal(each, 0.01, 8) for each in (1.5, 1.8, 1.6)]
    found, alone = bootstrap_median(passes), bootstrap_median([np.concatenate(passes)])
    assert found.value == alone.value == pytest.approx(1.6, abs=0.02)
    assert found.low < 1.52
    assert found.high > 1.78
    assert found.high - found.low > alone.high - alone.low
    assert not change(passes, [[1.75] * 8]).excludes(1)
    assert change([np.concatenate(passes)], [[1.9] * 8]).excludes(1)


def test_the_interval_covers_the_truth_where_passes_differ():
    random = np.random.default_rng(6)
    hits = {"by pass": 0, "as one": 0}
    for seed in range(200):
        passes = [random.lognormal(random.normal(0, 0.1), 0.02, 5) for _ in range(8)]
        for name, ratios in (("by pass", passes), ("as one", [np.concatenate(passes)])):
            found = bootstrap_median(ratios, seed)
            hits[name] += found.low <= 1.0 <= found.high
    assert hits["by pass"] >= 0.85 * 200
    assert hits["as one"] <= 0.75 * 200


def test_passes_are_parts_of_the_rounds():
    assert by_pass([1, 2, 3, 4, 5], [2, 3]) == [(1, 2), (3, 4, 5)]
    assert by_pass([1, 2], []) == [(1, 2)]
    uneven = bootstrap_median([[1.0] * 3, [2.0] * 9])
    assert uneven == (2.0, 1.0, 2.0)


@pytest.mark.parametrize(("factor", "excludes"), [(1.0, False), (1.1, True), (0.9, True)])
def test_a_change_beyond_the_noise_is_told_from_none(factor, excludes):
    random = np.random.default_rng(3)
    then, now = random.normal(1.7, 0.05, 40), factor * random.normal(1.7, 0.05, 40)
    found = change([now], [then])
    assert found.value == pytest.approx(factor, rel=0.03)
    assert found.excludes(1) is excludes


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    """Of rights and wrongs: 3 % of the images gained, 2 % lost."""
    random = np.random.default_rng(4)
    hits = 0
    for _ in range(400):
        found = mean_interval(random.choice([-1.0, 0.0, 1.0], 4000, p=[0.02, 0.95, 0.03]))
        hits += found.low <= 0.01 <= found.high
    assert 0.92 <= hits / 400 <= 0.98
    assert mean_interval(np.array([1.0, 3.0])) == pytest.approx((2.0, 2 - 1.96, 2 + 1.96), abs=1e-4)


def test_an_interval_excludes_what_is_outside():
    found = statistics.Interval(1.2, 1.1, 1.3)
    assert [found.excludes(value) for value in (1.0, 1.1, 1.2, 1.3, 1.4)] == [True, False, False, False, True]
