"""Folding batch norms into sums of convolutions: what is computed, and what onnxruntime fuses."""

import functools

import numpy as np
import onnx
import pytest
from onnx import helper
from torch import nn

import export.onnx
from export.benchmark.sessions import open_session
from export.summed import fold_batch_norms
from tests.export.graphs import (
    CHANNELS,
    blocked_here,
    constant,
    convolution,
    graph,
    norm,
    ops,
    rules_applied,
    same,
)
from zoo.layers import FAMILIES

rewritten = functools.partial(rules_applied, fold_batch_norms)


def terms(count=3, bias=False):
    """Return so many convolutions of the map, the second grouped, and their sum ``sum``."""
    nodes, constants, total = [], [], None
    for index in range(count):
        groups = 2 if index == 1 else 1
        node, weights = convolution(f"term{index}", "map", inputs=CHANNELS // groups, group=groups)
        if bias and index != 1:
            node[0].input.append(f"bias{index}")
            weights.append(constant(f"bias{index}", np.arange(CHANNELS) / 10))
        nodes += node
        constants += weights
        if total:
            out = "sum" if index == count - 1 else f"sum{index}"
            nodes.append(helper.make_node("Add", [total, f"term{index}"], [out]))
        total = f"term{index}" if total is None else out
    return nodes, constants


def normed(end, constants=(), outputs=("y",), **how):
    """Return terms, the batch norm ``bn`` of their sum, then ``end``."""
    nodes, weights = terms(**how)
    batch_norm, values = norm("bn", "sum", output="bn")
    return graph([*nodes, batch_norm, *end], [*weights, *values, *constants], outputs=outputs)


@pytest.mark.parametrize("bias", [False, True])
def test_a_norm_behind_a_sum_costs_no_pass(bias, tmp_path):
    relu = helper.make_node("Relu", ["bn"], ["y"])
    plain, new, count = rewritten(normed([relu], bias=bias))
    assert count == 1
    assert "BatchNormalization" not in ops(new.graph)
    assert ops(new.graph)["Conv"] == ops(plain.graph)["Conv"]
    kept = {value.name for value in new.graph.initializer}
    assert not kept & {value.name for value in plain.graph.initializer} - {"map.weight"}, "stored twice"
    runs = same(plain, new, tmp_path)
    blocked_here(runs)
    assert ops(runs)["Conv"] == ops(plain.graph)["Conv"]
    assert not {"Relu", "Add", "BatchNormalization"} & ops(runs).keys(), "fused with the convolutions"


@pytest.mark.parametrize("order", [1, -1], ids=["norm first", "shortcut first"])
def test_a_shortcut_opens_the_sum(order, tmp_path):
    end = [
        helper.make_node("Add", ["bn", "map"][::order], ["joined"]),
        helper.make_node("Relu", ["joined"], ["y"]),
    ]
    plain, new, count = rewritten(normed(end))
    assert count == 1
    first = next(node for node in new.graph.node if node.op_type == "Add")
    assert "map" in first.input
    runs = same(plain, new, tmp_path)
    blocked_here(runs)
    assert not {"Relu", "Add"} & ops(runs).keys(), "the last convolution takes in one sum and the ReLU"


@pytest.mark.parametrize("end", ["Relu", "Add"])
def test_a_norm_that_is_returned_keeps_its_name(end, tmp_path):
    last = helper.make_node(end, ["bn", "map"][: 1 + (end == "Add")], ["y"])
    plain, new, count = rewritten(normed([last], outputs=("y", "bn")))
    assert count == 1
    assert [value.name for value in new.graph.output] == ["y", "bn"]
    same(plain, new, tmp_path)


def test_a_norm_that_two_operators_read_is_folded_once(tmp_path):
    end = [helper.make_node("Relu", ["bn"], ["y"]), helper.make_node("Sigmoid", ["bn"], ["z"])]
    plain, new, count = rewritten(normed(end, outputs=("y", "z")))
    assert count == 1
    assert ops(new.graph)["Conv"] == ops(plain.graph)["Conv"]
    same(plain, new, tmp_path)


def test_two_norms_that_are_added_up_are_both_folded(tmp_path):
    nodes, weights = terms(4)
    nodes = [node for node in nodes if node.op_type == "Conv"]
    nodes += [
        helper.make_node("Add", ["term0", "term1"], ["sum"]),
        helper.make_node("Add", ["term2", "term3"], ["others"]),
    ]
    one, values = norm("bn", "sum", output="bn")
    other, others = norm("second", "others", output="second")
    end = [helper.make_node("Add", ["bn", "second"], ["joined"]), helper.make_node("Relu", ["joined"], ["y"])]
    plain, new, count = rewritten(graph([*nodes, one, other, *end], [*weights, *values, *others]))
    assert count == 2
    assert not ops(new.graph)["BatchNormalization"]
    same(plain, new, tmp_path)


def test_a_shortcut_that_left_the_blocks_stays_behind(tmp_path):
    end = [
        helper.make_node("Softsign", ["map"], ["soft"]),
        helper.make_node("Add", ["bn", "soft"], ["joined"]),
        helper.make_node("Relu", ["joined"], ["y"]),
    ]
    plain, new, count = rewritten(normed(end))
    assert count == 1
    assert "soft" in [node for node in new.graph.node if node.op_type == "Add"][-1].input
    runs = same(plain, new, tmp_path)
    blocked_here(runs)
    assert ops(runs)["ReorderInput"] == 0


def test_a_shortcut_of_another_shape_stays_behind(tmp_path):
    end = [helper.make_node("Add", ["bn", "row"], ["joined"]), helper.make_node("Relu", ["joined"], ["y"])]
    row = constant("row", np.arange(CHANNELS).reshape(1, CHANNELS, 1, 1))
    plain, new, count = rewritten(normed(end, [row]))
    assert count == 1
    assert "row" in [node for node in new.graph.node if node.op_type == "Add"][-1].input
    same(plain, new, tmp_path)


def unchanged():
    """Return models whose batch norm stays, by why."""
    relu = helper.make_node("Relu", ["bn"], ["y"])
    clip = helper.make_node("Clip", ["bn", "least", "most"], ["y"])
    limits = [constant("least", 0.0), constant("most", 0.7)]
    one, one_weights = convolution("sum", "map")
    batch_norm, values = norm("bn", "sum", output="bn")
    nodes, weights = terms(2)
    shared = helper.make_node("Relu", ["term0"], ["z"])
    scaled = helper.make_node("Mul", ["map", "c"], ["term1"])
    half = constant("c", 0.5)
    small, small_weights = convolution("pooled", "pool", outputs=CHANNELS)
    small.insert(0, helper.make_node("GlobalAveragePool", ["map"], ["pool"]))
    small[1].output[0] = "term1"
    narrow, narrow_weights = convolution("term1", "map", inputs=8, group=4)
    return {
        "behind one convolution": graph([*one, batch_norm, relu], [*one_weights, *values]),
        "with a clip behind": normed([clip], limits),
        "behind a sum that is read twice": normed([relu, helper.make_node("Relu", ["sum"], ["z"])]),
        "behind a sum that is returned": normed([relu], outputs=("y", "sum")),
        "behind a term that is read twice": graph(
            [*nodes, batch_norm, relu, shared], [*weights, *values], outputs=("y", "z")
        ),
        "behind a term of another shape": graph(
            [nodes[0], *small, nodes[2], batch_norm, relu], [weights[0], *small_weights, *values]
        ),
        "behind something scaled": graph(
            [nodes[0], scaled, nodes[2], batch_norm, relu], [weights[0], half, *values]
        ),
        "behind a convolution that is not blocked": graph(
            [nodes[0], *narrow, nodes[2], batch_norm, relu], [weights[0], *narrow_weights, *values]
        ),
    }


@pytest.mark.parametrize("why", unchanged())
def test_other_norms_stay(why):
    plain, new, count = rewritten(unchanged()[why])
    assert count == 0
    assert ops(new.graph) == ops(plain.graph)


class Residual(nn.Module):
    """What ResNets are made of: two dynamic convolutions with batch norms, and a shortcut."""

    def __init__(self, layer):
        super().__init__()
        self.first = nn.Sequential(layer(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.second = nn.Sequential(layer(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32))
        self.end = nn.ReLU()

    def forward(self, x):
        return self.end(x + self.second(self.first(x)))


def test_a_residual_network_of_static_terms_has_nothing_between_its_convolutions(stir, tmp_path):
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))
    layer = FAMILIES["fgk"]
    network = stir(nn.Sequential(nn.Conv2d(3, 32, 3), Residual(layer), Residual(layer), *head))
    path, runs = tmp_path / "model.onnx", tmp_path / "runs.onnx"
    export.onnx.export(network, path, input_size=(3, 10, 10))
    open_session(path, optimised=runs)
    made = onnx.load(runs).graph
    blocked_here(made)
    assert not {"Relu", "Add", "BatchNormalization"} & ops(made).keys()
