import dataclasses
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from torch import nn

from export.base import BLOCKED, ExportOptions
from export.benchmark import clocks, profile
from export.benchmark.attribution import (
    BETWEEN,
    CONTEXT,
    CONVOLUTION,
    FACTORS,
    REST,
    STATIC_CONVOLUTION,
    UNATTRIBUTED,
    Origin,
    mark,
    origins,
)
from export.benchmark.breakdown import break_down
from export.benchmark.clocks import CLOCKS, Call, Clocked, calls
from export.benchmark.engines import ENGINES
from export.benchmark.plan import Candidate
from export.benchmark.prepare import WrongResult
from export.benchmark.profile import Part, Profile, summarise
from export.onnx import OnnxRuntime, to_proto
from zoo.errors import ZooError
from zoo.layers import KernelWeightedConv2d


@pytest.mark.parametrize("runtime", CLOCKS)
@pytest.mark.parametrize(
    ("model", "lowering"),
    [("static", "auto"), ("kw", "unfold"), ("dpk", "contract"), ("condconv", "grouped")],
)
def test_all_time_has_a_place(model, lowering, runtime, subjects):
    if reason := ENGINES[runtime].available("cpu"):
        pytest.skip(reason)
    candidate = Candidate(f"benchnet_{model}", runtime, lowering=lowering, batch=3)
    found = break_down(candidate, subjects, calls=5)
    kinds = found.by_kind()
    assert sum(kinds.values()) == pytest.approx(found.seconds)
    assert sum(sum(parts.values()) for parts in found.by_layer().values()) == pytest.approx(
        found.seconds - kinds[BETWEEN]
    )
    assert min(kinds.values()) >= 0  # so no operator's clock runs past the call's
    inside = found.seconds - kinds.pop(BETWEEN)  # which a busy machine makes as long as it likes
    assert kinds[UNATTRIBUTED] < 0.2 * inside
    assert kinds[STATIC_CONVOLUTION] > 0
    assert kinds[REST] > 0
    dynamic = {layer for layer, parts in found.by_layer().items() if CONVOLUTION in parts}
    if model == "static":
        assert not dynamic
        assert kinds[CONTEXT] == kinds[FACTORS] == 0
    else:
        assert dynamic == {"stage.conv1", "stage.conv2"}
        assert kinds[CONTEXT] > 0
        assert kinds[FACTORS] > 0


def test_what_is_profiled_is_what_is_exported(subjects, tmp_path):
    model, size = subjects.deployed("benchnet_dpk", "contract"), subjects.size("benchnet_dpk")
    options = ExportOptions(input_size=size)
    OnnxRuntime().export(model, tmp_path / "model.onnx", options)
    exported = onnx.load(tmp_path / "model.onnx").graph
    profiled = to_proto(model, options, OnnxRuntime().layout(options)).graph
    assert Counter(node.op_type for node in exported.node) == Counter(node.op_type for node in profiled.node)
    # What is known of shapes decides what onnxruntime fuses, so it must survive the marking.
    mark(profiled)
    made = {value for node in profiled.node for value in node.output}
    assert made - {"logits"} <= {value.name for value in profiled.value_info}


def test_what_keeps_maps_in_blocks_counts_as_what_it_stands_for():
    """A scale spread over its map, and a batch norm as a convolution."""
    layer = KernelWeightedConv2d(32, 32, 3, padding=1, stride=2, groups=32, bias=False)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(nn.Conv2d(3, 32, 1), layer, nn.BatchNorm2d(32), nn.ReLU6(), *head).eval()
    graph = to_proto(model, ExportOptions(input_size=(3, 8, 8)), BLOCKED).graph
    found = Counter((each.layer, each.kind, each.op) for each in origins(graph, model))
    assert found["1", CONVOLUTION, "Resize"] == 1
    assert found["1", CONVOLUTION, "Conv"] == 1
    assert found["1", CONTEXT, "GlobalAveragePool"] == 1
    assert sum(count for (_, kind, op), count in found.items() if (kind, op) == (REST, "Conv")) == 1
    assert found["0", STATIC_CONVOLUTION, "Conv"] == 1


def test_a_wrong_model_is_not_profiled(subjects, monkeypatch):
    monkeypatch.setattr(subjects, "expected", lambda name: lambda images: images[:, 0, 0, :10])
    with pytest.raises(WrongResult, match="its outputs are wrong"):
        break_down(Candidate("benchnet_static"), subjects, calls=5)


