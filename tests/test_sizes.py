"""The comparison of docs/sizes.py: every row is a layer's own, and it runs."""

import json
import sys
from pathlib import Path

import pytest
import torch

from zoo.errors import ZooError
from zoo.layers import FAMILIES, dynamic_layers
from zoo.pretrained import CIFAR10_CLASSES
from zoo.training.data import Split

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import sizes


def split(count: int) -> Split:
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    return Split(images, torch.arange(count) % 10, CIFAR10_CLASSES, "made up", "0")


@pytest.mark.parametrize(
    ("backbone", "family", "chosen"),
    [(backbone, *row) for backbone, rows in sizes.COMPARED.items() for row in rows],
)
def test_the_layers_have_the_sizes_compared(backbone: str, family: str, chosen: sizes.Sizes) -> None:
    layers = dynamic_layers(sizes.network(f"{backbone}_static", family, chosen))
    assert {type(layer) for layer in layers} == {FAMILIES[family]}
    own = {name: value for name, value in chosen.items() if name != "stages"}
    for name, value in own.items():
        assert {getattr(layer, name) for layer in layers} == {value}
    every = len(dynamic_layers(sizes.network(f"{backbone}_static", family, own)))
    assert (len(layers) < every) == ("stages" in chosen)


def test_every_default_is_compared() -> None:
    for rows in sizes.COMPARED.values():
        for family in {family for family, _ in rows}:
            ours = [chosen for name, chosen in rows if name == family]
            assert any(chosen.items() <= FAMILIES[family].sizes.items() for chosen in ours)


def test_trained_weights_stay_where_a_family_can_hold_them() -> None:
    name, late = "mobilenetv3_small_100_static", {"stages": (3,)}
    static = sizes.network(name, "static", {}, pretrained=True)
    kw, dpk = (sizes.network(name, family, late, pretrained=True) for family in ("kw", "dpk"))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(kw.eval()(images), static.eval()(images), rtol=1e-3, atol=1e-3)
        assert (dpk.eval()(images) - static(images)).abs().max() > 0.1
    early = "blocks.0.0.conv_dw.weight"
    assert torch.equal(dpk.get_parameter(early), static.get_parameter(early)), "the other stages keep theirs"


def test_it_trains_times_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sizes.COMPARED, "resnet10", (("fgk", {"embedding_dim": 2}),))
    monkeypatch.setattr(sizes, "load_cifar10", lambda name, folder: split(12))
    words = ["--images", "6", "--epochs", "1", "--test-images", "4", "--data", "/machine/of/mine/cifar10"]
    assert sizes.main([*words, "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "sizes_resnet10.json").read_text())
    static, fgk = record["rows"]
    assert static["family"] == "static"
    assert static["tax"] == {"1": 1.0, "8": 1.0}
    assert "over_static" not in static
    gained, low, high = fgk["over_static"]
    assert low <= gained <= high
    assert gained == pytest.approx(fgk["top1"] - static["top1"])
    assert record["environment"]["cpu"]
    assert (fgk["family"], fgk["sizes"]) == ("fgk", {"embedding_dim": 2})
    assert fgk["params"] < static["params"]
    assert fgk["macs"] < static["macs"]
    assert set(fgk["tax"]) == {"1", "8"}
    assert "/machine" not in record["command"]
    with pytest.raises(ZooError, match="--epochs is 0; it must be at least 1"):
        sizes.main(["--epochs", "0", "--out", str(tmp_path)])
