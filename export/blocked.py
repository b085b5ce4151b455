"""Rewrite an ONNX graph so that onnxruntime keeps its maps blocked.

On a CPU onnxruntime convolves maps whose channels lie in blocks (NCHWc), and keeps a map that way for as long
as every operator can. Those around dynamic convolutions often cannot: a map times a number for each channel,
the mean over a map, a clip that is not right behind a convolution. Each costs a way out of the blocks and
back, which are two more passes over the map. The rules here say the same in operators that can:

- a scale is resized to its map, for which there is a blocked operator, and two equal shapes are multiplied;
- the mean over height and width is a global average pool;
- a clip gets a 1x1 depthwise convolution in front, of the batch norm where there is one, and is fused.

What is computed stays the same, but for the order in which a mean adds up. The conditions are those of
onnxruntime's ``NchwcTransformer`` and ``ConvActivationFusion``, or narrower.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export._graphs import constant, insert_before
from export.base import BLOCKED_PREFIX

_BLOCK = 16
"""Channels in a block with AVX512, and a multiple of those in one on every other processor."""

_UNBLOCKED_INPUTS = 8
"""With fewer input channels than any block has, a dense convolution reads a map as it is."""

_PADDED = 4
"""Channels of a convolution are padded to whole blocks where this divides their number."""

_LARGEST_POOLED = 32 * 32
"""A blocked pool adds a map up number by number, which costs large maps too many digits."""

_ELEMENTWISE = ("Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu", "BatchNormalization")
_POOLS = ("GlobalAveragePool", "AveragePool", "MaxPool")
_SUMS = ("Add", "Sum", "Mul")


def keep_blocked(model: ir.Model) -> int:
    """Apply the rules of this file wherever a map is blocked; return how many operators were replaced.

    Args:
        model: with the shapes of its values, and its constants as initializers; changed in place.
    """
    replaced = _Rewriter(model.graph).run()
    if replaced:
        RemoveUnusedNodesPass()(model)
    return replaced


def blocked_values(graph: ir.Graph) -> set[ir.Value]:
    """Return the maps that onnxruntime has in blocks as the graph is."""
    rewriter = _Rewriter(graph)
    rewriter.rules = {}
    rewriter.run()
    return rewriter.blocked


class _Rewriter:
    """One pass over a graph, in the order in which it is computed.

    Args:
        graph: changed in place.
    """

    def __init__(self, graph: ir.Graph):
        self.graph = graph
        self.blocked: set[ir.Value] = set()
        self.rules: Mapping[str, Callable[[ir.Node], ir.Value | None]] = {
            "Mul": self._scaled,
            "ReduceMean": self._mean,
            "Clip": self._clipped,
        }

    def run(self) -> int:
        """Return how many operators were replaced."""
        replaced = 0
        for node in list(self.graph):
            rule = self.rules.get(node.op_type)
            new = None if rule is None else rule(node)
            if new is None:
                if self._stays_blocked(node):
                    self.blocked.add(node.outputs[0])
                continue
            old = node.outputs[0]
            new.name, new.shape = old.name, old.shape
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            self.graph.remove(node, safe=True)
            replaced += 1
        return replaced

    def _stays_blocked(self, node: ir.Node) -> bool:
        """Tell whether onnxruntime computes ``node`` on blocks."""
        op, given = node.op_type, [value for value in node.inputs if value is not None]
        if op == "Conv":
            return is_blocked_convolution(node)
        if op == "Clip":
            return given[0] in self.blocked and _is_fused(node)
        if op in _SUMS:
            return self.blocked.issuperset(given) and all(are_alike(given[0], other) for other in given)
        able = op in _ELEMENTWISE or (op in _POOLS and _is_divided(given[0], _BLOCK))
        return able and given[0] in self.blocked

    def _scaled(self, node: ir.Node) -> ir.Value | None:
        """Give the scale of a blocked map the map's shape, in blocks."""
        pair = self._map_and_scale(node.inputs)
        if pair is None or not _is_read_in_blocks(node.outputs[0]):
            return None
        x, scale = pair
        batch, channels, height, width = _shape(x)
        each = _shape(scale)[1] == channels  # else one number for all of them
        spread = scale
        if not each or scale not in self.blocked:
            # Nothing but a convolution brings numbers into blocks.
            ones = self._constant(f"ones_{channels}", np.ones((channels, 1, 1, 1)))
            spread = self._before(node, "Conv", [scale, ones], group=channels if each else 1)
            spread.shape = ir.Shape([batch, channels, 1, 1])
        sizes = self._constant(f"to_{height}_{width}", np.array([1, 1, height, width]))
        how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        whole = self._before(node, "Resize", [spread, None, sizes], **how)
        whole.shape = ir.Shape(_shape(x))  # it has no other way to know that the batch stays the same
        new = self._before(node, "Mul", [x, whole])
        self.blocked.update((spread, whole, new))
        return new

    def _map_and_scale(self, given: Sequence[ir.Value | None]) -> tuple[ir.Value, ir.Value] | None:
        """Return a blocked map and what it is multiplied by; None for other factors.

        The scale is computed and has a number for each map or one for each image. A map that several scales
        share leaves the blocks once for all of them, and would be multiplied as often.
        """
        for x, scale in (given, given[::-1]):
            if x is None or scale is None or x not in self.blocked or scale.producer() is None:
                continue
            wanted, sizes = _shape(x), _shape(scale)
            alone = sum(use.node.op_type == "Mul" for use in x.uses()) == 1
            if len(wanted) != 4 or len(sizes) != 4 or not all(isinstance(size, int) for size in wanted[1:]):
                continue
            fits = sizes[1] == 1 or (sizes[1] == wanted[1] and _is_divided(x, _PADDED))
            same = _is_known(sizes[0]) and sizes[0] == wanted[0]
            if alone and fits and same and sizes[2:] == [1, 1] and wanted[2:] != [1, 1]:
                return x, scale
        return None

    def _mean(self, node: ir.Node) -> ir.Value | None:
        """Pool a blocked map, where its mean over height and width is asked for."""
        x, *axes = node.inputs
        if x is None or x not in self.blocked or not _is_divided(x, _BLOCK):
            return None
        known = axes[0].const_value if axes and axes[0] is not None else None
        over = [] if known is None else known.numpy().tolist()
        batch, channels, *sides = _shape(x)
        if sorted(axis % 4 for axis in over) != [2, 3] or not all(isinstance(side, int) for side in sides):
            return None
        if math.prod(sides) > _LARGEST_POOLED:
            return None
        pooled = self._before(node, "GlobalAveragePool", [x])
        pooled.shape = ir.Shape([batch, channels, 1, 1])
        self.blocked.add(pooled)
        keeps = node.attributes.get("keepdims")
        return pooled if keeps is None or keeps.as_int() else self._before(node, "Flatten", [pooled])

    def _clipped(self, node: ir.Node) -> ir.Value | None:
        """Convolve before a clip that onnxruntime fuses with no convolution."""
        x, *limits = node.inputs
        if x is None or x not in self.blocked or not _is_divided(x, _PADDED):
            return None
        if _is_fused(node) or not _are_constant(limits):
            return None
        channels, name, norm = _shape(x)[1], node.outputs[0].name, norm_of(x)
        if norm is None:
            made = [self._constant(f"ones_{channels}", np.ones((channels, 1, 1, 1)))]
        else:
            x, scale, offset = norm
            made = [
                self._constant(f"{name}.scale", scale.reshape(-1, 1, 1, 1)),
                self._constant(f"{name}.offset", offset),
            ]
        convolved = self._before(node, "Conv", [x, *made], group=channels)
        convolved.shape = node.outputs[0].shape
        new = self._before(node, "Clip", [convolved, *limits])
        self.blocked.update((convolved, new))
        return new

    def _before(
        self, node: ir.Node, op: str, inputs: Sequence[ir.Value | None], **attributes: int | str
    ) -> ir.Value:
        return insert_before(node, ir.node(op, inputs, attributes))

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        return constant(self.graph, f"{BLOCKED_PREFIX}{name}", array)


