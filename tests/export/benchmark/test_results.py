"""Runs, their file, and the tables and comparisons that are made of it."""

import csv
import dataclasses
import json

import pytest

from export.benchmark import compare, profile, render
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
    passes = tuple(dataclasses.replace(result, passes=(7, 5)) for result in run.results)
    path = tmp_path / "results.json"
    for each in (run, dataclasses.replace(run, results=passes)):
        path.write_text(each.to_json())
        assert read(path) == each
    commanded = dataclasses.replace(run, command="python -m export.benchmark --quick")
    assert "command" not in json.loads(path.read_text())  # as in files that no command wrote
    path.write_text(commanded.to_json())
    assert read(path) == commanded
    # A line for each result, so that a diff of two files says which.
    assert sum(line.startswith('  {"model"') for line in path.read_text().splitlines()) == 4
    older = rewritten(tmp_path, run, lambda record: [row.pop("fixed") for row in record["results"]])
    assert read(older) == run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.update(format=99), r"is not a results.json of this version \(.* 99, not 1\)"),
        (lambda record: record.update(format=profile.FORMAT), "format is 'breakdown.*without --breakdown"),
        (lambda record: record.pop("results"), "is damaged"),
        (lambda record: record["results"][0].pop("batch"), "is damaged .*batch"),
        (lambda record: record["results"][0].update(rounds_ns=[]), "a round without calls"),
        (lambda record: record["results"][1].update(rounds_ns=[[1], []]), "a round without calls"),
        (lambda record: record["results"][1]["twin_ns"].pop(), "a twin of other rounds"),
        (lambda record: record["results"][1].update(passes=[5, 5]), "passes of other rounds"),
        (lambda record: record["results"][1].update(handoff_ns=[150]), "ways between cores of other rounds"),
        (lambda record: record.update(command=["python"]), "a command that is no text"),
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


def test_tables_tell_artifacts_of_one_batch_size_from_the_others(make_run):
    fixed = dataclasses.replace(KW, fixed=True)
    table = render.rows(make_run({KW: 1.5, fixed: 1.25}))
    records = {record["fixed"]: record for record in csv.DictReader(render.to_csv(table).splitlines())}
    assert {name: round(float(each["tax"]), 1) for name, each in records.items() if each["tax"]} == {
        "False": 1.5,
        "True": 1.2,
    }
    assert "| resnet18_kw | onnx fixed | 8 |" in render.to_markdown(table)


def test_the_legend_says_where_and_what_was_left_out(make_run):
    legend = render.legend(make_run({KW: 1.5}))
    for words in ("a CPU (AVX2), 2 cores", "torch 2.15.0", "skipped eager on cuda: there is none"):
        assert words in legend
    assert "openvino" not in legend


def slower_later(run, factor):
    """Return the run with the dynamic candidates' calls of the second half of the rounds so much longer."""

    def change(result):
        if not result.twin_ns:
            return result
        middle = len(result.rounds_ns) // 2
        later = [[round(factor * call) for call in calls] for calls in result.rounds_ns[middle:]]
        return dataclasses.replace(result, rounds_ns=[*result.rounds_ns[:middle], *later])

    return dataclasses.replace(run, results=tuple(map(change, run.results)))


def test_rows_of_two_regimes_are_named(make_run):
    steady, odd = make_run({KW: 3.0, PEER: 2.0}), make_run({KW: 3.0}, rounds=5)
    assert "Unsteady" not in render.legend(steady)
    assert "Unsteady" not in render.legend(slower_later(steady, 1.1))
    for factor in (0.5, 1.25):
        legend = render.legend(slower_later(steady, factor))
        (line,) = [line for line in legend.splitlines() if line.startswith("Unsteady, the tax of all ")]
        rows = line.partition("of a single one: ")[2].removesuffix(".").split("; ")
        for row, label, tax in zip(rows, ("resnet18_kw", "resnet18_kw (grouped)"), (3.0, 2.0), strict=True):
            assert row.startswith(f"{label} onnx, batch 8, 1 thread ")
            whole, first, _, second = row.replace(":", "").split()[-4:]
            assert float(first) == pytest.approx(tax, rel=0.03)
            assert float(second) == pytest.approx(factor * tax, rel=0.03)
            assert min(float(first), float(second)) <= float(whole) <= max(float(first), float(second))
    assert "resnet18_kw onnx, batch 8, 1 thread" in render.legend(slower_later(odd, 2.0))


def test_a_pass_unlike_the_others_is_named_wherever_it_lies(make_run):
    """Its rounds are the middle ones, which halves would share out."""
    run = make_run({KW: 3.0})
    static, dynamic = run.results
    other = [[2 * call for call in calls] for calls in dynamic.rounds_ns[4:8]]
    rounds = [*dynamic.rounds_ns[:4], *other, *dynamic.rounds_ns[8:]]
    one = dataclasses.replace(dynamic, rounds_ns=rounds)
    three = dataclasses.replace(one, passes=(4, 4, 4))
    legends = [
        render.legend(dataclasses.replace(run, results=(static, each)))
        for each in (dataclasses.replace(dynamic, passes=(4, 4, 4)), one, three)
    ]
    assert ["Unsteady" in legend for legend in legends] == [False, False, True]
    (line,) = [line for line in legends[-1].splitlines() if line.startswith("Unsteady")]
    each = [float(tax) for tax in line.rstrip(".").rpartition(": ")[2].split(" / ")]
    assert each == pytest.approx([3, 6, 3], rel=0.03)
    (row,) = [row for row in render.rows(dataclasses.replace(run, results=(static, three))) if row.tax]
    assert row.tax.value == pytest.approx(3.0, rel=0.03)
    assert row.tax.high > 5.5


def test_a_further_pass_goes_behind_the_others(make_run):
    _, dynamic = make_run({KW: 1.5}).results
    whole = dataclasses.replace(dynamic, passes=(12,)).longer([[0.003, 0.004]] * 2, [[0.002]] * 2)
    assert whole.passes == (12, 2)
    assert [len(ratios) for ratios in whole.ratios] == [12, 2]
    assert whole.ratios[1] == pytest.approx((1.75, 1.75))
    assert whole.longer([[0.003]], []) is whole


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


def test_lowerings_that_changed_are_said_once_for_all_batch_sizes(make_run):
    one = dataclasses.replace(KW, batch=1)
    old = make_run({KW: 1.5, one: 1.5, DPK: 2.0})

    def other(result):
        return dataclasses.replace(result, lowerings={"unfold": 2, "rows": 6})

    results = tuple(other(each) if each.candidate in (KW, one) else each for each in old.results)
    new = dataclasses.replace(old, results=results)
    said = "resnet18_kw on onnx: 8 x unfold then, 6 x rows, 2 x unfold now"
    assert compare.relowered(new, old) == [said]
    assert compare.relowered(old, old) == []
    assert compare.to_text(compare.moves(new, old), new, old).splitlines()[-1] == f"  {said}"


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
