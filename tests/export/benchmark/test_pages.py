"""Pictures and pages, made of runs alone."""

import pytest

from export.benchmark import pages, plot, render
from export.benchmark.plan import Candidate
from zoo.errors import ZooError

KW, DPK = Candidate("resnet18_kw", batch=8), Candidate("resnet18_dpk", batch=8)
PEER = Candidate("resnet18_kw", lowering="grouped", batch=8)
SE = Candidate("resnet18_se", batch=8)


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


def test_without_accuracy_there_is_no_picture(make_run, tmp_path):
    run = make_run({KW: 1.5})
    for result in run.results:
        object.__setattr__(result, "top1", None)
    with pytest.raises(
        ZooError, match="cannot draw accuracy against latency: none of the models has a top-1"
    ):
        plot.draw(render.rows(run), tmp_path / "picture.png")


@pytest.fixture
def checkout(make_run, tmp_path):
    """A checkout with results of one machine."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs/images").mkdir(parents=True)
    (tmp_path / "benchmarks/cpu.json").write_text(make_run({KW: 1.5, DPK: 2.5}).to_json())
    return tmp_path


def test_pages_show_every_file_of_results(checkout, make_run):
    (checkout / "benchmarks/other.json").write_text(make_run({Candidate("resnet18_kw"): 1.25}).to_json())
    text = pages.sections(checkout)
    assert text.count("### `benchmarks/") == 2
    assert "![accuracy against latency](images/benchmark_cpu.png)" in text
    header, _, *lines = pages.taxes(checkout).splitlines()
    assert header == "| model | onnx, batch 8, 1 thread | onnx, batch 1, 1 thread |"
    (kw,) = [line for line in lines if "resnet18_kw" in line]
    assert [cell.strip().split(".")[0] for cell in kw.strip("|").split("|")] == ["`resnet18_kw`", "1", "1"]
    (dpk,) = [line for line in lines if "resnet18_dpk" in line]
    assert dpk.endswith("|  |")


def test_pictures_are_drawn_when_the_results_change(checkout, make_run):
    pytest.importorskip("matplotlib")
    name = "docs/images/benchmark_cpu.png"
    assert pages.update_pictures(checkout, check=True) == [name]
    assert not (checkout / name).exists()
    assert pages.update_pictures(checkout, check=False) == [name]
    assert pages.update_pictures(checkout, check=True) == []
    (checkout / "benchmarks/cpu.json").write_text(make_run({KW: 1.6}).to_json())
    assert pages.update_pictures(checkout, check=True) == [name]


def test_a_folder_without_results_is_that_of_this_checkout(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "_CHECKOUT", checkout)
    assert pages.results(tmp_path / "elsewhere") == {"cpu": checkout / "benchmarks/cpu.json"}
    (checkout / "benchmarks/cpu.json").unlink()
    with pytest.raises(ZooError, match=r"there are no results in .*--json benchmarks/NAME\.json makes some"):
        pages.results(tmp_path / "elsewhere")
