"""The pictures of turning images: what is measured, what is drawn, and what the repository holds."""

import itertools
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo import cli
from zoo.errors import ZooError
from zoo.layers import CondConv2d, DynamicConv2d, KernelWeightedConv2d
from zoo.pretrained import CIFAR10_CLASSES, read_manifest
from zoo.training.augment import normalise
from zoo.training.data import Split

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))


import gallery  # noqa: E402  scripts, which are found beside each other
import turning  # noqa: E402

TURNED, COMPARED, STEP = 3, 5, 30


class Lively(KernelWeightedConv2d):
    """A family whose kernels answer loudly to the image."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.normal_(self.vectors)


@pytest.fixture
def model() -> nn.Sequential:
    return nn.Sequential(
        Lively(3, 8, 3, padding=1), nn.ReLU(), CondConv2d(8, 4, 3, padding=1), nn.ReLU(), Lively(4, 4, 3)
    ).eval()


@pytest.fixture
def layers(model: nn.Sequential) -> dict[str, DynamicConv2d]:
    return {name: layer for name, layer in model.named_children() if isinstance(layer, DynamicConv2d)}


@pytest.fixture
def images() -> Tensor:
    """Smooth random colours, not alike in any direction."""
    coarse = torch.rand(COMPARED, 3, 4, 4)
    return nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


@pytest.fixture
def record(model: nn.Module, layers: dict[str, DynamicConv2d], images: Tensor) -> dict[str, Any]:
    facts = {
        "model": "tiny_kw",
        "weights": {"sha256": "0123456789", "epochs_seen": 1.5, "device": "CPU", "top1": None},
        "data": {"source": "random colours", "note": None, "sha256": "0"},
        "image": {"index": 0, "label": "cat"},
    }
    return facts | turning.measure(model, layers, images, TURNED, STEP)


def kernels_at(model: nn.Sequential, position: int, inputs: Tensor) -> Tensor:
    """Return the kernels of one image (1, 3, H, H) at a layer, by the layers themselves."""
    for layer in model[:position]:
        inputs = layer(inputs)
    return model[position].kernels(inputs.mean(dim=(2, 3)))


def distance(first: Tensor, second: Tensor) -> float:
    return float((second - first).pow(2).sum().sqrt() / first.pow(2).sum().sqrt())


@torch.no_grad()
def test_moves_are_those_of_turned_pixels(
    model: nn.Sequential, record: dict[str, Any], images: Tensor
) -> None:
    angles = record["angles"]
    assert angles == [0, 30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 330, 360]
    for position in (0, 2, 4):
        layer = record["layers"][str(position)]
        for quarters in (1, 2, 3):
            moved = [
                distance(
                    kernels_at(model, position, normalise(image[None])),
                    kernels_at(model, position, normalise(image.rot90(-quarters, (1, 2))[None])),
                )
                for image in images[:TURNED]
            ]
            assert layer["median"][angles.index(90 * quarters)] == pytest.approx(
                statistics.median(moved), rel=1e-3, abs=1e-5
            )
        following = [
            distance(*(kernels_at(model, position, normalise(image[None])) for image in pair))
            for pair in itertools.pairwise(images)
        ]
        # torch's median of an even number is the lower of the two in the middle.
        assert layer["other_image"] == pytest.approx(statistics.median_low(following), rel=1e-3)
        assert layer["other_image"] > 1e-3


def test_an_upright_image_moves_nothing_and_a_full_turn_comes_back(record: dict[str, Any]) -> None:
    for layer in record["layers"].values():
        for kind in ("low", "median", "high", "disc"):
            assert layer[kind][0] == 0
            assert layer[kind][-1] < 1e-4
        assert max(layer["median"]) > 1e-3
        assert all(
            low <= mid <= high
            for low, mid, high in zip(layer["low"], layer["median"], layer["high"], strict=True)
        )


def test_routing_is_kept_where_a_layer_has_one(record: dict[str, Any]) -> None:
    assert [name for name, layer in record["layers"].items() if "routing" in layer] == ["2"]
    routing = record["layers"]["2"]["routing"]
    assert [len(weights) for weights in routing] == [4] * len(record["angles"])
    assert routing[0] == pytest.approx(routing[-1], abs=1e-4)
    assert routing[0] != pytest.approx(routing[2], abs=1e-6)


def test_the_disc_loses_nothing_at_any_angle() -> None:
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    turned = turning.turn(white, [0, 30, 45, 77])
    assert turned[2].min() == -1  # corners come in black
    kept = turning.keep_disc(turned)
    assert torch.allclose(kept, kept[:1].expand_as(kept), atol=1e-5)
    share = (kept[0, 0] > 0).float().mean()
    assert 0.65 < share < 0.75  # pi / 4 of the square, less a rim of a pixel


def test_kernels_are_picked_by_how_far_they_move() -> None:
    kernels = torch.zeros(3, 2, 5, 3, 3)
    kernels[2] = torch.arange(10.0).view(2, 5, 1, 1)
    kernels[0, 1, 2] = kernels[1, 1, 2] = kernels[2, 1, 2]  # strong, but it never moves
    median, tenth, most = turning.pick(kernels)
    assert (median["rank"], tenth["rank"], most["rank"]) == ("median", "90th percentile", "most")
    assert (most["output"], most["channel"]) == (1, 4)
    assert (tenth["output"], tenth["channel"]) == (1, 3)
    assert (median["output"], median["channel"]) == (0, 3)
    assert most["values"] == kernels[:, 1, 4].tolist()


def test_the_figure_shows_the_figures(record: dict[str, Any], images: Tensor) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    import drawing

    figure = drawing.draw(record, turning.turn(images[0], record["shown"]["angles"]))
    top, moves, routing = figure.subfigs
    count = len(record["shown"]["angles"])
    drawn = [axes.images[0] for axes in top.axes if axes.images][count:]  # without the turned image
    kernels = torch.tensor([kernel["values"] for kernel in record["shown"]["kernels"]])
    added = kernels - kernels[:, :1]
    for block, wanted in ((drawn[: 3 * count], kernels), (drawn[3 * count :], added)):
        found = torch.tensor([picture.get_array().tolist() for picture in block])
        torch.testing.assert_close(found, wanted.flatten(0, 1))
        (scale,) = {picture.norm for picture in block}
        assert scale.vmax == -scale.vmin == pytest.approx(float(wanted.abs().max()))
    for axes, layer in zip(moves.axes, record["layers"].values(), strict=True):
        median, disc, other = axes.lines
        assert list(median.get_xdata()) == record["angles"]
        assert list(median.get_ydata()) == layer["median"]
        assert list(disc.get_ydata()) == layer["disc"]
        assert set(other.get_ydata()) == {layer["other_image"]}
    (panel,) = routing.axes
    drawn_weights = zip(*(line.get_ydata() for line in panel.lines), strict=True)
    assert [list(weights) for weights in drawn_weights] == record["layers"]["2"]["routing"]


@pytest.fixture
def draw_tiny(
    model: nn.Module,
    layers: dict[str, DynamicConv2d],
    images: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Return the command with a tiny model in place of resnet18_kw and five images in place of CIFAR-10."""
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    split = Split(images, torch.arange(COMPARED), CIFAR10_CLASSES, "random colours", "0")
    monkeypatch.setattr(gallery, "load", lambda name: (model, layers))
    monkeypatch.setattr(gallery, "load_cifar10", lambda split_name, folder: split)
    small = [
        "--model",
        "resnet18_kw",
        "--turn",
        "2",
        "--compare",
        "3",
        "--step",
        "90",
        "--out",
        str(tmp_path),
    ]
    return lambda *words: cli.run(gallery.main, [*small, *words])


