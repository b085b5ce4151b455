import dataclasses
import json
import math

import pytest

from export.certificate import Certificate, CertificateError, Check

GOOD = Check("fresh inputs", 5, 5, 1e-6, 2e-7, 1e-4, 1.0, True)
BAD = Check("mixed batch", 8, 8, math.nan, math.inf, 1e-4, 0.25, False, "outputs are not finite")


def certificate(*checks):
    return Certificate("torch 2, cpu", "eager", 1e-4, 0, (3, 8, 8), None, checks)


def test_it_passes_when_every_check_does():
    assert certificate(GOOD, GOOD).passed
    assert not certificate(GOOD, BAD).passed
    assert certificate(GOOD, BAD).failures == (BAD,)


def test_no_check_is_no_pass():
    assert not certificate().passed


def test_the_worst_error_and_the_images_are_over_all_checks():
    worse = dataclasses.replace(GOOD, max_rel=3e-5)
    assert certificate(worse, GOOD).max_rel == 3e-5
    assert certificate(worse, dataclasses.replace(GOOD, max_rel=0.1, allowed=1.0)).max_rel == 3e-5
    assert certificate(GOOD, GOOD).images == 10
    assert math.isnan(certificate(GOOD, dataclasses.replace(GOOD, max_rel=math.nan)).max_rel)


def test_json_is_strict_and_whole():
    record = json.loads(certificate(GOOD, BAD).to_json(artifact="net.pt"), parse_constant=pytest.fail)
    assert record["artifact"] == "net.pt"
    assert record["passed"] is False
    assert record["checks"][0] == dataclasses.asdict(GOOD)
    assert record["checks"][1]["max_abs"] is None
    assert record["checks"][1]["max_rel"] is None


def test_the_summary_is_aligned():
    heading, *rows = certificate(GOOD, BAD).summary().splitlines()
    assert [row.index("  ", 2) > 0 for row in rows] == [True, True]
    assert all(row[heading.index("top-1") + 5 :].startswith(("  ok", "  FAILED: ")) for row in rows)
    assert rows[0].split() == ["fresh", "inputs", "5", "5", "1.0e-06", "2.0e-07", "100.0%", "ok"]


def test_the_error_shows_the_failures_only():
    text = str(CertificateError(certificate(GOOD, BAD), "net.pt"))
    assert text.startswith(
        "net.pt failed 1 of 2 parity checks and was not kept (relative error allowed: 1e-04):\n"
    )
    assert "mixed batch" in text
    assert "fresh inputs" not in text
