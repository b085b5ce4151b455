"""Rewrite an ONNX graph so that onnxruntime keeps its maps blocked.

On a CPU onnxruntime convolves maps whose channels lie in blocks (NCHWc), and keeps a map that way for as long
as every operator can. Those around dynamic convolutions often cannot: a map times a number for each channel,
the mean over a map, a clip that is not right behind a convolution. Each costs a way out of the blocks and
back, which are two more passes over the map. The rules here say the same in operators that can:

- a scale is resized to its map, for which there is a blocked operator, and two equal shapes are multiplied;
- the mean over height and width is a global average pool;
- a clip gets a 1x1 depthwise convolution in front, of the batch norm where there is one, and is fused.

What is computed stays the same, but for the order in which a mean adds up. The conditions are those of
onnxruntime's ``NchwcTransformer``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

PREFIX = "blocked."
"""How the constants that the rules add begin."""

BLOCK = 16
"""Channels in a block with AVX512, and a multiple of those in one on every other processor."""

_UNBLOCKED_INPUTS = 8
"""With fewer input channels than any block has, a dense convolution reads a map as it is."""

_PADDED = 4
"""More input channels of a dense convolution are padded to whole blocks where this divides them."""

_ELEMENTWISE = ("Relu", "Sigmoid", "Tanh", "BatchNormalization")
_POOLS = ("GlobalAveragePool", "AveragePool", "MaxPool")


def keep_blocked(model: ir.Model) -> int:
    """Apply the rules of this file wherever a map is blocked; return how many operators were replaced.

    Args:
        model: with the shapes of its values, and its constants as initializers; changed in place.
    """
    replaced = _Rewriter(model.graph).run()
    if replaced:
        RemoveUnusedNodesPass()(model)
    return replaced


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
            return _is_blocked_convolution(node)
        if op == "Clip":
            maker = given[0].producer()
            fused = maker is not None and maker.op_type == "Conv" and len(given[0].uses()) == 1
            return fused and given[0] in self.blocked
        if op in ("Add", "Sum", "Mul"):
            return self.blocked.issuperset(given) and len({str(value.shape) for value in given}) == 1
        able = op in _ELEMENTWISE or (op in _POOLS and _has_whole_blocks(given[0]))
        return able and given[0] in self.blocked

    def _scaled(self, node: ir.Node) -> ir.Value | None:
        """Give the scale of a blocked map the map's shape, in blocks."""
        pair = self._map_and_scale(node.inputs)
        if pair is None:
            return None
        x, scale, (batch, channels, height, width) = pair
        each = _shape(scale)[1] == channels  # else one number for all of them
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

    def _map_and_scale(self, given: Sequence[ir.Value | None]) -> tuple[ir.Value, ir.Value, list[Any]] | None:
        """Return a blocked map, what it is multiplied by, and its shape; None for other factors.

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
            fits = sizes[1] == 1 or (sizes[1] == wanted[1] and _has_whole_blocks(x))
            if alone and fits and sizes[0] == wanted[0] and sizes[2:] == [1, 1] != wanted[2:]:
                return x, scale, wanted
        return None

    def _mean(self, node: ir.Node) -> ir.Value | None:
        """Pool a blocked map, where its mean over height and width is asked for."""
        x, *axes = node.inputs
        if x is None or x not in self.blocked or not _has_whole_blocks(x):
            return None
        known = axes[0].const_value if axes and axes[0] is not None else None
        over = [] if known is None else known.numpy().tolist()
        if sorted(axis % 4 for axis in over) != [2, 3]:
            return None
        pooled = self._before(node, "GlobalAveragePool", [x])
        pooled.shape = ir.Shape([*_shape(x)[:2], 1, 1])
        self.blocked.add(pooled)
        keeps = node.attributes.get("keepdims")
        return pooled if keeps is None or keeps.as_int() else self._before(node, "Flatten", [pooled])

    def _clipped(self, node: ir.Node) -> ir.Value | None:
        """Convolve before a clip that onnxruntime fuses with no convolution."""
        x, *limits = node.inputs
        if x is None or x not in self.blocked or not _has_whole_blocks(x) or self._stays_blocked(node):
            return None
        if not all(limit is None or limit.const_value is not None for limit in limits):
            return None
        maker, channels, name = x.producer(), _shape(x)[1], node.outputs[0].name
        affine = None if maker is None or len(x.uses()) > 1 else _batch_norm(maker)
        if affine is None:
            made = [self._constant(f"ones_{channels}", np.ones((channels, 1, 1, 1)))]
        else:
            x = maker.inputs[0]  # type: ignore[union-attr]
            made = [
                self._constant(f"{name}.scale", affine[0].reshape(-1, 1, 1, 1)),
                self._constant(f"{name}.bias", affine[1]),
            ]
        convolved = self._before(node, "Conv", [x, *made], group=channels)
        convolved.shape = node.outputs[0].shape
        new = self._before(node, "Clip", [convolved, *limits])
        self.blocked.update((convolved, new))
        return new

    def _before(
        self, node: ir.Node, op: str, inputs: Sequence[ir.Value | None], **attributes: int | str
    ) -> ir.Value:
        """Insert an operator that says to come from where ``node`` does; return its output."""
        made = ir.node(op, inputs, attributes)
        made.metadata_props.update(node.metadata_props)
        made.outputs[0].type = node.outputs[0].type
        self.graph.insert_before(node, made)
        return made.outputs[0]

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Return the float32 initializer of this name, made the first time it is asked for."""
        name = f"{PREFIX}{name}"
        if name not in self.graph.initializers:
            tensor = ir.tensor(array.astype(np.float32), name=name)
            kind, shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
            self.graph.register_initializer(ir.Value(name=name, shape=shape, type=kind, const_value=tensor))
        return self.graph.initializers[name]


def _is_blocked_convolution(node: ir.Node) -> bool:
    """Tell whether onnxruntime computes a convolution on blocks: with constant weights, of whole blocks."""
    constants = [value for value in node.inputs[1:] if value is not None]
    if any(value.const_value is None or value.dtype != ir.DataType.FLOAT for value in constants):
        return False
    outputs, per_group, *kernel = _shape(constants[0])
    if len(kernel) != 2:
        return False
    said = node.attributes.get("group")
    groups = 1 if said is None else said.as_int()
    if groups == 1:
        return per_group < _UNBLOCKED_INPUTS or per_group % _PADDED == 0
    if per_group == 1 and outputs == groups:
        return outputs % BLOCK == 0
    return per_group % BLOCK == 0 and outputs // groups % BLOCK == 0


def _has_whole_blocks(x: ir.Value) -> bool:
    """Tell whether a map has a number of channels that pools and depthwise convolutions can block."""
    shape = _shape(x)
    return len(shape) == 4 and isinstance(shape[1], int) and shape[1] % BLOCK == 0


def _batch_norm(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what a batch norm multiplies by and adds, or None for any other operator."""
    known = [value.const_value for value in node.inputs[1:] if value is not None]
    if node.op_type != "BatchNormalization" or len(node.outputs) != 1 or len(known) != 4:
        return None
    numbers = [tensor.numpy().astype(np.float64) for tensor in known if tensor is not None]
    if len(numbers) != 4:
        return None
    scale, offset, mean, variance = numbers
    said = node.attributes.get("epsilon")
    weight = scale / np.sqrt(variance + (1e-5 if said is None else said.as_float()))
    return weight, offset - mean * weight


def _shape(value: ir.Value) -> list[Any]:
    """Return the shape of a value, of whole numbers and symbols; empty where it is not known."""
    return [] if value.shape is None else list(value.shape)
