"""Prices: the work of a layer is counted as it is, and the cheapest lowering is taken."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import export.onnx
from export import cost, rates
from export.base import ExportOptions
from export.lowering import chosen
from export.onnx import OnnxRuntime
from export.places import Place, candidates, places
from zoo.cli import run
from zoo.errors import ZooError
from zoo.layers import (
    CondConv2d,
    DotProductConv2d,
    FCGeneratedConv2d,
    KernelWeightedConv2d,
    dynamic_layers,
    settle,
)

FREE = dict.fromkeys(cost.WORK, 0.0)


def test_a_made_convolution_is_counted_by_hand():
    layer = KernelWeightedConv2d(4, 6, 3, padding=1, bias=False)
    work = cost.count(layer, "grouped", (2, 4, 5, 5))
    assert work["made"] == 2 * 6 * 25 * 4 * 9
    assert "convolution" not in work
    # reduce(g), then a sigmoid of its product with the vector of each of the 6 x 4 kernels
    assert work["product"] == 2 * layer.vector_dim * (4 + 6 * 4)
    assert work["special"] == 2 * 6 * 4


def test_what_does_not_depend_on_the_image_is_free():
    layer = FCGeneratedConv2d(8, 6, 3, padding=1, bias=False)
    work = cost.count(layer, "scaled", (2, 8, 5, 5))
    terms = layer.hidden_dim
    assert work["depthwise"] == 2 * terms * 8 * 25 * 9
    assert work["convolution"] == 2 * 6 * 25 * terms * 8
    assert work["product"] == 2 * 8 * terms  # the gate alone: widen @ embedding is a constant
    assert work["special"] == 2 * terms


@pytest.mark.parametrize("lowering", ["unfold", "gather", "rows", "contract", "experts"])
def test_work_grows_with_the_batch(lowering):
    layer = settle(CondConv2d(8, 8, 3, padding=1))
    one, four = (cost.count(layer, lowering, (batch, 8, 6, 6)) for batch in (1, 4))
    assert four["operations"] == one["operations"]
    for kind in ("convolution", "product", "special"):
        assert four.get(kind, 0) == 4 * one.get(kind, 0)


def test_a_gather_copies_the_map_twice_and_its_patches_once():
    """Transposed and padded; that the product takes the patches transposed is free, and so is the index."""
    layer = settle(KernelWeightedConv2d(8, 4, 3, padding=1, bias=False))
    work = cost.count(layer, "gather", (2, 8, 6, 6))
    made = 2 * (6 * 6 + 8 * 8 + 9 * 6 * 6) * 8
    assert work["moved"] == 2 * 4 * (made + 2 * 4 * 6 * 6)  # and the one slice of the output
    weights = layer.weight.numel() + layer.vectors.numel()
    reduce = layer.reduce.weight.numel() + layer.reduce.bias.numel()
    assert work["constants"] - 4 * (weights + reduce) == 8 * 9 * 6 * 6


def test_counting_leaves_the_layer_as_it_is():
    layer = DotProductConv2d(4, 4, 3).train()
    before = layer.lowering
    cost.count(layer, "grouped", (2, 4, 5, 5))
    assert (layer.lowering, layer.training, layer.bank.device.type) == (before, True, "cpu")


def test_scales_that_are_cut_apart_still_depend_on_the_sample():
    """Cutting them is an operation, and no map of scales is a constant that is read from memory."""
    layer = settle(FCGeneratedConv2d(16, 16, 3, padding=1, bias=False, groups=16))
    work = cost.count(layer, "scaled", (2, 16, 8, 8))
    weights = 4 * 16 * 9 + layer.gate.weight.numel() + layer.gate.bias.numel()
    assert work["constants"] == 4 * weights
    # A mean, the gate and its sigmoid, the cut, then a scale and a convolution a term and three sums.
    assert work["operations"] == 4 + 4 * 2 + 3


def test_every_kind_of_work_has_a_rate_on_record():
    runtimes = json.loads(cost.RATES.read_text())
    assert "onnx" in runtimes
    for name in runtimes:
        found = cost.rates(name)
        assert found.keys() == cost.WORK.keys()
        assert min(found.values()) >= 0
        assert max(found.values()) > 0


@pytest.fixture
def model():
    layers = [KernelWeightedConv2d(3, 4, 3, padding=1), nn.ReLU(), DotProductConv2d(4, 4, 3, padding=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def priced(monkeypatch, **seconds):
    monkeypatch.setattr(cost, "rates", lambda name: {**FREE, **seconds})


def test_the_price_decides(model, monkeypatch):
    options = ExportOptions(input_size=(3, 8, 8))
    priced(monkeypatch, product=1.0, depthwise=0.1)
    assert chosen(OnnxRuntime(), model, options) == {"0": "unfold", "2": "contract"}
    priced(monkeypatch, moved=1.0)
    assert chosen(OnnxRuntime(), model, options)["0"] == "gather"


def test_what_a_batch_in_the_groups_costs_has_no_price(model, monkeypatch):
    priced(monkeypatch, product=1.0, moved=1.0, passed=1.0)
    (first, _) = places(model, ExportOptions(input_size=(3, 8, 8)), OnnxRuntime())
    prices = {
        name: cost.price(cost.count(first.layer, name, (4, *first.size)), cost.rates("onnx"))
        for name in candidates(first.layer, 4)
    }
    assert min(prices, key=prices.get) == "grouped"
    fixed = ExportOptions(input_size=(3, 8, 8), batch=4)
    del prices["grouped"]
    assert chosen(OnnxRuntime(), model, fixed)["0"] == min(prices, key=prices.get)


def test_a_runtime_without_rates_leaves_the_layers_to_themselves(model, monkeypatch):
    monkeypatch.setattr(cost, "rates", lambda name: None)
    assert chosen(OnnxRuntime(), model, ExportOptions(input_size=(3, 8, 8))) == "auto"


def test_the_choice_is_exported_and_on_record(model, monkeypatch, stir, tmp_path):
    priced(monkeypatch, product=1.0, depthwise=100.0)
    path = tmp_path / "model.onnx"
    assert export.onnx.export(stir(model), path, input_size=(3, 8, 8)).passed
    stored = OnnxRuntime().metadata(path)
    assert stored["lowering"] == "auto"
    assert json.loads(stored["lowerings"]) == {"0": "unfold", "2": "unfold"}


def made_up(layer, size, batch, seconds):
    """Return the times that a layer would take in its place if the prices were exact."""
    place = Place("layer", layer, size)
    placed = place.in_place(layer)
    return place, {
        name: {str(n): cost.price(cost.count(placed, name, (n, *place.outer_size)), seconds) for n in (1, 8)}
        for name in candidates(layer, batch)
    }


def test_the_fit_finds_the_rates_that_made_the_times():
    seconds = dict(
        zip(cost.WORK, 1e-9 * np.array([2e4, 0.02, 0.1, 0.05, 0.03, 0.2, 0.1, 0.4, 0.7]), strict=True)
    )
    layers = [
        made_up(settle(family(i, o, 3, padding=1)), (i, side, side), batch, seconds)
        for batch in (None, 4)
        for family in (KernelWeightedConv2d, FCGeneratedConv2d, DotProductConv2d, CondConv2d)
        for i, o, side in ((8, 16, 16), (32, 32, 8), (64, 16, 4))
    ]
    found = rates.fit(layers)
    assert found == pytest.approx(seconds, rel=1e-3)
    by_price, by_rule = rates.loss(layers[: len(layers) // 2], found)
    assert by_price == pytest.approx(1.0)
    assert by_rule >= 1.0


def test_rates_of_one_runtime_leave_those_of_another(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "RATES", tmp_path / "rates.json")
    rates.store("onnx", {"seconds": {"product": 1.0}})
    rates.store("other", {"seconds": {"product": 2.0}})
    assert list(json.loads(cost.RATES.read_text())) == ["onnx", "other"]


def test_layers_that_cost_the_same_share_a_signature():
    model = nn.Sequential(*(KernelWeightedConv2d(4, 4, 3, padding=1) for _ in range(3)))
    found = places(model, ExportOptions(input_size=(4, 8, 8)), OnnxRuntime())
    assert [place.name for place in found] == ["0", "1", "2"]
    assert len({place.signature for place in found}) == 1
    wider = places(model, ExportOptions(input_size=(4, 8, 9)), OnnxRuntime())
    assert wider[0].signature != found[0].signature
    assert torch.equal(model[0].weight, found[0].layer.weight)


def test_the_command_fits_prints_and_stores(tmp_path, monkeypatch, capsys):
    """With made-up times, as measuring takes minutes."""
    monkeypatch.setattr(cost, "RATES", tmp_path / "rates.json")
    seconds = dict.fromkeys(cost.WORK, 1e-9)
    asked = []

    def measured(runtime, model, options, cache, say, threads):
        asked.append((runtime.name, options.batch, cache.name, threads))
        layer = settle(FCGeneratedConv2d(8, 8, 3, padding=1))
        return [made_up(layer, (8, 6, 6), options.batch, seconds)]

    monkeypatch.setattr(rates, "measured", measured)
    words = ["--models", "resnet10_fgk", "--batch", "4", "--cache", str(tmp_path / "times.json")]
    assert rates.main(words) == 0
    assert not cost.RATES.exists()
    assert rates.main([*words, "--write"]) == 0
    assert asked[:2] == [("onnx", None, "times.json", 1), ("onnx", 4, "times.json", 1)]
    stored = json.loads(cost.RATES.read_text())["onnx"]
    assert stored["over_the_fastest"]["resnet10_fgk"]["auto"] == 1.0
    assert stored["command"].startswith("python -m export.rates --models resnet10_fgk --batch 4 --cache ...")
    assert stored["over_the_fastest"]["resnet10_fgk"]["held_out"] is False
    assert "resnet10_fgk: time over that of the fastest 1.00" in capsys.readouterr().out


def test_what_is_held_out_is_checked_and_not_fitted_to(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "RATES", tmp_path / "rates.json")
    seen, alike = [], False

    def measured(runtime, model, options, cache, say, threads):
        fitted = isinstance(dynamic_layers(model)[0], FCGeneratedConv2d)
        side = 6 if fitted or alike else 5
        layer, seconds = settle(FCGeneratedConv2d(8, 8, 3, padding=1)), dict.fromkeys(cost.WORK, 1e-9)
        return [made_up(layer, (8, side, side), options.batch, seconds)]

    def fit(layers):
        seen.extend(place.size for place, _ in layers)
        return dict.fromkeys(cost.WORK, 1e-9)

    monkeypatch.setattr(rates, "measured", measured)
    monkeypatch.setattr(rates, "fit", fit)
    words = ["--models", "resnet10_fgk", "--held-out", "resnet10_kw", "--cache", str(tmp_path / "times.json")]
    assert rates.main([*words, "--write"]) == 0
    assert set(seen) == {(8, 6, 6)}
    losses = json.loads(cost.RATES.read_text())["onnx"]["over_the_fastest"]
    assert {name: loss["held_out"] for name, loss in losses.items()} == {
        "resnet10_fgk": False,
        "resnet10_kw": True,
    }
    alike = True
    with pytest.raises(ZooError, match="all layers of resnet10_kw are like fitted ones; hold out another"):
        rates.main(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--models", "resnet10_static"], "the models have no layers with a lowering to choose"),
        (["--models", "resnet10_fgk", "--batch", "0"], "0 is not a batch size"),
        (
            ["--models", "resnet10_fgk", "--held-out", "resnet10_*"],
            "both fitted to and held out",
        ),
        (["--models", "resnet10_fkg"], "no model matches 'resnet10_fkg'"),
    ],
)
def test_bad_input_is_one_sentence(words, said, tmp_path, capsys):
    assert run(rates.main, [*words, "--cache", str(tmp_path / "times.json")]) == 2
    assert said in capsys.readouterr().err
