"""What the pages say of results, made of runs alone."""

from dataclasses import replace

import pytest

from export.benchmark import plot
from export.benchmark.plan import Candidate
from export.benchmark.results import read
from export.report import benchmarks, files
from zoo.errors import ZooError

from .helpers import cells

KW, DPK = Candidate("resnet18_kw", batch=8), Candidate("resnet18_dpk", batch=8)


@pytest.fixture
def checkout(make_run, tmp_path):
    """A checkout with results of one machine."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs/images").mkdir(parents=True)
    (tmp_path / "benchmarks/cpu.json").write_text(make_run({KW: 1.5, DPK: 2.5}).to_json())
    return tmp_path


def test_pages_show_every_file_of_results(checkout, make_run):
    other = {Candidate("resnet18_kw"): 1.25, replace(DPK, runtime="openvino"): 2.0}
    (checkout / "benchmarks/other.json").write_text(make_run(other).to_json())
    path = checkout / "benchmarks/cpu.json"
    path.write_text(replace(read(path), command="python -m export.benchmark --model resnet18_kw").to_json())
    text = benchmarks.sections(checkout)
    assert text.count("### `benchmarks/") == 2
    assert text.count("</details>") == 2
    assert text.count("\na CPU (AVX2), 2026-11-21.\n") == 2
    assert text.count("```sh\npython -m export.benchmark --model resnet18_kw\n```") == 1
    assert "![accuracy against latency](images/benchmark_cpu.png)" in text


def test_taxes_at_a_glance_are_of_one_run_a_column(checkout, make_run):
    openvino = replace(KW, runtime="openvino")
    later = make_run({replace(KW, batch=1): 1.25, openvino: 2.0, replace(KW, batch=32): 9.0, KW: 8.0})
    later.environment["date"] = "2026-11-22T00:00:00+00:00"
    (checkout / "benchmarks/later.json").write_text(later.to_json())
    table, origin = benchmarks.taxes(checkout).split("\n\n")
    header, _, *lines = map(cells, table.splitlines())
    assert header == ["model", "onnx, batch 1", "onnx, batch 8", "openvino, batch 8"]
    rows = {name.strip("`"): rest for name, *rest in lines}
    assert list(rows) == ["resnet18_static", "resnet18_kw", "resnet18_dpk"]
    assert all(cell.endswith(" ms") for cell in rows["resnet18_static"])
    # At batch 8 in onnx the earlier file has more models; it does not have the others.
    assert [cell[:3] for cell in rows["resnet18_kw"]] == ["1.2", "1.5", "2.0"]
    assert [cell[:3] for cell in rows["resnet18_dpk"]] == ["", "2.5", ""]
    later, before = "2026-11-22, `benchmarks/later.json`", "2026-11-21, `benchmarks/cpu.json`"
    assert f"onnx at batch 1 and openvino: a CPU (AVX2), 1 thread, {later}" in origin
    assert f"onnx at batch 8: a CPU (AVX2), 1 thread, {before}" in origin


@pytest.mark.parametrize(
    "change", [{"runtime": "eager"}, {"dtype": "int8"}, {"fixed": True}, {"batch": 32}], ids=str
)
def test_at_a_glance_are_formats_in_fp32_for_any_batch(change, checkout, make_run):
    (checkout / "benchmarks/cpu.json").write_text(make_run({KW: 1.5, replace(KW, **change): 2.5}).to_json())
    assert benchmarks.taxes(checkout).splitlines()[0] == "| model | onnx, batch 8 |"


def test_of_two_files_with_as_many_models_the_later_counts(checkout, make_run):
    for name, date, tax in (("a", "2026-11-23", 4.0), ("b", "2026-11-22", 3.0)):
        run = make_run({KW: tax, DPK: tax})
        run.environment["date"] = date
        (checkout / f"benchmarks/{name}.json").write_text(run.to_json())
    assert "`benchmarks/a.json`" in benchmarks.taxes(checkout)
    assert "| `resnet18_kw` | 4.0" in benchmarks.taxes(checkout)


def test_a_run_on_some_of_the_cores_is_not_at_a_glance(checkout, make_run):
    whole, part = make_run({KW: 1.5}), make_run({KW: 4.0})
    whole.environment.update(cores=2, usable_cores=2, date="2026-11-22")
    part.environment.update(cores=2, usable_cores=1, date="2026-11-23")
    for name, run in (("cpu", whole), ("part", part)):
        (checkout / f"benchmarks/{name}.json").write_text(run.to_json())
    assert "`benchmarks/cpu.json`" in benchmarks.taxes(checkout)
    assert "part.json" not in benchmarks.taxes(checkout)


def test_held_runs_are_at_a_glance_where_there_are_no_others(checkout, make_run):
    run = make_run({KW: 4.0})
    run.environment.update(cores=2, usable_cores=1)
    (checkout / "benchmarks/cpu.json").write_text(run.to_json())
    assert "| `resnet18_kw` | 4.0" in benchmarks.taxes(checkout)


def test_a_backbone_has_a_table_of_its_own(checkout, make_run):
    run = make_run({Candidate("mobilenetv2_100_kw", device="cuda"): 3.0})
    (checkout / "benchmarks/other.json").write_text(run.to_json())
    first, _, second, _ = benchmarks.taxes(checkout).split("\n\n")
    assert "| `resnet18_kw` |" in first
    assert second.startswith("| model | onnx cuda, batch 1 |")


def test_the_page_compares_runtimes(make_run, tmp_path):
    run = make_run({KW: 1.5, replace(KW, runtime="openvino", threads=2): 2.5})
    object.__setattr__(run.results[0], "memory_bytes", 123_400_000)
    (tmp_path / "benchmarks/runtimes").mkdir(parents=True)
    (tmp_path / "benchmarks/runtimes/cpu.json").write_text(run.to_json())
    table, _, legend = benchmarks.runtimes(tmp_path).partition("\n\n")
    assert "skipped eager on cuda" in legend
    header, _, *lines = table.splitlines()
    assert header == "| runtime | batch | threads | `resnet18_static` | `resnet18_kw` |"
    onnx, openvino = map(cells, lines)
    assert (onnx[:3], openvino[:3]) == (["onnx", "8", "1"], ["openvino", "8", "2"])
    assert " ms" in onnx[3]
    assert onnx[4].startswith("1.5")
    assert openvino[4].startswith("2.5")
    assert sum(cell.endswith("(123 MB)") for cell in onnx + openvino) == 1


def test_the_page_has_the_accuracy_of_todays_weights(checkout, monkeypatch):
    before = benchmarks.sections(checkout)
    source, _ = next(iter(benchmarks.pictures(checkout).values()))
    assert "12.34 %" not in before
    figures = {"resnet18_kw": {"figures": {"top1": 12.34}}}
    monkeypatch.setattr(benchmarks, "read_manifest", lambda: figures)
    assert "12.34 %" in benchmarks.sections(checkout)
    assert next(iter(benchmarks.pictures(checkout).values()))[0] != source


def test_models_timed_with_random_weights_have_todays_accuracy_in_fp32(checkout, make_run, monkeypatch):
    run = make_run({KW: 1.5, replace(KW, dtype="int8"): 1.2})
    results = tuple(replace(result, top1=None, trained=False) for result in run.results)
    (checkout / "benchmarks/cpu.json").write_text(replace(run, results=results).to_json())
    monkeypatch.setattr(benchmarks, "read_manifest", lambda: {"resnet18_kw": {"figures": {"top1": 12.34}}})
    lines = [line for line in benchmarks.sections(checkout).splitlines() if "| resnet18_kw |" in line]
    assert {line.split(" | ")[1]: line.endswith("12.34 % |") for line in lines} == {
        "onnx": True,
        "onnx int8": False,
    }


def test_pictures_are_drawn_when_the_results_change(checkout, make_run):
    pytest.importorskip("matplotlib")
    name = "docs/images/benchmark_cpu.png"
    ((drawn, (source, draw)),) = benchmarks.pictures(checkout).items()
    assert drawn == name
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    draw(checkout / name)
    assert source.encode() in (checkout / name).read_bytes()
    assert benchmarks.pictures(checkout)[name][0] == source
    (checkout / "benchmarks/cpu.json").write_text(make_run({KW: 1.6}).to_json())
    assert benchmarks.pictures(checkout)[name][0] != source


def test_a_picture_is_of_the_headline(checkout, make_run, monkeypatch, tmp_path):
    (checkout / "benchmarks/cpu.json").write_text(make_run({KW: 1.6, replace(KW, threads=2): 1.5}).to_json())
    drawn = []
    monkeypatch.setattr(plot, "draw", lambda table, path, source: drawn.extend(table))
    ((_, (_, draw)),) = benchmarks.pictures(checkout).items()
    draw(tmp_path / "picture.png")
    assert {row.result.candidate.threads for row in drawn} == {2}
    assert "![accuracy" in benchmarks.sections(checkout)


def test_a_headline_without_accuracy_has_no_picture(checkout, make_run):
    run = make_run({KW: 1.6, replace(KW, threads=2, dtype="int8"): 1.5})
    without = tuple(
        replace(result, top1=None) if result.candidate.dtype == "int8" else result for result in run.results
    )
    (checkout / "benchmarks/cpu.json").write_text(replace(run, results=without).to_json())
    assert not benchmarks.pictures(checkout)
    assert "![accuracy" not in benchmarks.sections(checkout)


def test_a_folder_without_results_is_that_of_this_checkout(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHECKOUT", checkout)
    assert files.committed(tmp_path / "elsewhere") == [checkout / "benchmarks/cpu.json"]
    (checkout / "benchmarks/cpu.json").unlink()
    with pytest.raises(
        ZooError,
        match=r"there are no results in .*elsewhere.benchmarks; .*export.benchmark --json FILE makes some",
    ):
        files.committed(tmp_path / "elsewhere")
