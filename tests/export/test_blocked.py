"""The rules that keep maps in onnxruntime's blocked layout: what they compute, and whether they work."""

import contextlib
import functools
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import export.onnx
import export.openvino
from export.base import BLOCKED, BLOCKED_PREFIX, LAYOUTS, PLAIN, ExportOptions
from export.benchmark import prepare
from export.benchmark.engine import Setting
from export.benchmark.engines import ENGINES
from export.benchmark.plan import Candidate
from export.benchmark.sessions import open_session
from export.benchmark.subjects import Subjects
from export.blocked import keep_blocked
from export.onnx import OnnxRuntime, newest_opset
from tests.export.graphs import (
    CHANNELS,
    SIDES,
    blocked_here,
    constant,
    convolution,
    graph,
    norm,
    ops,
    rules_applied,
    same,
)
from zoo.errors import ZooError
from zoo.layers import FAMILIES

rewritten = functools.partial(rules_applied, keep_blocked)


def scale_of(numbers):
    """Return the nodes that make ``s``, (batch, numbers, 1, 1), as a layer does: from a row of numbers."""
    return [
        helper.make_node("ReduceMean", ["scale", "axes"], ["row"], keepdims=0),
        helper.make_node("Sigmoid", ["row"], ["gates"]),
        helper.make_node("Unsqueeze", ["gates", "axes"], ["s"]),
    ], [constant("axes", [2, 3], np.int64)]


def scaled(order=1, opset=18, channels=CHANNELS, numbers=CHANNELS, sides=SIDES, last=None, **attributes):
    """Return the map times a scale, in one order or the other, then a convolution or ``last``."""
    nodes, constants = scale_of(numbers)
    nodes.append(helper.make_node("Mul", ["map", "s"][::order], ["product"]))
    end, weights = last or convolution("y", "product", inputs=channels, **attributes)
    return graph([*nodes, *end], [*constants, *weights], channels, opset, sides=sides)


@pytest.mark.parametrize("opset", [18, 19, newest_opset()])
@pytest.mark.parametrize("order", [1, -1], ids=["map first", "scale first"])
@pytest.mark.parametrize("numbers", [CHANNELS, 1], ids=["a number a channel", "a number an image"])
def test_a_scale_meets_its_map_in_blocks(numbers, order, opset, tmp_path):
    plain, new, count = rewritten(scaled(order, opset, numbers=numbers), numbers)
    assert count == 1
    same(plain, new, tmp_path, batch=1)
    runs = same(plain, new, tmp_path)
    blocked_here(runs)
    assert ops(runs)["ReorderOutput"] == 1  # of what is returned
    assert ops(runs)["ReorderInput"] == (numbers > 1)  # of the scale


def test_scales_of_several_maps_have_their_own_shapes(tmp_path):
    """Of one height and two widths."""
    nodes, constants = scale_of(CHANNELS)
    pooled = helper.make_node("MaxPool", ["map"], ["narrow"], kernel_shape=[1, 2], strides=[1, 2])
    first, weights = convolution("y", "product")
    second, more = convolution("z", "other")
    products = [
        helper.make_node("Mul", ["map", "s"], ["product"]),
        helper.make_node("Mul", ["narrow", "s"], ["other"]),
    ]
    model = graph([*nodes, pooled, *products, *first, *second], [*constants, *weights, *more], outputs="yz")
    plain, new, count = rewritten(model, CHANNELS)
    assert count == 2
    same(plain, new, tmp_path)


def test_a_convolution_is_scaled_before_its_batch_norm_and_clip(tmp_path):
    """As a layer with a stride is: the product goes on in blocks."""
    nodes, constants = scale_of(CHANNELS)
    product = helper.make_node("Mul", ["map", "s"], ["product"])
    norm_node, norm_constants = norm("bn", "product")
    model = clipped([*nodes, product, norm_node], [*constants, *norm_constants])
    plain, new, count = rewritten(model, CHANNELS)
    assert count == 2
    runs = same(plain, new, tmp_path)
    blocked_here(runs)
    assert ops(runs)["ReorderOutput"] == ops(runs)["ReorderInput"] == 1


