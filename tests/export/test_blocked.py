"""The rules that keep maps in onnxruntime's blocked layout: what they compute, and whether they work."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import export.onnx
import export.openvino
from export.base import BLOCKED, LAYOUTS, PLAIN, ExportOptions
from export.benchmark.engine import Setting
from export.benchmark.engines import ENGINES
from export.benchmark.sessions import open_session
from export.blocked import PREFIX, keep_blocked
from export.onnx import OnnxRuntime, newest_opset
from zoo.errors import ZooError
from zoo.layers import FAMILIES

CHANNELS, SIDE = 32, 6
X = ("x", ["batch", 3, SIDE, SIDE])


def convolution(name, x, inputs=CHANNELS, outputs=CHANNELS, **attributes):
    """Return a 1x1 convolution ``name`` of ``x`` and its weight."""
    weight = np.random.default_rng(len(name)).standard_normal((outputs, inputs, 1, 1)).astype(np.float32)
    node = helper.make_node("Conv", [x, f"{name}.weight"], [name], **attributes)
    return [node], [numpy_helper.from_array(weight, f"{name}.weight")]


def graph(nodes, constants=(), channels=CHANNELS, opset=18, output=("y", None)):
    """Return a model: ``map``, which is a convolution of ``x``, then ``nodes``, then what is returned."""
    first, weights = convolution("map", "x", inputs=3, outputs=channels)
    name, shape = output
    made = helper.make_graph(
        [*first, *nodes],
        "graph",
        [
            helper.make_tensor_value_info(X[0], TensorProto.FLOAT, X[1]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["batch", "numbers", 1, 1]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [*weights, *constants],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return model


def constant(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.array(value, dtype), name)


def scale_of(numbers):
    """Return the nodes that make ``s``, (batch, numbers, 1, 1), as a layer does: from a row of numbers."""
    return [
        helper.make_node("ReduceMean", ["scale", "axes"], ["row"], keepdims=0),
        helper.make_node("Sigmoid", ["row"], ["gates"]),
        helper.make_node("Unsqueeze", ["gates", "axes"], ["s"]),
    ], [constant("axes", [2, 3], np.int64)]


def rewritten(model, numbers=1):
    """Return the model with its shapes, the model after the rules, and how many operators they replaced."""
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_value = numbers
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    program = ir.from_proto(model)
    count = keep_blocked(program)
    new = ir.to_proto(program)
    onnx.checker.check_model(new, full_check=True)
    return model, new, count


def outputs(model, folder, numbers, batch):
    """Return what onnxruntime computes, and the operators of the graph that it runs."""
    path, runs = folder / f"{len(list(folder.iterdir()))}.onnx", folder / "runs.onnx"
    onnx.save(model, path)
    session = open_session(path, optimised=runs)
    random = np.random.default_rng(batch)
    given = {
        "x": random.standard_normal((batch, *X[1][1:])).astype(np.float32),
        "scale": random.standard_normal((batch, numbers, 1, 1)).astype(np.float32),
    }
    given = {value.name: given[value.name] for value in session.get_inputs()}
    return session.run(None, given)[0], onnx.load(runs).graph


def ops(graph):
    return Counter(node.op_type for node in graph.node)


def blocked_here(graph):
    """Skip where onnxruntime blocks no convolution, as on processors without AVX."""
    if not any("nchwc" in node.domain for node in graph.node):
        pytest.skip("onnxruntime has no blocked convolutions on this processor")


def scaled(order=1, opset=18, channels=CHANNELS, numbers=CHANNELS):
    nodes, constants = scale_of(numbers)
    nodes.append(helper.make_node("Mul", ["map", "s"][::order], ["product"]))
    last, weights = convolution("y", "product", inputs=channels)
    return graph([*nodes, *last], [*constants, *weights], channels, opset)


@pytest.mark.parametrize("opset", [18, 19, newest_opset()])
@pytest.mark.parametrize("order", [1, -1], ids=["map first", "scale first"])
@pytest.mark.parametrize("numbers", [CHANNELS, 1], ids=["a number a channel", "a number an image"])
def test_a_scale_meets_its_map_in_blocks(numbers, order, opset, tmp_path):
    plain, new, count = rewritten(scaled(order, opset, numbers=numbers), numbers)
    assert count == 1
    for batch in (1, 3):
        want, _ = outputs(plain, tmp_path, numbers, batch)
        got, runs = outputs(new, tmp_path, numbers, batch)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    blocked_here(runs)
    assert ops(runs)["ReorderOutput"] == 1  # of what is returned
    assert ops(runs)["ReorderInput"] == (numbers > 1)  # of the scale


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_a_mean_over_a_map_is_a_pool(axes, keepdims, tmp_path):
    node = helper.make_node("ReduceMean", ["map", "axes"], ["y"], keepdims=keepdims)
    plain, new, count = rewritten(graph([node], [constant("axes", axes, np.int64)]))
    assert count == 1
    assert [value.name for value in new.graph.output] == ["y"]
    got, runs = outputs(new, tmp_path, 1, 3)
    want, _ = outputs(plain, tmp_path, 1, 3)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    blocked_here(runs)
    assert ops(runs)["GlobalAveragePool"] == 1


def clipped(between, constants=(), channels=CHANNELS):
    """Return a clip of what ``between`` makes of the map, then a convolution."""
    nodes = [*between, helper.make_node("Clip", ["sum", "least", "most"], ["clipped"])]
    last, weights = convolution("y", "clipped", inputs=channels)
    limits = [constant("least", 0.0), constant("most", 0.7)]
    return graph([*nodes, *last], [*constants, *limits, *weights], channels)


def norm(name, x, channels=CHANNELS):
    """Return a batch norm and its constants, its epsilon not the usual one."""
    random = np.random.default_rng(3)
    values = {part: random.uniform(0.5, 2, channels) for part in ("weight", "bias", "mean", "var")}
    names = [f"{name}.{part}" for part in values]
    node = helper.make_node("BatchNormalization", [x, *names], ["sum"], epsilon=0.1)
    return node, [constant(f"{name}.{part}", value) for part, value in values.items()]


def test_a_clip_is_fused_with_the_batch_norm_before_it(tmp_path):
    add = helper.make_node("Relu", ["map"], ["relu"])
    node, constants = norm("bn", "relu")
    plain, new, count = rewritten(clipped([add, node], constants))
    assert count == 1
    assert "BatchNormalization" not in ops(new.graph)
    got, runs = outputs(new, tmp_path, 1, 3)
    want, _ = outputs(plain, tmp_path, 1, 3)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    blocked_here(runs)
    assert "Clip" not in ops(runs)
    assert ops(runs)["ReorderInput"] == 0


def test_a_batch_norm_that_others_use_stays(tmp_path):
    node, constants = norm("bn", "map")
    model = clipped([node], constants)
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))
    plain, new, count = rewritten(model)
    assert count == 1
    assert ops(new.graph)["BatchNormalization"] == 1
    np.testing.assert_allclose(
        outputs(new, tmp_path, 1, 3)[0], outputs(plain, tmp_path, 1, 3)[0], rtol=1e-5, atol=1e-5
    )


def test_a_clip_right_behind_a_convolution_is_fused_as_it_is():
    between, weights = convolution("sum", "map")
    assert rewritten(clipped(between, weights))[2] == 0


def unchanged():
    """Return models that no rule fits, by why."""
    nodes, constants = scale_of(CHANNELS)
    last, weights = convolution("y", "product")
    both = [*constants, *weights]
    twice = [
        helper.make_node("Mul", ["map", "s"], ["one"]),
        helper.make_node("Mul", ["map", "s"], ["other"]),
        helper.make_node("Add", ["one", "other"], ["product"]),
    ]
    softsign = helper.make_node("Softsign", ["map"], ["soft"])
    square = helper.make_node("Mul", ["map", "map"], ["product"])
    fixed = helper.make_node("Mul", ["map", "c"], ["product"])
    mean = helper.make_node("ReduceMean", ["map", "one_axis"], ["y"], keepdims=0)
    odd, odd_constants = norm("bn", "map", 24)
    return {
        "two scales share a map": graph([*nodes, *twice, *last], both),
        "no blocked map": graph(
            [*nodes, softsign, helper.make_node("Mul", ["soft", "s"], ["product"]), *last], both
        ),
        "a map times itself": graph([*nodes, square, *last], both),
        "a constant scale": graph([fixed, *last], [*weights, constant("c", np.ones((1, CHANNELS, 1, 1)))]),
        "a mean over one axis": graph([mean], [constant("one_axis", [2], np.int64)]),
        "half a block of channels": scaled(channels=24, numbers=24),
        "a mean of half a block": graph(
            [helper.make_node("ReduceMean", ["map", "axes"], ["y"])],
            [constant("axes", [2, 3], np.int64)],
            channels=24,
        ),
        "a clip of half a block": clipped([odd], odd_constants, channels=24),
    }


@pytest.mark.parametrize("why", unchanged())
def test_other_operators_stay(why):
    model = unchanged()[why]
    numbers = 24 if "half" in why else CHANNELS
    plain, new, count = rewritten(model, numbers)
    assert count == 0
    assert ops(new.graph) == ops(plain.graph)


class Inverted(nn.Module):
    """What MobileNets are made of: a wider map, a dynamic depthwise convolution, and back."""

    def __init__(self, family, side):
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
    return stir(nn.Sequential(stem, Inverted(family, 8), Inverted(family, 8), *head))


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
        added = any(value.name.startswith(PREFIX) for value in onnx.load(path).graph.initializer)
        assert added == (layout == BLOCKED and family != "convex")
    np.testing.assert_allclose(found[BLOCKED], found[PLAIN], rtol=1e-4, atol=1e-5)


def test_only_fp32_is_blocked(stir, tmp_path):
    model, path = network("kw", stir), tmp_path / "model.onnx"
    export.onnx.export(model, path, input_size=(3, 8, 8), dtype="fp16")
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


def test_what_is_timed_on_cuda_is_plain(stir, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(OnnxRuntime, "export", lambda self, model, path, options: seen.append(options.layout))
    monkeypatch.setattr("export.benchmark.engine.atomic_path", open_nothing)
    for device in ("cpu", "cuda"):
        setting = Setting(input_size=(3, 8, 8), device=device)
        path = ENGINES["onnx"].artifact(setting, tmp_path)
        seen.append(path.parent.name)
        ENGINES["onnx"].export(torch.nn.Identity(), setting, path)
    assert seen == ["onnx", BLOCKED, "onnx-plain", PLAIN]


class open_nothing:
    """Stands in for a file that is written."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        return self.path

    def __exit__(self, *error):
        return None
