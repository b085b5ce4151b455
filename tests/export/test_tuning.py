"""Tuning: the fastest lowering of each layer, measured once, right all the same, and on record."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import export.onnx
from export import _flow, tuning
from export.base import ExportOptions
from export.benchmark.measure import Samples
from export.onnx import OnnxRuntime
from export.openvino import OpenVino
from export.places import candidates, places
from export.torchscript import TorchScript
from zoo.cli import run
from zoo.errors import ZooError
from zoo.layers import ConvexConv2d, DotProductConv2d, KernelWeightedConv2d, dynamic_layers, set_lowering

SIZE = (3, 8, 8)


@pytest.fixture
def model(stir):
    layers = [KernelWeightedConv2d(3, 4, 3, padding=1), nn.ReLU()]
    layers += [KernelWeightedConv2d(4, 4, 3, padding=1), nn.ReLU()]
    layers += [KernelWeightedConv2d(4, 4, 3, padding=1), nn.ReLU(), DotProductConv2d(4, 4, 3, padding=1)]
    return stir(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()))


@pytest.fixture
def measured(monkeypatch):
    """Let the lowering that comes last in the alphabet be the fastest; return what was measured."""
    seen = []

    def times(predicts, options):
        seen.append(options.input_size)
        return {name: {"1": 1.0 / (1 + rank)} for rank, name in enumerate(sorted(predicts))}

    monkeypatch.setattr(tuning, "_times", times)
    return seen


@pytest.fixture
def unwritten(monkeypatch):
    """Leave out the exports, whose times are made up anyway."""
    monkeypatch.setattr(OnnxRuntime, "export", lambda runtime, module, path, options: None)
    monkeypatch.setattr(OnnxRuntime, "load", lambda runtime, path, threads: None)


def test_the_fastest_of_each_layer_is_exported_certified_and_recorded(model, measured, tmp_path):
    path = tmp_path / "model.onnx"
    certificate = export.onnx.export(model, path, lowering="tune", input_size=SIZE)
    assert certificate.passed
    stored = OnnxRuntime().metadata(path)
    assert stored["lowering"] == "tune"
    assert json.loads(stored["lowerings"]) == dict.fromkeys(("0", "2", "4", "6"), "unfold")
    # Layers 2 and 4 are alike, so three were measured, and then the network.
    assert measured == [(16, 8, 8)] * 3 + [SIZE]
    assert {layer.lowering for layer in dynamic_layers(model)} == {"rows", "contract"}


def test_measurements_are_kept_for_the_same_machine_alone(model, measured, unwritten, tmp_path):
    cache, options = tmp_path / "times.json", ExportOptions(input_size=SIZE)
    first = tuning.tune(OnnxRuntime(), model, options, cache)
    assert tuning.tune(OnnxRuntime(), model, options, cache) == first
    assert len(measured) == 3
    (stored,) = json.loads(cache.read_text())
    stored["made_by"]["machine"] = "another"
    cache.write_text(json.dumps([stored]))
    tuning.tune(OnnxRuntime(), model, options, cache)
    assert len(measured) == 6
    kept, own = json.loads(cache.read_text())
    assert kept == stored, "those of the other machine are not lost"
    assert own["seconds"] == stored["seconds"]
    damaged = ["half a fi", '{"seconds": []}', "[[]]", json.dumps([{**own, "seconds": []}, kept])]
    for count, damage in enumerate(damaged, 3):
        cache.write_text(damage)
        tuning.tune(OnnxRuntime(), model, options, cache)
        assert len(measured) == 3 * count
    assert json.loads(cache.read_text()) == [kept, own], "one that is damaged takes no other with it"


def test_measurements_that_others_write_meanwhile_are_not_lost(measured, unwritten, stir, tmp_path):
    cache, options = tmp_path / "times.json", ExportOptions(input_size=SIZE)
    model = stir(nn.Sequential(KernelWeightedConv2d(3, 4, 3), KernelWeightedConv2d(4, 4, 3)))

    def say(line):
        stored = json.loads(cache.read_text()) if cache.exists() else []
        for each in stored:
            each["seconds"]["of another process"] = {"rows": {"1": 0.5}}
        cache.write_text(json.dumps(stored))

    tuning.measured(OnnxRuntime(), model, options, cache, say)
    tuning.measured(OnnxRuntime(), model, replace(options, batch=2), cache, say)
    (stored,) = json.loads(cache.read_text())
    assert len(stored["seconds"]) == 5
    assert stored["seconds"]["of another process"] == {"rows": {"1": 0.5}}


def test_a_cache_that_cannot_be_read_is_left_alone(model, tmp_path):
    with pytest.raises(ZooError, match=r"cannot read .*: Is a directory; give another file\."):
        tuning.measured(OnnxRuntime(), model, ExportOptions(input_size=SIZE), tmp_path)


def test_runtimes_share_a_cache(stir, measured, unwritten, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "versions", lambda runtime: {"torch": "1"})
    cache, options = tmp_path / "times.json", ExportOptions(input_size=SIZE, layout="plain")
    model = stir(nn.Sequential(KernelWeightedConv2d(3, 4, 3)))
    for runtime, count in ((OnnxRuntime(), 1), (TorchScript(), 2), (OnnxRuntime(), 2)):
        tuning.measured(runtime, model, options, cache)
        assert len(measured) == count
    assert [each["made_by"]["runtime"] for each in json.loads(cache.read_text())] == ["onnx", "torchscript"]


@pytest.mark.parametrize(
    ("fastest", "expected"),
    [
        ("layers' fastest", {"0": "grouped", "1": "rows"}),
        ("layers' fastest at any batch", {"0": "unfold", "1": "rows"}),
        ("all grouped", {"0": "grouped", "1": "grouped"}),
        ("auto", {"0": "gather", "1": "gather"}),
    ],
)
def test_the_choice_that_is_fastest_in_the_network_is_taken(fastest, expected, stir, unwritten, monkeypatch):
    """By itself a layer may be faster in a lowering that its neighbours pay for."""
    layers = KernelWeightedConv2d(3, 4, 3), KernelWeightedConv2d(4, 4, 3)
    model = stir(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()))

    def times(predicts, options):
        alone = ["grouped", "unfold"] if options.input_size[1:] == SIZE[1:] else ["rows"]
        order = [fastest] if fastest in predicts else alone
        ranks = [order.index(name) if name in order else len(order) for name in predicts]
        return {name: {"4": 1.0 + rank} for name, rank in zip(predicts, ranks, strict=True)}

    monkeypatch.setattr(tuning, "_times", times)
    options = ExportOptions(batch=4, input_size=SIZE)
    auto = {"0": "gather", "1": "gather"}
    assert tuning.tune(OnnxRuntime(), model, options, others={"auto": auto}) == expected


def test_the_networks_of_equal_choices_are_not_timed(stir, measured, unwritten, tmp_path):
    model = stir(nn.Sequential(KernelWeightedConv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    options, cache = ExportOptions(input_size=SIZE), tmp_path / "times.json"
    for others, count in (({"auto": {"0": "unfold"}}, 1), ({"auto": {"0": "rows"}}, 2)):
        for _ in range(2):
            assert tuning.tune(OnnxRuntime(), model, options, cache, others=others) == {"0": "unfold"}
            assert len(measured) == count, "measured once"


@pytest.mark.parametrize("batch", [None, 4])
def test_a_network_without_a_choice_is_not_timed(batch, stir, measured, unwritten):
    model = stir(nn.Sequential(ConvexConv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    options = ExportOptions(batch=batch, input_size=SIZE)
    assert tuning.tune(OnnxRuntime(), model, options) == {"0": "fold"}
    assert measured == []


def test_another_network_of_the_same_layers_is_timed_anew(stir, measured, unwritten, tmp_path):
    options, cache = ExportOptions(input_size=SIZE), tmp_path / "times.json"
    layer = KernelWeightedConv2d(3, 4, 3)
    for head, count in ((nn.Identity(), 2), (nn.Identity(), 2), (nn.Linear(4, 2), 3)):
        model = stir(nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head))
        tuning.tune(OnnxRuntime(), model, options, cache, others={"auto": {"0": "rows"}})
        assert len(measured) == count  # the layer once, then each network


def test_measurements_with_other_threads_are_made_anew(stir, measured, tmp_path):
    model = stir(nn.Sequential(KernelWeightedConv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    path, options = tmp_path / "model.pt", ExportOptions(lowering="tune", input_size=SIZE)
    # The layer, and the network by its rule.
    asked = [1, 2, "the library's own choice"]
    for threads, count in ((1, 2), (1, 2), (2, 4), (None, 6), (1, 6)):
        _flow.export(TorchScript(), model, path, options, threads=threads)
        assert len(measured) == count
        sets = json.loads(_flow.tuning_path(path).read_text())
        assert [each["made_by"]["threads"] for each in sets] == asked[: count // 2]


def test_measurements_of_another_layout_are_made_anew(stir, measured, unwritten, tmp_path):
    model = stir(nn.Sequential(KernelWeightedConv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    cache = tmp_path / "times.json"
    for layout, count in (("blocked", 1), ("blocked", 1), ("plain", 2), ("blocked", 2)):
        options = ExportOptions(input_size=SIZE, layout=layout)
        tuning.measured(OnnxRuntime(), model, options, cache)
        assert len(measured) == count
        found = json.loads(cache.read_text())
        assert [each["made_by"]["layout"] for each in found] == ["blocked", "plain"][:count]


def test_artifacts_are_timed_on_the_threads_asked_for_and_torch_keeps_its_own(model, monkeypatch):
    seen = []

    def times(predicts, options):
        seen.append(torch.get_num_threads())
        return {name: {"1": 1.0} for name in predicts}

    monkeypatch.setattr(tuning, "_times", times)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        tuning.tune(TorchScript(), model, ExportOptions(input_size=SIZE), threads=2)
        assert seen == [2, 2, 2]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("words", "threads"), [("", None), ("--threads 2", 2)])
def test_the_command_hands_the_threads_on(words, threads, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    handed = []
    monkeypatch.setattr(_flow, "export", lambda *args, **kwargs: handed.append(kwargs["threads"]))
    argv = f"--model resnet10_static --no-pretrained --lowering tune {words}".split()
    assert run(export.onnx.main, argv) == 0
    assert handed == [threads]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--threads 2", "--threads is for the measurements of --lowering tune alone; leave it out."),
        (
            "--lowering tune --threads 0",
            "0 is not a number of threads; give --threads a whole number from 1.",
        ),
    ],
)
def test_threads_that_say_nothing_are_refused(words, said, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(export.onnx.main, f"--model resnet10_kw --no-pretrained {words}".split()) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


@pytest.mark.parametrize(
    ("batch", "more"),
    [(None, set()), (4, {"grouped"}), (1, {"grouped", "single"})],
    ids=["dynamic", "four", "one"],
)
def test_candidates_are_right_at_the_batch_asked_for(batch, more):
    found = candidates(KernelWeightedConv2d(4, 4, 3, groups=4), batch)
    assert set(found) == {"unfold", "gather", "rows", "scaled"} | more


def test_contract_is_a_candidate_where_there_is_a_basis_to_apply():
    assert "contract" in candidates(DotProductConv2d(4, 4, 3), None)


def test_batch_sizes_count_the_same(monkeypatch):
    """By the geometric mean: twice as fast at batch 1 weighs as much as twice as fast at batch 8."""

    def interleave(calls, turns, rounds):
        seconds = [call() for call in calls]
        return [Samples([[each, 2 * each]] * rounds, []) for each in seconds]

    monkeypatch.setattr(tuning, "calls_per_turn", lambda call: 2)
    monkeypatch.setattr(tuning, "interleave", interleave)
    takes = {"even": {1: 2.0, 8: 8.0}, "good at one": {1: 1.0, 8: 9.0}}
    predicts = {name: lambda images, by=by: by[len(images)] for name, by in takes.items()}
    times = tuning._times(predicts, ExportOptions(input_size=SIZE))
    assert times == {"even": {"1": 2.0, "8": 8.0}, "good at one": {"1": 1.0, "8": 9.0}}
    assert tuning.mean(times["even"]) == pytest.approx(4.0)
    assert tuning.ranked(times) == ["good at one", "even"]
    alone = tuning._times(predicts, ExportOptions(input_size=SIZE, batch=8))
    assert tuning.ranked(alone) == ["even", "good at one"]


def test_a_choice_by_layer_leaves_the_others_to_themselves(model):
    set_lowering(model, {"2": "grouped"})
    assert [layer.lowering for layer in dynamic_layers(model)] == ["rows", "grouped", "rows", "contract"]
    with pytest.raises(ValueError, match="no dynamic convolution '7'; it has 0, 2, 4, 6"):
        set_lowering(model, {"7": "rows"})


def test_layers_that_settled_otherwise_are_measured_apart():
    """A bounded softmax costs less than one that is not."""
    bounded, free = DotProductConv2d(4, 4, 3), DotProductConv2d(4, 4, 3)
    with torch.no_grad():
        free.keys.mul_(1e4)
    found = places(nn.Sequential(bounded, free), ExportOptions(input_size=(4, 8, 8)), OnnxRuntime())
    elsewhere = replace(found[0], size=found[1].size)
    assert elsewhere.signature != found[1].signature


def test_a_layer_is_measured_between_convolutions(stir, monkeypatch):
    """OpenVINO spares reorders between two static convolutions, onnxruntime between static operators."""
    model = stir(nn.Sequential(nn.ZeroPad2d(1), KernelWeightedConv2d(3, 6, (3, 2), stride=2)))
    options = ExportOptions(input_size=SIZE)
    (place,) = places(model, options, OnnxRuntime())
    images = torch.rand(2, *place.outer_size)
    first, second = place.in_place(place.layer), place.in_place(place.layer)
    assert torch.equal(first(images), second(images)), "two candidates must be of the same convolutions"
    assert first(images).shape == (2, 16, 4, 5)
    assert first(images).std() > 0, "what is dead could be folded away"

    exported = []
    export_ = OnnxRuntime.export

    def export(runtime, module, path, options):
        exported.append((options.input_size, *(type(part) for part in module.children())))
        return export_(runtime, module, path, options)

    monkeypatch.setattr(OnnxRuntime, "export", export)
    monkeypatch.setattr(tuning, "_times", lambda predicts, options: {name: {"1": 1.0} for name in predicts})
    tuning.measured(OnnxRuntime(), model, options)
    around = (nn.Conv2d, nn.ReLU, KernelWeightedConv2d, nn.ReLU, nn.Conv2d)
    assert exported == [((16, 10, 10), *around)] * len(candidates(place.layer, None))


class Twice(nn.Module):
    """A layer that runs on two sizes of maps, the second a single pixel."""

    def __init__(self):
        super().__init__()
        self.shared, self.pixel = KernelWeightedConv2d(3, 3, 1), KernelWeightedConv2d(3, 2, 1)

    def forward(self, x):
        return self.pixel(self.shared(self.shared(x).mean((2, 3), keepdim=True)))


def test_a_layer_that_runs_twice_is_measured_at_its_first_size():
    found = places(Twice(), ExportOptions(input_size=SIZE), OnnxRuntime())
    assert {place.name: place.size for place in found} == {"shared": (3, 8, 8), "pixel": (3, 1, 1)}


def test_layers_settle_for_the_runtime_that_they_are_chosen_for():
    """OpenVINO's own softmax is faster than one without a maximum."""
    model, options = nn.Sequential(DotProductConv2d(4, 4, 3)), ExportOptions(input_size=(4, 8, 8))
    for runtime, bounded in ((OnnxRuntime(), True), (OpenVino(), False)):
        (place,) = places(model, options, runtime)
        assert place.layer.bounded is bounded