def test_the_command_writes_a_picture_and_its_figures(draw_tiny: Any, tmp_path: Path) -> None:
    assert draw_tiny("--image", "4", "--data-note", "made up") == 0
    assert (tmp_path / "resnet18_kw.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "resnet18_kw.json").read_text())
    assert record["weights"]["sha256"] == read_manifest()["resnet18_kw"]["sha256"]
    assert record["image"] == {"index": 4, "label": "deer"}
    assert record["data"]["note"] == "made up"
    assert (record["images_turned"], record["images_compared"]) == (2, 3)
    assert record["shown"]["angles"] == [0, 180, 360]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "resnet18_wk"], "unknown model 'resnet18_wk'. Did you mean "),
        (["--image", "5"], "--image is 5; the test images are 0 to 4."),
        (["--step", "50"], "--step is 50; give a number of degrees that divides 180."),
        (["--turn", "4"], "--turn is 4 and --compare 3;"),
        (["--out", "nowhere"], "there is no folder nowhere;"),
    ],
)
def test_the_command_says_what_is_wrong(
    words: list[str], message: str, draw_tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw_tiny(*words) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_matplotlib_is_named(draw_tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for module in [*sys.modules]:
        if module == "drawing" or module.partition(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert draw_tiny() == 2
    assert capsys.readouterr().err.startswith("error: pictures need the package matplotlib")


def test_the_last_layer_of_each_stage_is_chosen() -> None:
    model, layers = gallery.load("resnet18_dpk")
    assert list(layers) == ["layer1.1.conv2", "layer2.1.conv2", "layer3.1.conv2", "layer4.1.conv2"]
    assert layers["layer4.1.conv2"] is model.get_submodule("layer4.1.conv2")
    assert not model.training


@pytest.mark.parametrize("name", ["resnet18_static", "resnet18_convex"])
def test_kernels_that_no_image_changes_are_refused(name: str) -> None:
    with pytest.raises(ZooError, match=f"the kernels of {name} are the same for every image"):
        gallery.load(name)


def test_random_kernels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path))
    with pytest.raises(
        ZooError, match="resnet18_kw has no trained weights, and random kernels would show nothing"
    ):
        gallery.load("resnet18_kw")


def test_the_pictures_in_the_repository_are_of_the_published_weights() -> None:
    records = sorted((DOCS / "images").glob("*.json"))
    assert records
    for path in records:
        picture = path.with_suffix(".png")
        again = f"run python docs/gallery.py --model {picture.stem}"
        record = json.loads(path.read_text())
        assert record["weights"] == gallery.weights(picture.stem), again
        assert picture.stat().st_size < 300_000
    linked = re.findall(r"\(images/([\w.]+)\)", (DOCS / "families.md").read_text())
    assert sorted(linked) == [path.with_suffix(".png").name for path in records]
