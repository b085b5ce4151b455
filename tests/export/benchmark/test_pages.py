"""Pictures and pages, made of runs alone."""

import json
from dataclasses import asdict, replace

import pytest

from export import cost
from export.benchmark import pages, plot, profile, render
from export.benchmark.attribution import CONVOLUTION, FACTORS, REST, STATIC_CONVOLUTION, Origin
from export.benchmark.environment import on_whole_machine
from export.benchmark.plan import Candidate
from export.benchmark.profile import Part, Profile
from export.benchmark.results import read
from zoo.errors import ZooError
from zoo.training import speed

KW, DPK = Candidate("resnet18_kw", batch=8), Candidate("resnet18_dpk", batch=8)
PEER = Candidate("resnet18_kw", lowering="grouped", batch=8)
SE = Candidate("resnet18_se", batch=8)
ORIGIN = {
    "date": "2026-01-01",
    "cpu": "one",
    "cores": 2,
    "usable_cores": 2,
    "gpu": None,
    "versions": {"torch": "2.0", "onnx": None},
    "commit": "abc",
}


def test_a_point_stands_where_its_tax_puts_it(make_run):
    table = render.rows(make_run({KW: 1.5, PEER: 3.0}))
    at = plot._positions(table)
    for row in table[1:]:
        assert at[row.result.candidate][0] == pytest.approx(row.tax.value * at[KW.twin][0])
    # Without its twin a model stands at its own latency.
    alone = plot._positions(table[1:])
    assert alone[KW][0] == pytest.approx(table[1].latency.p50 * 1e3)


def test_a_panel_for_each_way_to_run(make_run):
    run = make_run({KW: 1.5, Candidate("resnet18_kw", "openvino"): 1.2, PEER: 2.0})
    found = plot.panels(render.rows(run))
    assert [(title, len(points)) for title, points in found] == [
        ("onnx, batch 8, 1 thread", 3),
        ("openvino, batch 1, 1 thread", 2),
    ]


