"""Training speed: every way is timed beside its twin, and the choice of lowering reaches the run."""

import json
from dataclasses import replace

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

import zoo
from zoo.cli import run
from zoo.errors import ZooError
from zoo.layers import FAMILIES, LOWERINGS, dynamic_layers, lowerings_of
from zoo.training import speed
from zoo.training.loop import set_training_lowering
from zoo.training.speed import Candidate


def test_the_ratio_is_that_of_the_same_round(monkeypatch):
    """A machine that slows down tenfold slows both; a step of the model takes twice its twin's."""

    class Step:
        def __init__(self, candidate, device, network):
            self.factor = 1 if candidate.model.endswith("_static") else 2
            self.pace = iter([9.0, 1.0, 10.0, 1.0])

        def __call__(self):
            return self.factor * next(self.pace)

    monkeypatch.setattr(speed, "Step", Step)
    monkeypatch.setattr(speed, "Network", lambda *args: None)
    monkeypatch.setattr(speed, "peak_memory", lambda candidate, threads: 7 * threads)
    twin, row = speed.measure([Candidate("resnet10_kw", batch=4)], rounds=3, threads=2)
    assert (twin["model"], twin["over_static"]) == ("resnet10_static", 1.0)
    assert row["over_static"] == pytest.approx(0.5)
    assert row["images_per_second"] == pytest.approx(4 / 2)
    assert row["peak_memory_mb"] == 14


def test_a_compiled_model_is_held_against_its_compiled_twin(monkeypatch):
    class Step:
        def __init__(self, candidate, device, network):
            work = 1 if candidate.model.endswith("_static") else 2
            self.seconds = work if candidate.compiled else 4 * work

        def __call__(self):
            return self.seconds

    monkeypatch.setattr(speed, "Step", Step)
    monkeypatch.setattr(speed, "Network", lambda *args: None)
    monkeypatch.setattr(speed, "peak_memory", lambda candidate, threads: None)
    plain = Candidate("resnet10_kw", batch=4)
    rows = speed.measure([plain, replace(plain, compiled=True)], rounds=1)
    shown = "model", "compiled", "images_per_second", "over_static"
    assert [tuple(row[name] for name in shown) for row in rows] == [
        ("resnet10_static", False, 1.0, 1.0),
        ("resnet10_static", True, 4.0, 1.0),
        ("resnet10_kw", False, 0.5, 0.5),
        ("resnet10_kw", True, 2.0, 0.5),
    ]


def test_what_torch_cannot_compile_is_one_sentence(monkeypatch):
    def refuse(model, dynamic):
        def run(images):
            raise TorchDynamoException("no compiler\nand much more")

        return run

    monkeypatch.setattr(torch, "compile", refuse)
    step = speed.Step(Candidate("resnet10_static", batch=2, side=8, compiled=True), torch.device("cpu"))
    with pytest.raises(ZooError, match=r"torch\.compile cannot compile resnet10_static \(no compiler\)"):
        step()


def test_what_is_measured_is_kept_when_a_later_model_fails(tmp_path, monkeypatch):
    done = []

    def measure(candidates, rounds, threads):
        if done:
            raise KeyboardInterrupt
        done.append({"model": candidates[0].model})
        return done

    monkeypatch.setattr(speed, "measure", measure)
    monkeypatch.setattr(speed, "loading", lambda *args: 1.0)
    monkeypatch.setattr(speed, "table", lambda rows: "")
    path = tmp_path / "speed.json"
    words = ["--models", "resnet10_fgk", "resnet10_kw", "--lowerings", "auto", "--json", str(path)]
    with pytest.raises(KeyboardInterrupt):
        speed.main(words)
    assert json.loads(path.read_text())["rows"] == done != []


def test_what_cannot_be_measured_is_refused_first(tmp_path, capsys):
    words = ["--models", "resnet10_fgk", "resnet10_kw", "--lowerings", "scaled"]
    assert run(speed.main, words) == 2
    assert "resnet10_kw cannot train with the lowering scaled; it can with auto" in capsys.readouterr().err
    assert run(speed.main, ["--models", "resnet10_kw", "--json", str(tmp_path / "none/speed.json")]) == 2
    assert "in none that can be written to" in capsys.readouterr().err
    assert run(speed.main, ["--models", "resnet10_kw", "--json", str(tmp_path)]) == 2
    assert "it is a folder" in capsys.readouterr().err