def test_a_scale_in_blocks_needs_no_convolution(tmp_path):
    """As in squeeze and excitation, whose gates are convolutions of a pool."""
    pool = helper.make_node("GlobalAveragePool", ["map"], ["pool"])
    gate, weights = convolution("gate", "pool")
    product = helper.make_node("Mul", ["map", "s"], ["product"])
    last, more = convolution("y", "product")
    sigmoid = helper.make_node("Sigmoid", ["gate"], ["s"])
    plain, new, count = rewritten(graph([pool, *gate, sigmoid, product, *last], [*weights, *more]))
    assert count == 1
    assert ops(new.graph)["Conv"] == ops(plain.graph)["Conv"]
    runs = same(plain, new, tmp_path)
    blocked_here(runs)
    assert ops(runs)["ReorderOutput"] == 1
    assert ops(runs)["ReorderInput"] == 0


@pytest.mark.parametrize("keepdims", [0, 1, None])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_a_mean_over_a_map_is_a_pool(axes, keepdims, tmp_path):
    said = {} if keepdims is None else {"keepdims": keepdims}
    node = helper.make_node("ReduceMean", ["map", "axes"], ["y"], **said)
    plain, new, count = rewritten(graph([node], [constant("axes", axes, np.int64)]))
    assert count == 1
    assert [value.name for value in new.graph.output] == ["y"]
    runs = same(plain, new, tmp_path)
    blocked_here(runs)
    assert ops(runs)["GlobalAveragePool"] == 1


def clipped(between, constants=(), channels=CHANNELS, bounds=(0.0, 0.7), outputs=("y",)):
    """Return a clip of what ``between`` makes of the map, then a convolution."""
    names = [name if bound is not None else "" for name, bound in zip(("least", "most"), bounds, strict=True)]
    limits = [constant(name, bound) for name, bound in zip(names, bounds, strict=True) if name]
    nodes = [*between, helper.make_node("Clip", ["sum", *names], ["clipped"])]
    last, weights = convolution("y", "clipped", inputs=channels)
    return graph([*nodes, *last], [*constants, *limits, *weights], channels, outputs=outputs)


@pytest.mark.parametrize("bounds", [(0.0, 0.7), (0.2, None), (None, 0.7)])
@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_a_clip_is_fused_with_the_batch_norm_before_it(epsilon, bounds, tmp_path):
    doubled = helper.make_node("Add", ["map", "map"], ["double"])
    node, constants = norm("bn", "double", **({} if epsilon is None else {"epsilon": epsilon}))
    plain, new, count = rewritten(clipped([doubled, node], constants, bounds=bounds))
    assert count == 1
    assert "BatchNormalization" not in ops(new.graph)
    runs = same(plain, new, tmp_path)
    blocked_here(runs)
    assert "Clip" not in ops(runs)
    assert ops(runs)["ReorderInput"] == 0


@pytest.mark.parametrize("used", ["as an output", "by an operator"])
def test_a_batch_norm_that_others_use_stays(used, tmp_path):
    doubled = helper.make_node("Add", ["map", "map"], ["double"])
    node, constants = norm("bn", "double")
    other = helper.make_node("Softsign", ["sum"], ["soft"])
    names = ("y", "sum") if used == "as an output" else ("y", "soft")
    plain, new, count = rewritten(clipped([doubled, node, other], constants, outputs=names))
    assert count == 1
    assert ops(new.graph)["BatchNormalization"] == 1
    same(plain, new, tmp_path)


