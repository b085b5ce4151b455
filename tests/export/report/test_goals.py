"""The table of goals, made of runs alone."""

from export.benchmark.plan import Candidate
from export.report.goals import goals

from .helpers import cells

KW = Candidate("resnet18_kw", batch=8)
PEER = Candidate("resnet18_kw", lowering="grouped", batch=8)
SE = Candidate("resnet18_se", batch=8)


def test_the_page_says_which_goals_were_met(tmp_path, make_run):
    (tmp_path / "benchmarks").mkdir()
    fgk = {
        Candidate("resnet18_fgk", batch=8): 0.75,
        Candidate("resnet18_fgk", "openvino", batch=8): 1.05,
        Candidate("resnet18_fgk", threads=2): 0.9,
        Candidate("mobilenetv2_100_fgk", batch=8): 1.295,  # its interval reaches beyond
    }
    run = make_run({KW: 1.5, PEER: 1.2, SE: 1.0, **fgk}, noise=0.02)
    (tmp_path / "benchmarks/cpu.json").write_text(run.to_json())
    header, _, *lines, _, sums = goals(tmp_path).splitlines()
    assert cells(header) == ["model", "runtime", "goal", "batch 8, 1 thread", "batch 1, 2 threads"]
    rows = {tuple(found[:2]): found[2:] for found in map(cells, lines)}
    assert list(rows) == [
        ("`mobilenetv2_100_fgk`", "onnx"),
        ("`resnet18_fgk`", "onnx"),
        ("`resnet18_kw`", "onnx"),
        ("`resnet18_fgk`", "openvino"),
    ]
    goal, one, two = rows["`resnet18_fgk`", "onnx"]
    assert goal == "0.7 / 0.8"
    assert one.startswith("**0.7")
    assert two.startswith("0.9")
    assert rows["`resnet18_kw`", "onnx"][1].startswith("1.5")
    assert rows["`resnet18_fgk`", "openvino"][0] == "1.0 / 1.1"
    assert rows["`resnet18_fgk`", "openvino"][1].startswith("**1.0")
    assert rows["`mobilenetv2_100_fgk`", "onnx"][1].startswith("1.")
    assert sums == "a CPU (AVX2), `cpu.json`: met are 2 of 4 with 1 thread; 0 of 1 with 2 threads."


def test_a_goal_measured_twice_on_a_machine_counts_as_the_latest_has_it(tmp_path, make_run):
    (tmp_path / "benchmarks").mkdir()
    for name, isa, day, tax in (("a", "AVX512", 3, 1.2), ("b", "AVX512", 2, 1.5), ("c", "AVX2", 1, 1.4)):
        run = make_run({Candidate("resnet18_kw", batch=8): tax})
        run.environment.update(isa=isa, date=f"2026-11-0{day}")
        (tmp_path / f"benchmarks/{name}.json").write_text(run.to_json())
    first, sums, second, others = goals(tmp_path).split("\n\n")
    assert cells(first.splitlines()[-1])[-1].startswith("**1.2")
    assert cells(second.splitlines()[-1])[-1].startswith("1.4")
    assert sums == "a CPU (AVX512), `a.json`: met are 1 of 1 with 1 thread."
    assert others == "a CPU (AVX2), `c.json`: met are 0 of 1 with 1 thread."


def test_a_goal_measured_twice_counts_as_the_larger_file_has_it(tmp_path, make_run):
    (tmp_path / "benchmarks").mkdir()
    kw, fgk = Candidate("resnet18_kw", batch=8), Candidate("resnet18_fgk", batch=8)
    for name, day, taxes in (("part", 3, {kw: 1.2}), ("whole", 2, {kw: 1.5, fgk: 0.9})):
        run = make_run(taxes)
        run.environment["date"] = f"2026-11-0{day}"
        (tmp_path / f"benchmarks/{name}.json").write_text(run.to_json())
    table, sums = goals(tmp_path).split("\n\n")
    assert cells(table.splitlines()[-1])[-1].startswith("1.5")
    assert sums == "a CPU (AVX2), `whole.json`: met are 0 of 2 with 1 thread."


def test_a_run_on_some_of_the_cores_does_not_count(tmp_path, make_run):
    (tmp_path / "benchmarks").mkdir()
    for name, usable, day, tax in (("part", 1, 3, 1.2), ("whole", 2, 2, 1.5)):
        run = make_run({Candidate("resnet18_kw", batch=8): tax})
        run.environment.update(cores=2, usable_cores=usable, date=f"2026-11-0{day}")
        (tmp_path / f"benchmarks/{name}.json").write_text(run.to_json())
    table, sums = goals(tmp_path).split("\n\n")
    assert cells(table.splitlines()[-1])[-1].startswith("1.5")
    assert sums == "a CPU (AVX2), `whole.json`: met are 0 of 1 with 1 thread."


def test_cores_at_a_distance_count_as_the_file_has_it_that_met_them_most(tmp_path, make_run):
    """A run on near cores met far ones at one batch size, and an earlier run the other way round."""
    (tmp_path / "benchmarks").mkdir()
    near = {batch: Candidate("resnet18_kw", threads=2, batch=batch, cores="near") for batch in (1, 8)}
    far = {batch: Candidate("resnet18_kw", threads=2, batch=batch, cores="far") for batch in (1, 8)}
    for name, day, taxes in (
        ("late", 2, {near[1]: 1.6, near[8]: 1.7, far[1]: 1.8}),
        ("early", 1, {far[1]: 2.6, far[8]: 2.7, near[8]: 2.8}),
    ):
        run = make_run(taxes)
        run.environment["date"] = f"2026-11-0{day}"
        (tmp_path / f"benchmarks/{name}.json").write_text(run.to_json())
    table, sums = goals(tmp_path).split("\n\n")
    header, _, line = map(cells, table.splitlines())
    ways = ["batch 1, 2 threads, cores near", "batch 8, 2 threads, cores near"]
    ways += ["batch 1, 2 threads, cores far", "batch 8, 2 threads, cores far"]
    assert header[3:] == ways
    assert [cell[:3] for cell in line[3:]] == ["1.6", "1.7", "2.6", "2.7"]
    assert "`early.json`" in sums
    assert "`late.json`" in sums