def test_the_record_holds_every_way(tmp_path, capsys):
    path = tmp_path / "speed.json"
    words = ["--models", "resnet10_fgk", "--lowerings", "auto", "scaled", "--batch", "2", "--side", "8"]
    assert run(speed.main, [*words, "--amp", "bf16", "--rounds", "1", "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert record["format"] == speed.FORMAT
    assert record["command"].endswith(f"--json .../{tmp_path.name}/speed.json"), "no path of this machine"
    assert record["loading"]["images_per_second"] > 0
    assert [(row["model"], row["lowering"]) for row in record["rows"]] == [
        ("resnet10_static", "auto"),
        ("resnet10_fgk", "auto"),
        ("resnet10_fgk", "scaled"),
    ]
    assert {row["amp"] for row in record["rows"]} == {"bf16"}
    assert "scaled, NHWC, bf16" in speed.table(record["rows"])
    assert all(row["images_per_second"] > 0 and row["peak_memory_mb"] > 50 for row in record["rows"])
    assert "resnet10_fgk" in capsys.readouterr().out


@pytest.mark.parametrize("amp", ["bf16", "no"])
def test_a_step_computes_in_the_precision_asked_for(amp):
    step = speed.Step(Candidate("resnet10_static", batch=2, side=8, amp=amp), torch.device("cpu"))
    seen = []
    step.network.model.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    step()
    assert seen == [torch.bfloat16 if amp == "bf16" else torch.float32]


def test_a_static_twin_alone_is_nothing_to_compare(capsys):
    assert run(speed.main, ["--models", "resnet10_static"]) == 2
    assert "there is nothing to compare" in capsys.readouterr().err


def test_numbers_below_one_are_refused(capsys):
    assert run(speed.main, ["--models", "resnet10_fgk", "--batch", "0"]) == 2
    assert "--batch is 0; it must be at least 1" in capsys.readouterr().err
    for images in ("1", "5"):
        assert run(speed.main, ["--models", "resnet10_fgk", "--batch", "4", "--shared", images]) == 2
        assert f"--shared is {images}; it must be from 2 to the batch, 4" in capsys.readouterr().err


def test_a_step_runs_in_the_memory_format_asked_for_and_the_twin_in_its_own(monkeypatch):
    monkeypatch.setattr(speed, "peak_memory", lambda candidate, threads: None)
    nchw = Candidate("mobilenetv3_small_100_fgk", batch=2, channels_last=False)
    twin, row = speed.measure([nchw], rounds=1)
    assert (twin["channels_last"], row["channels_last"]) == (True, False)
    assert (speed.way(twin), speed.way(row)) == ("auto, NHWC", "auto, NCHW")
    nhwc = replace(nchw, channels_last=True)
    for candidate, strides in ((nchw, (3072, 1024, 32, 1)), (nhwc, (3072, 1, 96, 3))):
        step = speed.Step(candidate, torch.device("cpu"))
        assert step.images.stride() == strides
        assert step.network.model.conv_stem.weight.is_contiguous() == (not candidate.channels_last)


@pytest.mark.parametrize(
    ("model", "words", "ways"),
    [
        ("mobilenetv3_small_100_fgk", [], ["auto, NCHW"]),
        ("mobilenetv3_small_100_fgk", ["--layouts"], ["auto, NCHW", "auto, NHWC"]),
        (
            "mobilenetv3_small_100_fgk",
            ["--lowerings", "grouped", "scaled"],
            ["grouped, NCHW", "scaled, NHWC"],
        ),
        ("mobilenetv3_small_100_kw", [], ["auto, NHWC"]),
        ("resnet10_fgk", ["--layouts"], ["auto, NHWC", "auto, NCHW"]),
    ],
)
def test_images_lie_in_memory_as_they_are_trained(model, words, ways, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(speed, "Step", lambda *args: lambda: 1.0)
    monkeypatch.setattr(speed, "Network", lambda *args: None)
    monkeypatch.setattr(speed, "peak_memory", lambda candidate, threads: None)
    seen = []
    monkeypatch.setattr(speed, "table", lambda rows: seen.extend(rows) or "")
    lowerings = [] if "--lowerings" in words else ["--lowerings", "auto"]
    assert speed.main(["--models", model, "--rounds", "1", *lowerings, *words]) == 0
    assert [speed.way(row) for row in seen if row["model"] == model] == ways


def test_images_share_kernels_in_a_step(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "peak_memory", lambda candidate, threads: None)
    path = tmp_path / "speed.json"
    words = ["--models", "resnet10_kw", "--lowerings", "auto", "--batch", "4", "--side", "8"]
    assert speed.main([*words, "--shared", "2", "4", "--rounds", "1", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [(row["model"], speed.way(row)) for row in rows] == [
        ("resnet10_static", "auto, NHWC"),
        ("resnet10_kw", "auto, NHWC"),
        ("resnet10_kw", "auto, NHWC, shared by 2"),
        ("resnet10_kw", "auto, NHWC, shared by 4"),
    ]


def test_ways_to_train_take_turns_with_one_network(monkeypatch):
    """Copies of a large network would fill the memory; each way still trains in its own."""
    monkeypatch.setattr(speed, "peak_memory", lambda candidate, threads: None)
    made, seen, step = [], [], speed.Step.__call__

    class Network(speed.Network):
        def __init__(self, model, channels_last, compile, device):
            super().__init__(model, channels_last, False, device)
            made.append((model, channels_last, compile))

    def watched(self):
        seconds = step(self)
        layers = dynamic_layers(self.network.model)
        seen.append({(layer.lowering, layer.shared_images) for layer in layers})
        return seconds

    monkeypatch.setattr(speed, "Network", Network)
    monkeypatch.setattr(speed.Step, "__call__", watched)
    fgk = Candidate("resnet10_fgk", "scaled", batch=4, side=8)
    ways = [fgk, replace(fgk, lowering="unfold"), replace(fgk, shared=2), replace(fgk, channels_last=False)]
    speed.measure([*ways, replace(fgk, compiled=True)], rounds=1)
    twins = [("resnet10_static", True, False), ("resnet10_static", True, True)]
    fgks = [("resnet10_fgk", *how) for how in ((True, False), (False, False), (True, True))]
    assert made == [*twins, *fgks]
    alone = {("scaled", 1)}
    one_round = [set(), set(), alone, {("unfold", 1)}, {("scaled", 2)}, alone, alone]
    assert seen == 2 * one_round


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_trains_every_parameter_in_every_way(family):
    for lowering in speed.trainable(f"resnet10_{family}"):
        step = speed.Step(Candidate(f"resnet10_{family}", lowering, batch=2, side=8), torch.device("cpu"))
        assert step() > 0
        assert [name for name, one in step.network.model.named_parameters() if one.grad is None] == []
        layers = dynamic_layers(step.network.model)
        assert lowering == "auto" or {layer.lowering for layer in layers} == {lowering}


def test_depthwise_convolutions_of_several_terms_train_as_one_convolution():
    found = {}
    for family in FAMILIES:
        model = zoo.create_model(f"mobilenetv3_small_100_{family}")
        set_training_lowering(model, "auto")
        found[family] = {layer.lowering for layer in dynamic_layers(model)}
    gated = {"kw": {"scaled"}, "kwb": {"scaled"}}
    assert found == {**{each: {"grouped"} for each in FAMILIES}, **gated, "convex": {"fold"}}


def test_kw_trains_as_one_convolution_where_it_cannot_be_scaled():
    assert FAMILIES["kw"](4, 8, 3, groups=4).training_lowering() == "grouped"
    assert FAMILIES["kw"](4, 4, 3, groups=4).training_lowering() == "scaled"


@pytest.mark.parametrize("family", ["condconv", "dyconv", "convex", "kw"])
def test_experts_of_many_channels_train_as_static_convolutions(family):
    model = zoo.create_model(f"resnet10_{family}")
    set_training_lowering(model, "auto")
    layers = dynamic_layers(model)
    assert layers
    for layer in layers:
        routed = family.endswith("conv") and layer.in_channels == 512
        assert layer.lowering == ("experts" if routed else layer.auto_lowering())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lowering_to_train_with_is_one_that_can(family):
    model = zoo.create_model(f"mobilenetv2_100_{family}")
    set_training_lowering(model, "auto")
    for layer in dynamic_layers(model):
        assert layer.lowering in lowerings_of(layer)
        assert LOWERINGS[layer.lowering].batch != "one"


def test_a_lowering_that_cannot_train_is_refused():
    with pytest.raises(ZooError, match="the lowering 'single' cannot train; choose from auto, grouped"):
        set_training_lowering(zoo.create_model("resnet10_kw"), "single")
