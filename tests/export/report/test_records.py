"""What the pages say of breakdowns, of artifacts, of training and of prices."""

import json
from dataclasses import asdict, replace

import pytest

from export import cost, evaluate
from export.benchmark import profile
from export.benchmark.attribution import CONVOLUTION, FACTORS, REST, STATIC_CONVOLUTION, Origin
from export.benchmark.plan import Candidate
from export.benchmark.profile import Part, Profile
from export.report import records
from zoo.errors import ZooError
from zoo.training import speed

KW = Candidate("resnet18_kw", batch=8)
ORIGIN = {
    "date": "2026-01-01",
    "cpu": "one",
    "cores": 2,
    "usable_cores": 2,
    "gpu": None,
    "versions": {"torch": "2.0", "onnx": None},
    "commit": "abc",
}


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
    *table, _, origin = records.parts(profiled).splitlines()
    assert origin == "Measured 2026-01-01, one, torch 2.0; commit abc."
    path = profiled / "benchmarks/breakdown/cpu.json"
    assert '"usable_cores": 2' in path.read_text()
    path.write_text(path.read_text().replace('"usable_cores": 2', '"usable_cores": 1'))
    assert "one, held to 1 of 2 cores, torch 2.0;" in records.parts(profiled)
    command = "python -m export.benchmark --breakdown resnet18_kw"
    path.write_text(path.read_text().replace('"command": ""', f'"command": "{command}"'))
    assert records.parts(profiled).startswith(f"```sh\n{command}\n```\n\n| model |")
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
    row = records.parts(profiled).splitlines()[4].strip("| ").split(" | ")
    assert row[-2] == "81301%"


def test_records_of_another_version_are_refused(profiled):
    path = profiled / "benchmarks/breakdown/cpu.json"
    path.write_text(path.read_text().replace(profile.FORMAT, "breakdown 0"))
    with pytest.raises(ZooError, match=r"breakdown/cpu\.json is not a record of this version"):
        records.parts(profiled)


@pytest.mark.parametrize("text", ["half a fi", "[]", "{}"])
def test_damaged_records_are_one_sentence(profiled, text):
    (profiled / "benchmarks/breakdown/cpu.json").write_text(text)
    with pytest.raises(ZooError, match=r"breakdown/cpu\.json is not .*; measure anew"):
        records.parts(profiled)


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
    rows = [line.strip("| ").split(" | ") for line in records.parts(tmp_path).splitlines()[2:-2]]
    assert [row[1] for row in rows] == ["onnx"] * 5 + ["openvino"] * 2
    assert [row[3] for row in rows] == ["1", "1", "2", "2", "1", "1", "1"]
    assert [row[5] for row in rows] == ["1.00", "4.00", "1.00", "5.00", "3.00", "1.00", "1.50"]
    assert rows[4][0] == "`resnet18_kw (rows)`"


def test_the_page_has_what_files_get_right_beside_their_weights(tmp_path):
    found = evaluate.Accuracy("kw.onnx", "resnet18_kw", "onnx", "cpu", "int8", 12.34, 10_000, 85.0, 86.4)
    rows = [asdict(found), asdict(replace(found, dtype="fp16", weights_top1=None))]
    path = tmp_path / "benchmarks/artifacts/cpu.json"
    path.parent.mkdir(parents=True)
    record = {"format": evaluate.FORMAT, "command": "python -m export.evaluate kw.onnx", "rows": rows}
    path.write_text(json.dumps(record | {"environment": ORIGIN}))
    made, table, below = records.artifacts(tmp_path).split("\n\n")
    assert made == "```sh\npython -m export.evaluate kw.onnx\n```"
    assert table.splitlines()[2:] == [
        "| `resnet18_kw` | onnx, cpu | int8 | 12.3 | 85.00 % | 86.40 % |",
        "| `resnet18_kw` | onnx, cpu | fp16 | 12.3 | 85.00 % |  |",
    ]
    assert below.startswith("Of 10,000 test images. Measured 2026-01-01, one, torch 2.0;")


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
    title, made, table, below = records.training(tmp_path).split("\n\n")
    assert "would take 0.2% of the time of the fastest ones" in below  # 15 against 9,876.5 images a second
    assert title == "### `benchmarks/training/cpu.json`"
    assert command in made.splitlines()
    lines = table.splitlines()
    assert lines[2] == "| `resnet18_kw` | unfold, NHWC | 32 | 32 px | 15.0 | 0.30 | 100 |"
    assert lines[3].startswith("| `resnet18_kw` | rows, NHWC |")
    assert lines[4] == "| loading and warping alone |  | 32 | 32 px | 9876.5 |  |  |"


def test_training_times_are_of_the_default_way_in_the_latest_record(tmp_path):
    def row(share, model="resnet18_kw", **how):
        usual = asdict(speed.Candidate(model, "auto", channels_last=True))
        return {**usual, "images_per_second": 9.0, "over_static": share, "peak_memory_mb": 1, **how}

    folder = tmp_path / "benchmarks/training"
    folder.mkdir(parents=True)
    faster = ({"amp": "bf16"}, {"shared": 8}, {"compiled": True}, {"lowering": "unfold"})
    now = [row(0.25), row(0.5, channels_last=False), *(row(0.9, **how) for how in faster)]
    before = [row(0.1), row(0.2, "resnet18_fgk")]
    del before[1]["amp"], before[1]["shared"]  # as early files have it
    for name, day, rows, gpu in (
        ("a", "2026-11-24", now, None),
        ("b", "2026-11-22", before, None),
        ("c", "2026-11-25", [row(0.8)], "a GPU"),
    ):
        environment = {**ORIGIN, "date": day, "gpu": gpu}
        record = {"format": speed.FORMAT, "rows": rows, "loading": {}, "environment": environment}
        (folder / f"{name}.json").write_text(json.dumps(record))
    assert records.training_times(tmp_path) == {"resnet18_kw": 4.0, "resnet18_fgk": 5.0}


def test_the_page_says_what_the_prices_are_worth(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "RATES", tmp_path / "rates.json")
    losses = {
        "resnet18_kw": {"auto": 1.02, "rule": 1.4, "held_out": False},
        "resnet18_dpk": {"auto": 1.1, "rule": 1.0, "held_out": True},
    }
    cost.RATES.write_text(json.dumps({"onnx": {"seconds": {}, "over_the_fastest": losses}}))
    title, table, end = records.choices(tmp_path).split("\n\n")
    assert (title, end) == ("<details><summary>2 rows</summary>", "</details>")
    assert table.splitlines()[2:] == [
        "| onnx | `resnet18_kw` | these layers | 1.02 | 1.40 |",
        "| onnx | `resnet18_dpk` | other layers | 1.10 | 1.00 |",
    ]