def test_timms_layer_is_not_taken_apart(subjects):
    with pytest.raises(ZooError, match="the parts of timm's layer are not known"):
        break_down(Candidate("benchnet_condconv", lowering="timm"), subjects, calls=5)


class Known:
    """Stands in for an attribution: every operator is a factor of its own layer."""

    def origin(self, name, op):
        return Origin(name, FACTORS, op)


def test_the_faster_half_of_the_calls_is_added_up():
    """The operator a takes half of each call."""
    ran = [Call(length, (Clocked("a", "FusedGemm", "Gemm", length / 2),)) for length in (100, 400, 200, 800)]
    found = summarise(Candidate("benchnet_kw"), ran, Known())
    assert (found.calls, found.slower) == (2, 2)
    assert "(the mean of 2 calls, the fastest of 4)" in profile.to_text(found)
    assert found.seconds == pytest.approx(150)
    assert found.parts == (Part(Origin("a", FACTORS, "Gemm"), "FusedGemm", pytest.approx(75), 1),)
    assert found.between == pytest.approx(75)


class Counted:
    """Stands in for a request of OpenVINO: each call takes longer, and counters are means of all so far."""

    def __init__(self):
        self.calls = 0

    def infer(self, inputs, share_inputs):
        self.calls += 1
        return [np.zeros((1, 10), np.float32)]

    @property
    def latency(self):
        return 1000 * self.calls  # in ms

    @property
    def profiling_info(self):
        mean = (self.calls + 1) / 2  # of 1 s, 2 s, ...
        taken = {"conv": ("Convolution", 0.5 * mean), "gone": ("Multiply", 0.0)}
        return [
            SimpleNamespace(node_name=name, node_type=op, real_time=timedelta(seconds=seconds))
            for name, (op, seconds) in taken.items()
        ]


def test_counters_of_openvino_are_taken_apart_by_call(monkeypatch, tmp_path):
    network = SimpleNamespace(create_infer_request=Counted)
    monkeypatch.setattr(clocks, "compiled", lambda path, threads, clocked: network)
    clock = clocks.OpenVinoClock(tmp_path, 1, tmp_path)
    for _ in range(5):
        clock.run(np.zeros((1, 3, 8, 8), np.float32))
    (call,) = clock.stop(3)
    assert call.count == 3
    assert call.seconds == pytest.approx(4)  # the mean of 3, 4 and 5 s
    assert call.operators == (Clocked("conv", "Convolution", "Conv", pytest.approx(2)),)


def test_events_of_onnxruntime_are_calls_in_their_order():
    runs = [(4000, 100), (0, 1000), (2000, 900)]
    events = [{"cat": "Session", "name": "model_run", "ts": start, "dur": length} for start, length in runs]
    events += [
        {
            "cat": "Node",
            "name": "a_kernel_time",
            "ts": start + 1,
            "dur": length / 2,
            "args": {"op_name": "FusedConv"},
        }
        for start, length in runs
    ]
    found = calls(events)
    assert [call.seconds for call in found] == pytest.approx([1000e-6, 900e-6, 100e-6])
    assert found[-1].operators == (Clocked("a", "FusedConv", "Conv", pytest.approx(50e-6)),)


def test_the_text_sets_a_model_beside_its_twin():
    kw = Candidate("benchnet_kw")
    parts = (
        Part(Origin("stage.conv1", FACTORS, "Softmax"), "Softmax", 3e-3, 2),
        Part(Origin("stage.conv1", CONVOLUTION, "MatMul"), "MatMul", 5e-3, 1),
        Part(Origin("", REST, "Relu"), "Relu", 1e-3, 3),
    )
    twin = Profile(
        kw.twin, 4e-3, 5, (Part(Origin("stage.conv1", STATIC_CONVOLUTION, "Conv"), "Conv", 4e-3, 1),)
    )
    text = profile.to_text(Profile(kw, 10e-3, 5, parts), twin)
    assert "(the mean of 5 calls)" in text
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][:2] == ["benchnet_kw,", "onnx,"]
    assert ["factors", "3.000", "30.0%"] in [line[:3] for line in lines]
    assert ["static", "convolution", "4.000"] in [line[:3] for line in lines]
    assert ["stage.conv1", "3.000", "5.000", "8.000"] in lines
    assert ["(all", "else)", "1.000", "1.000"] in lines
    assert ["MatMul", "convolution", "1", "5.000", "50.0%"] in lines
    alone = profile.to_text(dataclasses.replace(twin, candidate=kw.twin))
    assert "benchnet_static" in alone