def is_blocked_convolution(node: ir.Node) -> bool:
    """Tell whether onnxruntime computes a convolution on blocks: of constant weights, with whole blocks."""
    constants = [value for value in node.inputs[1:] if value is not None]
    if not _are_constant(constants) or any(value.dtype != ir.DataType.FLOAT for value in constants):
        return False
    outputs, per_group, *kernel = _shape(constants[0])
    if len(kernel) != 2:
        return False
    said = node.attributes.get("group")
    groups = 1 if said is None else said.as_int()
    if groups == 1:
        return per_group < _UNBLOCKED_INPUTS or per_group % _PADDED == 0
    if per_group == 1 and outputs == groups:
        return outputs % _PADDED == 0
    return per_group % _BLOCK == 0 and outputs // groups % _BLOCK == 0


def _is_fused(clip: ir.Node) -> bool:
    """Tell whether a clip becomes part of a convolution, once that has taken in a batch norm or a ReLU."""
    x, *limits = clip.inputs
    while x is not None and len(x.uses()) == 1 and not x.is_graph_output():
        maker = x.producer()
        if maker is None or maker.op_type not in ("Conv", "BatchNormalization", "Relu"):
            return False
        if maker.op_type == "Conv":
            return _are_constant(limits)
        x = maker.inputs[0]
    return False


