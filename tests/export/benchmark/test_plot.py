"""The picture of accuracy against latency, made of runs alone."""

import pytest

from export.benchmark import plot, render
from export.benchmark.plan import Candidate
from zoo.errors import ZooError

KW = Candidate("resnet18_kw", batch=8)
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
