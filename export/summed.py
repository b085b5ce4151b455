"""Fold the batch norms of an ONNX graph into the convolutions whose sum they follow.

A dynamic convolution of static terms (the lowering ``scaled``) is a sum of convolutions. onnxruntime lets the
next convolution add what the last one made, and a convolution take in what comes behind it: a batch norm, a
ReLU. But a batch norm behind a sum is another pass over the map. Here every convolution takes the norm's
factor, and the first one its offset. A shortcut that is added behind opens the sum instead, because the last
convolution takes in one sum alone, and so takes in the ReLU behind both.

What is computed stays the same, up to rounding.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export.blocked import are_alike, is_blocked_convolution, norm_of


def fold_batch_norms(model: ir.Model) -> int:
    """Fold every batch norm that follows a sum of convolutions; return how many there were.

    One with a clip behind stays: onnxruntime fuses a clip with a convolution alone, and the norm becomes one
    (:mod:`export.blocked`).

    Args:
        model: with the shapes of its values, and its constants as initializers; changed in place.
    """
    folded = sum(
        _fold(model.graph, node) for node in list(model.graph) if node.op_type == "BatchNormalization"
    )
    if folded:
        RemoveUnusedNodesPass()(model)
    return folded


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    """Fold a batch norm, unless it follows no sum of convolutions on blocks that it alone reads."""
    normed = node.outputs[0]
    norm = norm_of(normed)
    terms = [] if norm is None else _terms(norm[0])
    clipped = any(use.node.op_type == "Clip" for use in normed.uses())
    if norm is None or clipped or len(terms) < 2 or not all(map(is_blocked_convolution, terms)):
        return False
    _, factor, offset = norm
    scaled = [
        _scaled(graph, term, factor, np.zeros_like(offset) if index else offset, f"{normed.name}.{index}")
        for index, term in enumerate(terms)
    ]
    last, shortcut = _shortcut(normed)
    _replace(graph, last, scaled if shortcut is None else [scaled[0], shortcut, *scaled[1:]])
    return True


def _terms(x: ir.Value) -> list[ir.Node]:
    """Return the convolutions that ``x`` is the sum of, in order; none where others read a part of it."""
    maker = x.producer()
    if maker is None or len(x.uses()) != 1 or x.is_graph_output():
        return []
    if maker.op_type == "Conv":
        return [maker]
    if maker.op_type != "Add":
        return []
    parts = [_terms(part) for part in maker.inputs if part is not None]
    return [term for part in parts for term in part] if all(parts) else []


def _shortcut(normed: ir.Value) -> tuple[ir.Value, ir.Value | None]:
    """Return the sum of a normed map and a shortcut, and that shortcut; without one the map and None."""
    uses = list(normed.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not normed.is_graph_output():
        for other in uses[0].node.inputs:
            if other is not None and other is not normed and are_alike(other, normed):
                return uses[0].node.outputs[0], other
    return normed, None


def _scaled(graph: ir.Graph, term: ir.Node, factor: np.ndarray, offset: np.ndarray, name: str) -> ir.Value:
    """Insert, beside a convolution, another that has its outputs times ``factor`` plus ``offset``."""
    weight, *bias = (value.const_value.numpy() for value in term.inputs[1:] if value and value.const_value)
    shift = offset + (factor * bias[0] if bias else 0)
    constants = [_constant(graph, f"{name}.weight", factor.reshape(-1, 1, 1, 1) * weight)]
    if shift.any():
        constants.append(_constant(graph, f"{name}.bias", shift))
    made = ir.Node("", "Conv", [term.inputs[0], *constants], term.attributes.values())
    return _inserted(graph, term, made, like=term.outputs[0])


def _replace(graph: ir.Graph, old: ir.Value, parts: Sequence[ir.Value]) -> None:
    """Let the sum of ``parts`` stand for a value, in this order, and take away what made that."""
    maker = old.producer()
    assert maker is not None
    total, *rest = parts
    for part in rest:
        total = _inserted(graph, maker, ir.node("Add", [total, part]), like=old)
    total.name = old.name
    ir.convenience.replace_all_uses_with(old, total, replace_graph_outputs=True)
    graph.remove(maker, safe=True)


def _inserted(graph: ir.Graph, before: ir.Node, made: ir.Node, like: ir.Value) -> ir.Value:
    """Insert an operator that says to come from where ``before`` does; return its output."""
    made.metadata_props.update(before.metadata_props)
    made.outputs[0].type, made.outputs[0].shape = like.type, like.shape
    graph.insert_before(before, made)
    return made.outputs[0]


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register an initializer of float32."""
    tensor = ir.tensor(array.astype(np.float32), name=name)
    kind, shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
    value = ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
    graph.register_initializer(value)
    return value