def unchanged():
    """Return models that no rule fits, by why, and the numbers in a scale of theirs."""
    nodes, constants = scale_of(CHANNELS)
    last, weights = convolution("y", "product")
    both = [*constants, *weights]
    axes = constant("axes", [2, 3], np.int64)
    twice = [
        helper.make_node("Mul", ["map", "s"], ["one"]),
        helper.make_node("Mul", ["map", "s"], ["other"]),
        helper.make_node("Add", ["one", "other"], ["product"]),
    ]
    soft = helper.make_node("Softsign", ["map"], ["soft"])
    of_soft = helper.make_node("Mul", ["soft", "s"], ["product"])
    fixed = helper.make_node("Mul", ["map", "c"], ["product"])
    ones = constant("c", np.ones((1, CHANNELS, 1, 1)))
    one_axis = constant("axes", [2], np.int64)
    mean = helper.make_node("ReduceMean", ["map", "axes"], ["y"], keepdims=0)
    between, between_weights = convolution("sum", "map")
    normed, normed_constants = norm("bn", "map")
    narrow, narrow_weights = convolution("narrow", "map", inputs=8, outputs=CHANNELS, group=4)
    of_narrow = helper.make_node("Mul", ["narrow", "s"], ["product"])
    limit = helper.make_node("ReduceMax", ["scale"], ["most"], keepdims=0)
    computed_limit = clipped([*between, limit], between_weights, bounds=(0.0, None))
    computed_limit.graph.node[-2].input[2] = "most"
    leaving = helper.make_node("Softsign", ["product"], ["y"])
    summed = [*between, helper.make_node("Add", ["product", "sum"], ["y"])]
    return {
        "two scales share a map": (graph([*nodes, *twice, *last], both), CHANNELS),
        "no blocked map": (graph([*nodes, soft, of_soft, *last], both), CHANNELS),
        "a map of a convolution with small groups": (
            graph([*nodes, *narrow, of_narrow, *last], [*both, *narrow_weights]),
            CHANNELS,
        ),
        "a product that leaves the blocks": (scaled(last=([leaving], [])), CHANNELS),
        "a product that is added up": (scaled(last=(summed, between_weights)), CHANNELS),
        "a product that is returned": (
            scaled(last=([helper.make_node("Identity", ["product"], ["y"])], [])),
            32,
        ),
        "a map of one number": (scaled(sides=(1, 1)), CHANNELS),
        "a constant scale": (graph([fixed, *last], [*weights, ones]), 1),
        "channels that no block is padded from": (scaled(channels=30, numbers=30), 30),
        "a mean over one axis": (graph([mean], [one_axis]), 1),
        "a mean over a large map": (graph([mean], [axes], sides=(32, 33)), 1),
        "a mean of half a block": (graph([mean], [axes], channels=24), 1),
        "a clip behind a convolution": (clipped(between, between_weights), 1),
        "a clip behind a convolution and its batch norm": (clipped([normed], normed_constants), 1),
        "a clip to what is computed": (computed_limit, 4),
    }


@pytest.mark.parametrize("why", unchanged())
def test_other_operators_stay(why):
    model, numbers = unchanged()[why]
    plain, new, count = rewritten(model, numbers)
    assert count == 0
    assert ops(new.graph) == ops(plain.graph)


def test_a_scale_that_all_images_share_stays():
    plain, new, count = rewritten(scaled(), CHANNELS, scales=1)
    assert count == 0
    assert ops(new.graph) == ops(plain.graph)


def test_half_a_block_of_channels_is_scaled(tmp_path):
    plain, new, count = rewritten(scaled(channels=24, numbers=24), 24)
    assert count == 1
    runs = same(plain, new, tmp_path)
    blocked_here(runs)
    assert ops(runs)["ReorderOutput"] == ops(runs)["ReorderInput"] == 1


class Inverted(nn.Module):
    """What MobileNets are made of: a wider map, a dynamic depthwise convolution, and back."""

    def __init__(self, family):
        super().__init__()
        layer = nn.Conv2d if family == "static" else FAMILIES[family]
        self.wide = nn.Sequential(nn.Conv2d(24, 96, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU6())
        self.depthwise = nn.Sequential(
            layer(96, 96, 3, padding=1, bias=False, groups=96), nn.BatchNorm2d(96), nn.ReLU6()
        )
        self.narrow = nn.Sequential(nn.Conv2d(96, 24, 1, bias=False), nn.BatchNorm2d(24))

    def forward(self, x):
        return x + self.narrow(self.depthwise(self.wide(x)))


def network(family, stir):
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))
    stem = nn.Conv2d(3, 24, 3, padding=1)
    return stir(nn.Sequential(stem, Inverted(family), Inverted(family), *head))


