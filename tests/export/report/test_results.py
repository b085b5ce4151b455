"""docs/results.md: what the manifest, the evaluation and the benchmarks say, in the right columns."""

from dataclasses import replace

import pytest
import torch

from export.benchmark.plan import Candidate
from export.report import benchmarks, curves, results
from zoo.training.answers import Answers
from zoo.training.invariance import STEPS

from .helpers import rows

TWIN, KW = "resnet18_static", "resnet18_kw"


def entry(top1, seconds=3600, started_from=None):
    figures = {"top1": top1, "top1_augmented": top1 - 20}
    return {
        "figures": figures,
        "bytes": 2_000_000,
        "seconds": seconds,
        "images_seen": 1000,
        "device": "CPU",
        "started_from": started_from,
    }


def followed(top1, unchanged):
    """Return curves that are flat but for rotation: 10 less over its second half."""
    found = {"top1": {}, "unchanged": {}, "images": 100}
    for what, level in (("top1", top1), ("unchanged", unchanged)):
        for name, steps in STEPS.items():
            half = len(steps) // 2 if name == "rotation" else len(steps)
            found[what][name] = {str(step): level - 10 * (index >= half) for index, step in enumerate(steps)}
    return found


@pytest.fixture
def known(monkeypatch):
    manifest = {
        KW: entry(62.0, started_from={"seconds": 1800, "images_seen": 500, "started_from": None}),
        TWIN: entry(60.0),
        "resnet10_kw": {**entry(1.0), "figures": None},
    }
    evaluation = {TWIN: followed(50.0, 40.0), KW: followed(56.0, 45.5)}
    monkeypatch.setattr(results, "read_manifest", lambda: manifest)
    for module in (results, curves):
        monkeypatch.setattr(module, "read_evaluation", lambda: evaluation)
    monkeypatch.setattr(results, "read_answers", dict)
    monkeypatch.setattr(results, "_params", lambda: {TWIN: 10_000_000, KW: 15_000_000})
    monkeypatch.setattr(results, "_latency", lambda root: {})
    monkeypatch.setattr(results.records, "training_times", lambda root: {KW: 2.04})
    return evaluation


def test_accuracy_has_the_twin_first_and_only_what_was_evaluated(known, tmp_path):
    twin, kw = rows(results.accuracy(tmp_path))
    assert twin == [
        "`resnet18_static`",
        "60.00 %",
        "40.00 %",
        "45.0 %",
        "50.0 %",
        "50.0 %",
        "34.8 %",
        "",
    ]
    assert kw[0] == "`resnet18_kw`"
    assert results.accuracy(tmp_path).endswith("are of 100 images.")
    known.pop(KW)
    assert rows(results.accuracy(tmp_path))[1][3:] == [""] * 5


def test_the_calibration_error_is_the_manifests(known, tmp_path):
    results.read_manifest()[KW]["figures"]["calibration_error"] = 3.25
    assert [row[-1] for row in rows(results.accuracy(tmp_path))] == ["", "3.2 %"]


def test_aims_that_are_met_stand_out(known, tmp_path, monkeypatch):
    aims = (("clean", "on CPUs", 62, (KW, TWIN)), ("augmented", "with a GPU", 41, (KW, "resnet10_kw")))
    monkeypatch.setattr(results, "AIMS", aims)
    results.read_manifest()[TWIN]["device"] = "H200"
    results.read_manifest()[KW]["device"] = "CPU Some, 2 threads"
    made = "unrecorded, then CPU"
    assert rows(results.aims(tmp_path)) == [
        ["clean", "on CPUs", "62 %", f"`resnet18_kw` **62.00 %** ({made}), `resnet18_static` 60.00 % (H200)"],
        ["augmented", "with a GPU", "41 %", f"`resnet18_kw` **42.00 %** ({made}), `resnet10_kw` no weights"],
    ]


def test_gains_are_points_over_the_twin_and_costs_multiples_of_it(known, tmp_path):
    assert rows(results.against_twin(tmp_path)) == [
        ["`resnet18_kw`", "+2.0", "+2.0", "+6.0", "+6.0", "+6.0", "+5.5", "1.50x", "", "2.0x"]
    ]
    for other in ({"images": 50}, {"data": {"sha256": "others"}}, None):
        known[TWIN] = other and {**followed(50.0, 40.0), **other}
        assert rows(results.against_twin(tmp_path))[0][3:7] == [""] * 4


def test_gains_have_an_interval_where_it_is_known_which_images_are_right(known, tmp_path, monkeypatch):
    """Of 100 images the twin has 60 right; kw loses 2 of them and gains 4. Warped, kw has one draw more."""
    twin = torch.arange(100) < 60
    kw = (twin & (torch.arange(100) >= 2)) | ((torch.arange(100) >= 60) & (torch.arange(100) < 64))
    given = {
        TWIN: Answers(torch.stack([twin, twin, twin]), "a"),
        KW: Answers(torch.stack([kw, kw, twin, ~twin]), "a"),
    }
    monkeypatch.setattr(results, "read_answers", lambda: given)
    # Variance 0.06 - 0.02^2 of an image, times 100 / 99: 1.96 deviations of the mean are 4.8 points. The
    # mean of two draws, of which one brings nothing, is half of it.
    assert rows(results.against_twin(tmp_path))[0][1:3] == ["+2.0 [-2.8, +6.8]", "+1.0 [-1.4, +3.4]"]
    given[TWIN] = Answers(given[TWIN].right, "of other images")
    assert rows(results.against_twin(tmp_path))[0][1:3] == ["+2.0", "+2.0"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(90, "2 min"), (3599, "60 min"), (3600, "1.0 h"), (9000, "2.5 h")]
)
def test_short_trainings_are_told_in_minutes(seconds, said):
    assert results._duration(seconds) == said


