"""Small ONNX graphs to try rewriting rules on: making them, and what onnxruntime makes of them."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.benchmark.sessions import open_session

CHANNELS = 32
SIDES = (6, 10)


def convolution(name, x, inputs=CHANNELS, outputs=CHANNELS, **attributes):
    """Return a 1x1 convolution ``name`` of ``x`` and its weight."""
    weight = np.random.default_rng(len(name)).standard_normal((outputs, inputs, 1, 1)).astype(np.float32)
    node = helper.make_node("Conv", [x, f"{name}.weight"], [name], **attributes)
    return [node], [numpy_helper.from_array(weight, f"{name}.weight")]


def graph(nodes, constants=(), channels=CHANNELS, opset=18, outputs=("y",), sides=SIDES):
    """Return a model: ``map``, which is a convolution of ``x``, then ``nodes``, then what is returned."""
    first, weights = convolution("map", "x", inputs=3, outputs=channels)
    made = helper.make_graph(
        [*first, *nodes],
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, *sides]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["batch", "numbers", 1, 1]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [*weights, *constants],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def constant(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.array(value, dtype), name)


def rules_applied(rules, model, numbers=1, scales="batch"):
    """Return the model with its shapes, the model after the rules, and how many operators they replaced.

    Args:
        rules: change a graph and return how many operators they replaced.
        model: as :func:`graph` makes it.
        numbers: in ``scale``, of one image.
        scales: the batch of ``scale``, a name or a number.
    """
    shape = model.graph.input[1].type.tensor_type.shape
    shape.dim[1].dim_value = numbers
    if scales != "batch":
        shape.dim[0].dim_value = scales
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    program = ir.from_proto(model)
    count = rules(program)
    new = ir.to_proto(program)
    onnx.checker.check_model(new, full_check=True)
    return model, new, count


def computed(model, folder, batch):
    """Return what onnxruntime computes, and the graph that it runs."""
    path, runs = folder / f"{len(list(folder.iterdir()))}.onnx", folder / "runs.onnx"
    onnx.save(model, path)
    session = open_session(path, optimised=runs)
    random = np.random.default_rng(batch)
    given = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in value.shape]
        given[value.name] = random.standard_normal(shape).astype(np.float32)
    return session.run(None, given), onnx.load(runs).graph


def same(plain, new, folder, batch=3):
    """Hold what two models compute against each other; return the graph that runs of the second."""
    wanted, _ = computed(plain, folder, batch)
    found, runs = computed(new, folder, batch)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    return runs


def ops(graph):
    return Counter(node.op_type for node in graph.node)


def blocked_here(graph):
    """Skip where onnxruntime blocks no convolution, as on processors without AVX."""
    if not any("nchwc" in node.domain for node in graph.node):
        pytest.skip("onnxruntime has no blocked convolutions on this processor")


def norm(name, x, channels=CHANNELS, output="sum", **attributes):
    """Return a batch norm and its constants."""
    random = np.random.default_rng(3)
    values = {part: random.uniform(0.5, 2, channels) for part in ("weight", "bias", "mean", "var")}
    names = [f"{name}.{part}" for part in values]
    node = helper.make_node("BatchNormalization", [x, *names], [output], **attributes)
    return node, [constant(f"{name}.{part}", value) for part, value in values.items()]