@pytest.mark.parametrize("family", ["static", "kw", "kwb"])
def test_a_mobile_network_stays_in_blocks(family, stir, tmp_path):
    """No map leaves the blocks for a gate, a context or a clip; what is reordered has a number a channel."""
    path, runs = tmp_path / "model.onnx", tmp_path / "runs.onnx"
    export.onnx.export(network(family, stir), path, input_size=(3, 8, 8))
    open_session(path, optimised=runs)
    made = onnx.load(runs).graph
    blocked_here(made)
    users = {name: node.op_type for node in made.node for name in node.input}
    left = Counter(users[node.output[0]] for node in made.node if node.op_type == "ReorderOutput")
    assert left == Counter({"ReduceMean": 1, "Flatten": 2 * (family != "static")})  # the head has 24 channels
    assert not {"Clip", "BatchNormalization"} & ops(made).keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_both_layouts_compute_the_same(family, stir, tmp_path):
    model, found = network(family, stir), {}
    for layout in LAYOUTS:
        path = tmp_path / f"{layout}.onnx"
        certificate = export.onnx.export(model, path, input_size=(3, 8, 8), layout=layout)
        assert certificate.passed
        assert OnnxRuntime().metadata(path)["layout"] == layout
        images = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
        found[layout] = OnnxRuntime().load(path)(images)
        added = any(value.name.startswith(BLOCKED_PREFIX) for value in onnx.load(path).graph.initializer)
        assert added == (layout == BLOCKED and family != "convex")
    np.testing.assert_allclose(found[BLOCKED], found[PLAIN], rtol=1e-4, atol=1e-5)


def test_only_fp32_is_blocked(stir, tmp_path, monkeypatch):
    """The step of an fp16 export that passes in fp32 is laid out as the file will be."""
    model, path, seen = network("kw", stir), tmp_path / "model.onnx", []
    layout = OnnxRuntime.layout

    def kept(self, options):
        seen.append((options.dtype, layout(self, options)))
        return seen[-1][1]

    monkeypatch.setattr(OnnxRuntime, "layout", kept)
    export.onnx.export(model, path, input_size=(3, 8, 8), dtype="fp16")
    assert set(seen) == {("fp32", PLAIN), ("fp16", PLAIN)}
    assert OnnxRuntime().metadata(path)["layout"] == PLAIN
    assert "Resize" not in ops(onnx.load(path).graph)


def test_openvino_has_no_choice(stir, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "model.openvino.onnx"
    export.openvino.export(network("kw", stir), path, input_size=(3, 8, 8))
    assert "layout" not in OnnxRuntime().metadata(path)
    assert not {"Resize", "GlobalAveragePool"} & ops(onnx.load(path).graph).keys()


def test_a_layout_that_does_not_exist_is_refused():
    with pytest.raises(ZooError, match="layout 'nhwc' is none of maps; give one of blocked, plain"):
        ExportOptions(layout="nhwc")


def test_the_command_has_the_choice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--model", "resnet10_kwb", "--no-pretrained", "--layout", "plain"]
    assert export.onnx.main(words) == 0
    assert OnnxRuntime().metadata(tmp_path / "resnet10_kwb.onnx")["layout"] == PLAIN


def test_what_is_timed_on_cuda_is_plain(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(OnnxRuntime, "export", lambda self, model, path, options: seen.append(options.layout))
    monkeypatch.setattr("export.benchmark.engine.atomic_path", contextlib.nullcontext)
    for device in ("cpu", "cuda"):
        setting = Setting(input_size=(3, 8, 8), device=device)
        path = ENGINES["onnx"].artifact(setting, tmp_path)
        seen.append(path.parent.name)
        ENGINES["onnx"].export(torch.nn.Identity(), setting, path)
    assert seen == ["onnx", BLOCKED, "onnx-plain", PLAIN]


def test_what_is_certified_before_it_is_timed_on_cuda_is_plain(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        prepare, "certified_export", lambda runtime, model, path, options: seen.append(options)
    )
    workshop = prepare.Workshop(Subjects(pretrained=False), tmp_path, certify=True)
    for device in ("cpu", "cuda"):
        workshop.export(Candidate("resnet10_kw", "onnx", device=device))
    assert [options.layout for options in seen] == [BLOCKED, PLAIN]


def test_openvinos_command_has_no_choice(capsys):
    with pytest.raises(SystemExit):
        export.openvino.main(["--model", "resnet10_kw", "--layout", "plain"])
    assert "unrecognized arguments: --layout" in capsys.readouterr().err