def test_what_a_model_was_trained_on_has_the_runs_before(known, tmp_path):
    entry = results.read_manifest()[KW]
    entry["started_from"] |= {"device": "GPU", "started_from": {**entry["started_from"], "device": "GPU"}}
    assert rows(results.costs(tmp_path))[1][4].endswith(" h, GPU, then CPU")


def test_costs_add_up_the_runs_that_a_model_started_from(known, tmp_path):
    assert rows(results.costs(tmp_path))[1][:5] == [
        "`resnet18_kw`",
        "15.00 M",
        "2.0 MB",
        "1,500",
        "1.5 h, unrecorded, then CPU",
    ]


def test_latency_is_that_of_the_latest_results(make_run, tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    ours = Candidate(KW, "onnx", batch=1)
    for name, date, tax in (("a", "2026-03-01", 3.0), ("b", "2026-01-01", 2.0)):
        run = make_run({ours: tax})
        run.environment["date"] = date
        (folder / f"{name}.json").write_text(run.to_json())
    assert results._latency(tmp_path)[KW][0].tax.value == pytest.approx(3.0, rel=0.05)
    # Later, but on another device, in another precision, or with another lowering.
    others = (replace(ours, device="cuda"), replace(ours, dtype="bf16"), replace(ours, lowering="rows"))
    run = make_run(dict.fromkeys(others, 9.0))
    run.environment["date"] = "2026-04-01"
    (folder / "c.json").write_text(run.to_json())
    assert results._latency(tmp_path)[KW][0].tax.value == pytest.approx(3.0, rel=0.05)


def test_latency_is_that_of_most_threads_even_where_it_is_older(make_run, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for name, date, threads, tax in (("a", "2026-03-01", 1, 3.0), ("b", "2026-01-01", 2, 2.0)):
        run = make_run({Candidate(KW, batch=1, threads=threads): tax})
        run.environment["date"] = date
        (tmp_path / f"benchmarks/{name}.json").write_text(run.to_json())
    found, where = results._latency(tmp_path)[KW]
    assert where == "a CPU (AVX2)"
    assert (found.result.candidate.threads, round(found.tax.value, 1)) == (2, 2.0)


def test_latency_is_that_of_the_largest_results_even_where_they_are_older(make_run, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    ours = Candidate(KW, batch=1)
    for name, date, taxes in (
        ("a", "2026-01-01", {ours: 2.0, replace(ours, runtime="openvino"): 2.0}),
        ("b", "2026-03-01", {ours: 3.0}),
    ):
        run = make_run(taxes)
        run.environment["date"] = date
        (tmp_path / f"benchmarks/{name}.json").write_text(run.to_json())
    assert results._latency(tmp_path)[KW][0].tax.value == pytest.approx(2.0, rel=0.05)


def test_latency_is_on_near_cores_even_where_far_ones_have_more(make_run, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    ours = Candidate(KW, batch=1, threads=2)
    far = replace(ours, cores="far")
    for name, taxes in (
        ("a", {far: 4.0, replace(far, batch=8): 4.0}),
        ("b", {replace(ours, cores="near"): 2.0}),
    ):
        (tmp_path / f"benchmarks/{name}.json").write_text(make_run(taxes).to_json())
    assert results._latency(tmp_path)[KW][0].tax.value == pytest.approx(2.0, rel=0.05)


def test_latency_is_that_of_whole_machines(make_run, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for name, date, usable, tax in (("a", "2026-01-01", 2, 1.5), ("b", "2026-03-01", 1, 4.0)):
        run = make_run({Candidate(KW, batch=1): tax})
        run.environment.update(date=date, cores=2, usable_cores=usable)
        (tmp_path / f"benchmarks/{name}.json").write_text(run.to_json())
    assert results._latency(tmp_path)[KW][0].tax.value == pytest.approx(1.5, rel=0.05)


def test_the_headline_has_the_most_threads(make_run, tmp_path):
    path = tmp_path / "results.json"
    two = Candidate(KW, batch=1, threads=2)
    path.write_text(make_run({replace(two, threads=1): 2.0, two: 3.0}).to_json())
    assert {row.result.candidate.threads for row in benchmarks.headline(path)} == {2}


def test_a_picture_is_drawn_anew_when_its_models_change(known, tmp_path):
    pytest.importorskip("matplotlib")
    ((name, (source, draw)),) = curves.pictures(tmp_path).items()
    assert name == "docs/images/curves_resnet18.png"
    draw(tmp_path / "drawn.png")
    assert source.encode() in (tmp_path / "drawn.png").read_bytes()
    known[KW] = followed(10.0, 10.0)
    assert curves.pictures(tmp_path)[name][0] != source