def _is_read_in_blocks(x: ir.Value) -> bool:
    """Tell whether something computes with ``x`` that could do so on blocks.

    A sum does not count: where scaled maps are added up, each would cost two operators more than it has, and
    without that only their sum has to find its way back into the blocks.
    """
    able = ("Clip", *_ELEMENTWISE, *_POOLS)
    readers = [use.node for use in x.uses()]
    return any(node.op_type in able or _reads_blocks(node) for node in readers)


def _reads_blocks(node: ir.Node) -> bool:
    return node.op_type == "Conv" and is_blocked_convolution(node)


def norm_of(x: ir.Value) -> tuple[ir.Value, np.ndarray, np.ndarray] | None:
    """Return what ``x`` (N, C, H, W) is a batch norm of, its factor and its offset; None where it is none.

    Factor and offset are (C,), in float64.
    """
    maker = x.producer()
    if maker is None or maker.op_type != "BatchNormalization":
        return None
    known = [None if value is None else value.const_value for value in maker.inputs[1:]]
    numbers = [tensor.numpy().astype(np.float64) for tensor in known if tensor is not None]
    if maker.inputs[0] is None or len(numbers) != 4:
        return None
    weight, bias, mean, variance = numbers
    said = maker.attributes.get("epsilon")
    factor = weight / np.sqrt(variance + (1e-5 if said is None else said.as_float()))
    return maker.inputs[0], factor, bias - mean * factor


def _are_constant(values: Iterable[ir.Value | None]) -> bool:
    return all(value is None or value.const_value is not None for value in values)


def are_alike(one: ir.Value, other: ir.Value) -> bool:
    """Tell whether two values are known to have one shape."""
    shape = _shape(one)
    return bool(shape) and all(map(_is_known, shape)) and shape == _shape(other)


def _is_divided(x: ir.Value, by: int) -> bool:
    """Tell whether ``x`` is a map whose number of channels ``by`` divides."""
    shape = _shape(x)
    return len(shape) == 4 and isinstance(shape[1], int) and shape[1] % by == 0


def _is_known(size: Any) -> bool:
    return isinstance(size, int) or size.value is not None


def _shape(value: ir.Value) -> list[Any]:
    """Return the shape of a value, of whole numbers and symbols; empty where it is not known."""
    return [] if value.shape is None else list(value.shape)