def test_the_picture_is_drawn_and_names_its_source(make_run, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "picture.png"
    plot.draw(render.rows(make_run({KW: 1.5, SE: 1.1, PEER: 2.0})), path, "the source")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert b"the source" in path.read_bytes()


@pytest.mark.parametrize(("accuracies", "ends"), [((86.1, 86.7), (85.4, 87.4)), ((60.0, 90.0), (55.5, 94.5))])
def test_accuracies_that_hardly_differ_do_not_look_far_apart(accuracies, ends, make_run):
    table = render.rows(make_run({KW: 1.5}))
    for row, top1 in zip(table, accuracies, strict=True):
        object.__setattr__(row.result, "top1", top1)
    assert plot._heights(table) == pytest.approx(ends)


def test_without_accuracy_there_is_no_picture(make_run, tmp_path):
    run = make_run({KW: 1.5})
    for result in run.results:
        object.__setattr__(result, "top1", None)
    with pytest.raises(
        ZooError, match="cannot draw accuracy against latency: none of the models has a top-1"
    ):
        plot.draw(render.rows(run), tmp_path / "picture.png")


ABOVE, BELOW, RIGHT = (0, 8), (0, -16), (9, -3)


@pytest.mark.parametrize(
    ("tax", "top1s", "places"),
    [
        (2.0, [86.7, 86.7], [ABOVE, ABOVE]),
        (1.02, [86.7, 86.7], [ABOVE, BELOW]),
        (1.02, [86.7, 86.55], [ABOVE, BELOW]),
        (1.02, [86.7, 86.0], [ABOVE, ABOVE]),
        (1.02, [86.7, 86.82], [BELOW, ABOVE]),
        (1.02, [86.7, 86.58, 86.82], [RIGHT, BELOW, ABOVE]),
    ],
    ids=["far to the right", "level", "just below", "far below", "just above", "below and above"],
)
def test_notes_of_neighbours_stand_apart(tax, top1s, places, make_run):
    figure = pytest.importorskip("matplotlib.figure")
    table = render.rows(make_run(dict.fromkeys([KW, SE][: len(top1s) - 1], tax)))
    for row, accuracy in zip(table, top1s, strict=True):
        object.__setattr__(row.result, "top1", accuracy)
    axes = figure.Figure().add_subplot()
    plot._panel(axes, "", table, {}, 2.0)
    assert [text.xyann for text in axes.texts] == places


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
    text = pages.sections(checkout)
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
    table, origin = pages.taxes(checkout).split("\n\n")
    header, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert header == ["model", "onnx, batch 1", "onnx, batch 8", "openvino, batch 8"]
    rows = {name.strip("`"): cells for name, *cells in lines}
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
    assert pages.taxes(checkout).splitlines()[0] == "| model | onnx, batch 8 |"


def test_of_two_files_with_as_many_models_the_later_counts(checkout, make_run):
    for name, date, tax in (("a", "2026-11-23", 4.0), ("b", "2026-11-22", 3.0)):
        run = make_run({KW: tax, DPK: tax})
        run.environment["date"] = date
        (checkout / f"benchmarks/{name}.json").write_text(run.to_json())
    assert "`benchmarks/a.json`" in pages.taxes(checkout)
    assert "| `resnet18_kw` | 4.0" in pages.taxes(checkout)


def test_a_run_on_some_of_the_cores_is_not_at_a_glance(checkout, make_run):
    whole, part = make_run({KW: 1.5}), make_run({KW: 4.0})
    whole.environment.update(cores=2, usable_cores=2, date="2026-11-22")
    part.environment.update(cores=2, usable_cores=1, date="2026-11-23")
    for name, run in (("cpu", whole), ("part", part)):
        (checkout / f"benchmarks/{name}.json").write_text(run.to_json())
    assert "`benchmarks/cpu.json`" in pages.taxes(checkout)
    assert "part.json" not in pages.taxes(checkout)


def test_held_runs_are_at_a_glance_where_there_are_no_others(checkout, make_run):
    run = make_run({KW: 4.0})
    run.environment.update(cores=2, usable_cores=1)
    (checkout / "benchmarks/cpu.json").write_text(run.to_json())
    assert "| `resnet18_kw` | 4.0" in pages.taxes(checkout)


@pytest.mark.parametrize(
    ("cores", "usable", "whole"), [(None, 2, True), (2, None, True), (2, 1, False), (2, 2, True)]
)
def test_a_run_is_held_where_the_system_says_so(cores, usable, whole):
    assert on_whole_machine({"cores": cores, "usable_cores": usable}) is whole
    assert on_whole_machine({})


def test_a_backbone_has_a_table_of_its_own(checkout, make_run):
    run = make_run({Candidate("mobilenetv2_100_kw", device="cuda"): 3.0})
    (checkout / "benchmarks/other.json").write_text(run.to_json())
    first, _, second, _ = pages.taxes(checkout).split("\n\n")
    assert "| `resnet18_kw` |" in first
    assert second.startswith("| model | onnx cuda, batch 1 |")


def test_the_page_compares_runtimes(make_run, tmp_path):
    run = make_run({KW: 1.5, replace(KW, runtime="openvino", threads=2): 2.5})
    object.__setattr__(run.results[0], "memory_bytes", 123_400_000)
    (tmp_path / "benchmarks/runtimes").mkdir(parents=True)
    (tmp_path / "benchmarks/runtimes/cpu.json").write_text(run.to_json())
    table, _, legend = pages.runtimes(tmp_path).partition("\n\n")
    assert "skipped eager on cuda" in legend
    header, _, *lines = table.splitlines()
    assert header == "| runtime | batch | threads | `resnet18_static` | `resnet18_kw` |"
    onnx, openvino = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert (onnx[:3], openvino[:3]) == (["onnx", "8", "1"], ["openvino", "8", "2"])
    assert " ms" in onnx[3]
    assert onnx[4].startswith("1.5")
    assert openvino[4].startswith("2.5")
    assert sum(cell.endswith("(123 MB)") for cell in onnx + openvino) == 1


def test_the_page_has_the_accuracy_of_todays_weights(checkout, monkeypatch):
    before = pages.sections(checkout)
    source, _ = next(iter(pages.pictures(checkout).values()))
    assert "12.34 %" not in before
    figures = {"resnet18_kw": {"figures": {"top1": 12.34}}}
    monkeypatch.setattr(pages, "read_manifest", lambda: figures)
    assert "12.34 %" in pages.sections(checkout)
    assert next(iter(pages.pictures(checkout).values()))[0] != source


def test_models_timed_with_random_weights_have_todays_accuracy_in_fp32(checkout, make_run, monkeypatch):
    run = make_run({KW: 1.5, replace(KW, dtype="int8"): 1.2})
    results = tuple(replace(result, top1=None, trained=False) for result in run.results)
    (checkout / "benchmarks/cpu.json").write_text(replace(run, results=results).to_json())
    monkeypatch.setattr(pages, "read_manifest", lambda: {"resnet18_kw": {"figures": {"top1": 12.34}}})
    lines = [line for line in pages.sections(checkout).splitlines() if "| resnet18_kw |" in line]
    assert {line.split(" | ")[1]: line.endswith("12.34 % |") for line in lines} == {
        "onnx": True,
        "onnx int8": False,
    }


def test_pictures_are_drawn_when_the_results_change(checkout, make_run):
    pytest.importorskip("matplotlib")
    name = "docs/images/benchmark_cpu.png"
    ((drawn, (source, draw)),) = pages.pictures(checkout).items()
    assert drawn == name
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    draw(checkout / name)
    assert source.encode() in (checkout / name).read_bytes()
    assert pages.pictures(checkout)[name][0] == source
    (checkout / "benchmarks/cpu.json").write_text(make_run({KW: 1.6}).to_json())
    assert pages.pictures(checkout)[name][0] != source


def test_a_picture_is_of_the_headline(checkout, make_run, monkeypatch, tmp_path):
    (checkout / "benchmarks/cpu.json").write_text(make_run({KW: 1.6, replace(KW, threads=2): 1.5}).to_json())
    drawn = []
    monkeypatch.setattr(plot, "draw", lambda table, path, source: drawn.extend(table))
    ((_, (_, draw)),) = pages.pictures(checkout).items()
    draw(tmp_path / "picture.png")
    assert {row.result.candidate.threads for row in drawn} == {2}
    assert "![accuracy" in pages.sections(checkout)


def test_a_headline_without_accuracy_has_no_picture(checkout, make_run):
    run = make_run({KW: 1.6, replace(KW, threads=2, dtype="int8"): 1.5})
    without = tuple(
        replace(result, top1=None) if result.candidate.dtype == "int8" else result for result in run.results
    )
    (checkout / "benchmarks/cpu.json").write_text(replace(run, results=without).to_json())
    assert not pages.pictures(checkout)
    assert "![accuracy" not in pages.sections(checkout)


def test_a_folder_without_results_is_that_of_this_checkout(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "_CHECKOUT", checkout)
    assert pages.results(tmp_path / "elsewhere") == {"cpu": checkout / "benchmarks/cpu.json"}
    (checkout / "benchmarks/cpu.json").unlink()
    with pytest.raises(ZooError, match=r"there are no results in .*--json benchmarks/NAME\.json makes some"):
        pages.results(tmp_path / "elsewhere")


@pytest.fixture
def profiled(tmp_path):
    """A checkout with a breakdown of one model beside its twin: 8 ms against 2 ms."""
    twin_parts = (Part(Origin("conv1", STATIC_CONVOLUTION, "Conv"), "Conv", 2e-3, 1),)
    parts = (
        Part(Origin("conv1", FACTORS, "Exp"), "Exp", 2e-3, 1),
        Part(Origin("conv1", CONVOLUTION, "MatMul"), "MatMul", 4e-3, 2),
        Part(Origin("", REST, "Relu"), "Relu", 1e-3, 1),
    )
    profiles = [
        Profile(KW.twin, 2e-3, 5, twin_parts),
        Profile(KW, 8e-3, 5, parts, {"moved": 2e6, "passed": 3e6, "constants": 1e6, "product": 12e6}),
    ]
    path = tmp_path / "benchmarks/breakdown/cpu.json"
    path.parent.mkdir(parents=True)
    path.write_text(profile.to_json(profiles, ORIGIN, {1: {"read": 12.3e9, "product": 78.9e9}}, ""))
    return tmp_path


def test_the_page_says_where_the_time_goes(profiled):
    *table, _, origin = pages.parts(profiled).splitlines()
    assert origin == "Measured 2026-01-01, one, torch 2.0; commit abc."
    path = profiled / "benchmarks/breakdown/cpu.json"
    assert '"usable_cores": 2' in path.read_text()
    path.write_text(path.read_text().replace('"usable_cores": 2', '"usable_cores": 1'))
    assert "one, held to 1 of 2 cores, torch 2.0;" in pages.parts(profiled)
    command = "python -m export.benchmark --breakdown resnet18_kw"
    path.write_text(path.read_text().replace('"command": ""', f'"command": "{command}"'))
    assert pages.parts(profiled).startswith(f"```sh\n{command}\n```\n\n| model |")
    rows = [line.strip("| ").split(" | ") for line in table]
    assert rows[0][:6] == ["model", "runtime", "batch", "threads", "ms", "over static"]
    most = "MatMul 50% (convolution), Exp 25% (factors), Relu 12% (rest)"
    # context, factors, convolution, layout, static convolution, all else; 6 MB and 12 million multiplies in
    # 6 ms, which the roofs allow in 0.49 and 0.15 ms
    assert rows[4] == [
        "`resnet18_kw`",
        "onnx",
        "8",
        "1",
        "8.0",
        "4.00",
        "0%",
        "25%",
        "50%",
        "0%",
        "0%",
        "25%",
        "6.0",
        "12.0",
        "1.0",
        "2.0",
        "8%",
        most,
    ]
    assert rows[3][:6] == ["`resnet18_static`", "onnx", "8", "1", "2.0", "1.00"]
    assert [cell.strip() for cell in rows[2][:4]] == ["what torch reads and multiplies", "", "", "1"]
    assert [cell.strip() for cell in rows[2][-2:]] == ["12.3", "78.9"]  # the rest is empty


def test_caches_are_faster_than_what_the_roof_is_made_of(profiled):
    path = profiled / "benchmarks/breakdown/cpu.json"
    path.write_text(path.read_text().replace('"read": 12300000000.0', '"read": 1230000.0'))
    row = pages.parts(profiled).splitlines()[4].strip("| ").split(" | ")
    assert row[-2] == "81301%"


def test_records_of_another_version_are_refused(profiled):
    path = profiled / "benchmarks/breakdown/cpu.json"
    path.write_text(path.read_text().replace(profile.FORMAT, "breakdown 0"))
    with pytest.raises(ZooError, match=r"breakdown/cpu\.json is not a record of this version"):
        pages.parts(profiled)


@pytest.mark.parametrize("text", ["half a fi", "[]", "{}"])
def test_damaged_records_are_one_sentence(profiled, text):
    (profiled / "benchmarks/breakdown/cpu.json").write_text(text)
    with pytest.raises(ZooError, match=r"breakdown/cpu\.json is not .*; measure anew"):
        pages.parts(profiled)


def test_ways_to_run_one_model_stay_apart(tmp_path):
    two = replace(KW, threads=2)
    other = replace(KW, lowering="rows")
    elsewhere = replace(KW, runtime="openvino")
    times = {KW.twin: 2e-3, KW: 8e-3, two.twin: 1e-3, two: 5e-3, other: 6e-3}
    times |= {elsewhere.twin: 4e-3, elsewhere: 6e-3}
    profiles = [Profile(each, seconds, 5, ()) for each, seconds in times.items()]
    path = tmp_path / "benchmarks/breakdown/cpu.json"
    path.parent.mkdir(parents=True)
    path.write_text(profile.to_json(profiles, ORIGIN, {}, ""))
    rows = [line.strip("| ").split(" | ") for line in pages.parts(tmp_path).splitlines()[2:-2]]
    assert [row[1] for row in rows] == ["onnx"] * 5 + ["openvino"] * 2
    assert [row[3] for row in rows] == ["1", "1", "2", "2", "1", "1", "1"]
    assert [row[5] for row in rows] == ["1.00", "4.00", "1.00", "5.00", "3.00", "1.00", "1.50"]
    assert rows[4][0] == "`resnet18_kw (rows)`"


def test_the_page_shows_the_fastest_way_to_train_first(tmp_path):
    slow, fast = (
        {
            **asdict(speed.Candidate("resnet18_kw", lowering, channels_last=True)),
            "images_per_second": rate,
            "over_static": share,
        }
        for lowering, rate, share in (("rows", 10.0, 0.2), ("unfold", 15.0, 0.3))
    )
    rows = [{**row, "peak_memory_mb": 100} for row in (slow, fast)]
    path = tmp_path / "benchmarks/training/cpu.json"
    path.parent.mkdir(parents=True)
    load = {"batch": 32, "side": 32, "images_per_second": 9876.5}
    command = "python -m zoo.training.speed --models resnet18_kw"
    record = {"format": speed.FORMAT, "rows": rows, "loading": load, "environment": ORIGIN}
    path.write_text(json.dumps(record | {"command": command}))
    title, made, table, below = pages.training(tmp_path).split("\n\n")
    assert "would take 0.2% of the time of the fastest ones" in below  # 15 against 9,876.5 images a second
    assert title == "### `benchmarks/training/cpu.json`"
    assert command in made.splitlines()
    lines = table.splitlines()
    assert lines[2] == "| `resnet18_kw` | unfold, NHWC | 32 | 32 px | 15.0 | 0.30 | 100 |"
    assert lines[3].startswith("| `resnet18_kw` | rows, NHWC |")
    assert lines[4] == "| loading and warping alone |  | 32 | 32 px | 9876.5 |  |  |"


def test_the_page_says_what_the_prices_are_worth(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "RATES", tmp_path / "rates.json")
    losses = {
        "resnet18_kw": {"auto": 1.02, "rule": 1.4, "held_out": False},
        "resnet18_dpk": {"auto": 1.1, "rule": 1.0, "held_out": True},
    }
    cost.RATES.write_text(json.dumps({"onnx": {"seconds": {}, "over_the_fastest": losses}}))
    title, table, end = pages.choices(tmp_path).split("\n\n")
    assert (title, end) == ("<details><summary>2 rows</summary>", "</details>")
    assert table.splitlines()[2:] == [
        "| onnx | `resnet18_kw` | these layers | 1.02 | 1.40 |",
        "| onnx | `resnet18_dpk` | other layers | 1.10 | 1.00 |",
    ]
