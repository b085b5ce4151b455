"""What is allowed of one check: relative to which output, and how much more where rounding hides it."""

import numpy as np
import pytest

from export.parity import certify, reference

SIZE = (3, 12, 10)


@pytest.fixture(scope="module")
def expected(small):
    return reference(small("kw"))


def failing(certificate):
    return {check.name for check in certificate.failures}


def test_what_fp32_cannot_tell_is_excused_at_large_magnitude_only():
    def exact(images):
        return np.tile(np.array([1.0, 2.0]), (len(images), 1))

    def rough(images, by):
        return (exact(images) * (1 + by * (np.abs(images).max() > 10))).astype(np.float32)

    certificate = certify(lambda x: rough(x, -1.5e-4), lambda x: rough(x, 2e-5), SIZE, other_precision=exact)
    assert certificate.passed
    assert certificate.checks[-1].name == "magnitude 10"
    assert certificate.checks[-1].note == "rounding alone moves the eager model by 2e-05"
    assert certificate.checks[-1].allowed == pytest.approx(2e-4, rel=0.02)
    assert certificate.relaxed == certificate.checks[-1:]
    assert certificate.max_rel == 0
    assert not certify(lambda x: rough(x, -1.5e-4), lambda x: rough(x, 2e-5), SIZE).passed
    assert not certify(lambda x: rough(x, 0.2), lambda x: rough(x, 2e-5), SIZE, other_precision=exact).passed
    assert not certify(lambda x: exact(x) + 0.01, exact, SIZE, other_precision=exact).passed


def test_what_rounding_moves_further_is_not_judged(expected):
    def exact(images):
        return expected(images) * (1.0001 if loud(images, 25) else 1)

    def got(images, by):
        return expected(images) * np.float32(1 + by * loud(images, 25))

    for by in (0.0005, 0.05):
        certificate = certify(lambda x, by=by: got(x, by), expected, SIZE, other_precision=exact)
        assert certificate.passed
        assert certificate.checks[-1].name == "magnitude 10, halved"
        assert certificate.relaxed == ()


def loud(images, above):
    return np.abs(images).max() > above


@pytest.mark.parametrize("off", [99.0, np.nan], ids=["far off", "not a number"])
def test_where_fp32_cannot_tell_smaller_inputs_decide(expected, off):
    def exact(images):
        return expected(images) * (off if loud(images, 25) else 1)

    def got(images, above):
        return expected(images) * np.float32(5 if loud(images, above) else 1)

    certificate = certify(lambda x: got(x, 10), expected, SIZE, other_precision=exact)
    assert failing(certificate) == {"magnitude 10, halved"}
    certificate = certify(lambda x: got(x, 25), expected, SIZE, other_precision=exact)
    assert certificate.passed
    assert certificate.checks[-1].name == "magnitude 10, halved"
    assert certificate.relaxed == ()


def test_where_both_overflow_smaller_inputs_decide(expected):
    def overflowing(images):
        return expected(images) * (np.inf if loud(images, 25) else 1)

    certificate = certify(overflowing, expected, SIZE, other_precision=overflowing)
    assert certificate.passed
    assert certificate.checks[-1].name == "magnitude 10, halved"
    alone = certify(overflowing, expected, SIZE, other_precision=expected)
    assert failing(alone) == {"magnitude 10"}
    assert alone.failures[0].note == "outputs are not finite"


@pytest.mark.parametrize("off", [99.0, np.inf], ids=["far off", "not finite"])
def test_a_reference_that_is_off_everywhere_excuses_nothing(expected, off):
    def got(images):
        return expected(images) * np.float32(5 if loud(images, 3) else 1)

    certificate = certify(got, expected, SIZE, other_precision=lambda images: off * expected(images))
    failure = certificate.failures[-1]
    assert failure.name.startswith("magnitude 10, halved")
    assert failure.allowed == 1e-4
    assert failure.note.startswith("cannot judge")


def test_a_reference_that_raises_in_fp64_is_a_failed_check(expected):
    def exact(images):
        raise RuntimeError("no fp64 here")

    certificate = certify(lambda images: 2 * expected(images), expected, SIZE, other_precision=exact)
    assert certificate.checks[-1].note == "RuntimeError: no fp64 here"


def test_a_quiet_sample_is_held_to_its_own_outputs():
    def want(images):
        return np.linspace([1], 0.02, len(images), dtype=np.float32) * np.array([1, 0.5], np.float32)

    def got(images):
        return want(images) + np.array([1e-5, 0], np.float32)

    assert certify(got, want, SIZE).checks[0].passed
    assert not certify(got, want, SIZE).checks[1].passed


def test_a_silent_sample_beside_a_loud_one_may_round():
    def want(images):
        return np.eye(len(images), 2, dtype=np.float32)

    assert certify(lambda images: want(images) + np.float32(3e-7), want, SIZE).checks[-1].passed
    assert not certify(lambda images: want(images) + np.float32(3e-6), want, SIZE).checks[-1].passed
