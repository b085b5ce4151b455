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

from export._graphs import constant, insert_before
from export.blocked import are_alike, blocked_values, is_blocked_convolution, norm_of

_PREFIX = "summed."


def fold_batch_norms(model: ir.Model) -> int:
    """Fold every batch norm that follows a sum of convolutions; return how many there were.

    One with a clip behind stays: onnxruntime fuses a clip with a convolution alone, and the norm becomes one
    (:mod:`export.blocked`).

    Args:
        model: with the shapes of its values, and its constants as initializers; changed in place.
    """
    norms = [node for node in model.graph if node.op_type == "BatchNormalization"]
    blocked = blocked_values(model.graph) if norms else set()
    folded = sum(_fold(node, blocked) for node in norms)
    if folded:
        RemoveUnusedNodesPass()(model)
    return folded


def _fold(node: ir.Node, blocked: set[ir.Value]) -> bool:
    """Fold a batch norm if it alone reads a sum of blocked convolutions; return whether it did.

    Args:
        node: the batch norm.
        blocked: the maps that onnxruntime has in blocks; what stands for one of them is added.
    """
    normed = node.outputs[0]
    norm = norm_of(normed)
    terms = [] if norm is None else _terms(norm[0])
    if norm is None or len(terms) < 2 or any(use.node.op_type == "Clip" for use in normed.uses()):
        return False
    if not all(is_blocked_convolution(term) and are_alike(term.outputs[0], normed) for term in terms):
        return False
    _, factor, offset = norm
    scaled = [
        _scaled(term, factor, np.zeros_like(offset) if index else offset, f"{_PREFIX}{normed.name}.{index}")
        for index, term in enumerate(terms)
    ]
    last, shortcut = _shortcut(normed, blocked)
    total = _replaced(last, scaled if shortcut is None else [scaled[0], shortcut, *scaled[1:]])
    blocked.add(total)
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


def _shortcut(normed: ir.Value, blocked: set[ir.Value]) -> tuple[ir.Value, ir.Value | None]:
    """Return the sum of a normed map and a shortcut, and that shortcut; without one the map and None.

    A shortcut that is not in blocks is none: it would take every sum behind it out of them.
    """
    uses = list(normed.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not normed.is_graph_output():
        for other in uses[0].node.inputs:
            if other is not normed and other in blocked and are_alike(other, normed):
                return uses[0].node.outputs[0], other
    return normed, None


def _scaled(term: ir.Node, factor: np.ndarray, offset: np.ndarray, name: str) -> ir.Value:
    """Insert, beside a convolution, one with its outputs times ``factor`` (C,) plus ``offset`` (C,)."""
    graph = term.graph
    assert graph is not None
    weight, *bias = (_numbers(value) for value in term.inputs[1:] if value is not None)
    shift = offset + (factor * bias[0] if bias else 0)
    constants = [constant(graph, f"{name}.weight", factor.reshape(-1, 1, 1, 1) * weight)]
    if shift.any():
        constants.append(constant(graph, f"{name}.bias", shift))
    made = insert_before(term, ir.Node("", "Conv", [term.inputs[0], *constants], term.attributes.values()))
    made.shape = term.outputs[0].shape
    return made


def _numbers(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()


def _replaced(old: ir.Value, parts: Sequence[ir.Value]) -> ir.Value:
    """Let the sum of ``parts``, in this order, stand for a value, without what made it; return the sum."""
    maker = old.producer()
    assert maker is not None
    total, *rest = parts
    for part in rest:
        total = insert_before(maker, ir.node("Add", [total, part]))
        total.shape = old.shape
    total.name = old.name
    ir.convenience.replace_all_uses_with(old, total, replace_graph_outputs=True)
    assert maker.graph is not None
    maker.graph.remove(maker, safe=True)
    return total
