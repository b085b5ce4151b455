"""Runs, their file, and the tables and comparisons that are made of it."""

import csv
import json

import pytest

from export.benchmark import compare, render
from export.benchmark.plan import Candidate
from export.benchmark.results import read
from zoo.errors import ZooError

KW, DPK = Candidate("resnet18_kw", batch=8), Candidate("resnet18_dpk", batch=8)
PEER = Candidate("resnet18_kw", lowering="grouped", batch=8)
SE = Candidate("resnet18_se", batch=8)


def rewritten(tmp_path, run, change):
    record = json.loads(run.to_json())
    change(record)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(record))
    return path


def test_a_run_survives_its_file(make_run, tmp_path):
    run = make_run({KW: 1.5, PEER: 3.0, SE: 1.1})
    path = tmp_path / "results.json"
    path.write_text(run.to_json())
    assert read(path) == run
    # A line for each result, so that a diff of two files says which.
    assert sum(line.startswith('  {"model"') for line in path.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.update(format=99), "is not a results.json of this version"),
        (lambda record: record.pop("results"), "is damaged"),
        (lambda record: record["results"][0].pop("batch"), "is damaged .*batch"),
        (lambda record: record["results"][0].update(rounds_ns=[]), "a round without calls"),
        (lambda record: record["results"][1].update(rounds_ns=[[1], []]), "a round without calls"),
        (lambda record: record["results"][1]["twin_ns"].pop(), "a twin of other rounds"),
        (lambda record: record["environment"].pop("cpu"), "no cpu in the environment"),
    ],
)
def test_a_damaged_file_is_one_sentence(change, words, make_run, tmp_path):
    path = rewritten(tmp_path, make_run({KW: 1.5}), change)
    with pytest.raises(ZooError, match=words):
        read(path)


def test_what_is_no_file_of_results_is_said(tmp_path):
    with pytest.raises(ZooError, match=r"cannot read .*none\.json: No such file"):
        read(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("no")
    with pytest.raises(ZooError, match="is not JSON"):
        read(tmp_path / "text.json")


def test_the_tax_is_that_of_the_pairs_and_the_twin_stands_first(make_run):
    table = render.rows(make_run({DPK: 2.5, KW: 1.5, PEER: 3.0, SE: 1.1}))
    labels = [row.result.candidate.label for row in table]
    assert labels == [
        "resnet18_static",
        "resnet18_se",
        "resnet18_kw",
        "resnet18_dpk",
        "resnet18_kw (grouped)",
    ]
    assert table[0].tax is None
    for row, tax in zip(table[1:], (1.1, 1.5, 2.5, 3.0), strict=True):
        assert row.tax.value == pytest.approx(tax, rel=0.02)
        assert row.tax.low <= row.tax.value <= row.tax.high
        assert row.throughput == pytest.approx(8 / row.latency.mean)


def test_a_model_whose_twin_failed_has_no_tax(make_run):
    run = make_run({KW: 1.5})
    alone = type(run)(
        (type(run.results[1])(KW, run.results[1].rounds_ns),), run.environment, run.settings, run.notes
    )
    (row,) = render.rows(alone)
    assert row.tax is None
    assert render.tax_cell(row) == ""


def test_tables_agree_with_each_other(make_run):
    run = make_run({KW: 1.5})
    table = render.rows(run)
    text, marked = render.to_text(table), render.to_markdown(table)
    records = list(csv.DictReader(render.to_csv(table).splitlines()))
    assert [record["model"] for record in records] == ["resnet18_static", "resnet18_kw"]
    tax = f"{float(records[1]['tax']):.2f} [{float(records[1]['tax_low']):.2f}, "
    assert tax in text
    assert tax in marked
    assert records[0]["tax"] == ""
    assert "twin" in text
    p99 = f"{float(records[1]['p99_ms']):.2f}"
    assert p99 in text
    assert p99 in marked
    assert "1.50 M" in text
    assert "threads" not in text.splitlines()[0]  # because all have one
    both = render.to_text(render.rows(make_run({KW: 1.5, Candidate("resnet18_kw", threads=2): 1.4})))
    assert "threads" in both.splitlines()[0]


def test_the_legend_says_where_and_what_was_left_out(make_run):
    legend = render.legend(make_run({KW: 1.5}))
    for words in ("a CPU (AVX2), 2 cores", "torch 2.15.0", "skipped eager on cuda: there is none"):
        assert words in legend
    assert "openvino" not in legend


@pytest.mark.parametrize(
    ("then", "now", "verdict"), [(1.5, 1.5, "same"), (1.5, 1.8, "higher"), (3.0, 1.5, "lower")]
)
def test_two_runs_are_compared_by_their_taxes(then, now, verdict, make_run):
    """The machine of each run drifts threefold, which must not matter."""
    new, old = make_run({KW: now}, seed=1), make_run({KW: then, DPK: 2.0}, seed=2)
    (move,) = compare.moves(new, old)
    assert move.candidate == KW
    assert move.verdict == verdict
    assert move.ratio.value == pytest.approx(now / then, rel=0.03)
    assert verdict in compare.to_text([move], new, old)


def test_what_differs_between_the_machines_is_said(make_run):
    new, old = make_run({KW: 1.5}), make_run({KW: 1.5})
    old.environment["cpu"] = "another CPU"
    old.environment["versions"] = {"torch": "2.14.0"}
    assert compare.differences(new, old) == [
        "cpu: another CPU then, a CPU now",
        "torch 2.14.0 then, 2.15.0 now",
    ]


def test_runs_without_a_common_model_cannot_be_compared(make_run):
    with pytest.raises(ZooError, match="have no dynamic model in common"):
        compare.moves(make_run({KW: 1.5}), make_run({DPK: 1.5}))
