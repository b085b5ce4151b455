"""Which part of the network an operator of the graph that a runtime made of an ONNX file belongs to.

torch's exporter says for every node which modules it stands in. Within a dynamic convolution the data says
the rest: what hangs on the layer's input through its pool alone makes kernels, everything else that hangs on
the input applies them. Runtimes then fuse and insert nodes, and keep the names: every node and value is
called ``zooN.``, so that the name of a fused one holds an N that it came from.
"""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import nn

from export.base import BLOCKED_PREFIX
from zoo.layers import DynamicConv2d

CONTEXT, FACTORS, CONVOLUTION = "context", "factors", "convolution"
STATIC_CONVOLUTION, LAYOUT, REST = "static convolution", "layout", "rest"
UNATTRIBUTED, BETWEEN = "unattributed", "between operators"
KINDS = {
    CONTEXT: "the pools that dynamic layers see",
    FACTORS: "from the context to what the convolution is made of",
    CONVOLUTION: "the dynamic layers' own contraction, im2col included",
    STATIC_CONVOLUTION: "with what the runtime fused into it",
    LAYOUT: "reordering for blocked convolutions",
    REST: "normalisation, activation, addition, head",
    UNATTRIBUTED: "operators whose origin is not known",
    BETWEEN: "the call's time outside all operators",
}

_SCOPES = "pkg.torch.onnx.name_scopes"
_POOLS = ("ReduceMean", "GlobalAveragePool")
_REORDERS = ("ReorderInput", "ReorderOutput")
_MARK = re.compile(r"zoo(\d+)\.")
_FAR = 8


@dataclass(frozen=True)
class Origin:
    """Where an operator comes from.

    Attributes:
        layer: name of the module, empty for the network itself.
        kind: a key of :data:`KINDS`.
        op: ONNX operator in the exported graph.
    """

    layer: str
    kind: str
    op: str


class Ran(NamedTuple):
    """A node of the graph that a runtime runs: its name, and those of its inputs and outputs."""

    name: str
    input: tuple[str, ...]
    output: tuple[str, ...]


def mark(graph: Any) -> None:
    """Name every node ``zooN.`` and its values alike, in place; the graph's own inputs and outputs stay."""
    kept = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {}
    for index, node in enumerate(graph.node):
        node.name = f"zoo{index}."
        for place, value in enumerate(node.output):
            if value and value not in kept:
                names[value] = f"zoo{index}.{place}"
    for node in graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]
    for value in graph.value_info:  # onnxruntime fuses what it knows to be of one shape
        value.name = names.get(value.name, value.name)


def origins(graph: Any, model: nn.Module) -> list[Origin]:
    """Return the origin of every node of a graph that torch exported from ``model``."""
    dynamic = {name for name, module in model.named_modules() if isinstance(module, DynamicConv2d)}
    modules = {name for name, _ in model.named_modules()}
    constants = {tensor.name for tensor in graph.initializer}
    layers = [_layer(node, modules, dynamic) for node in graph.node]
    owner = {value: layer for node, layer in zip(graph.node, layers, strict=True) for value in node.output}
    shapes = _shapes(graph, constants)
    sees_input: dict[
        str, bool
    ] = {}  # the values of dynamic layers: do they hang on the input beyond its pool?
    found = []
    for node, layer in zip(graph.node, layers, strict=True):
        if layer is None:
            found.append(Origin("", UNATTRIBUTED, node.op_type))
            continue
        if layer not in dynamic:
            found.append(_static(node, layer, modules))
            continue
        given = [value for value in node.input if value and value not in constants and value not in shapes]
        outside = any(owner.get(value) != layer for value in given)
        direct = outside or any(sees_input.get(value, False) for value in given)
        is_pool = node.op_type in _POOLS and outside
        sees_input.update(dict.fromkeys(node.output, direct and not is_pool))
        # A scale that is brought to the shape of its map is work on the map.
        spread = node.op_type == "Resize" and node.input[2].startswith(BLOCKED_PREFIX)
        kind = CONTEXT if is_pool else CONVOLUTION if direct or spread else FACTORS
        found.append(Origin(layer, kind, node.op_type))
    return found


class Attribution:
    """From operators of the graph that runs to their origins.

    Args:
        graph: as exported, marked.
        known: the origins of its nodes.
        ran: the nodes of the graph that runs.
    """

    def __init__(self, graph: Any, known: list[Origin], ran: Iterable[Ran]):
        self._known = known
        self._makers = {value: index for index, node in enumerate(graph.node) for value in node.output}
        self._inputs = [list(node.input) for node in graph.node]
        self._runs = {node.name: node for node in ran}
        self._users: dict[str, list[Ran]] = {}
        for node in self._runs.values():
            for value in node.input:
                self._users.setdefault(value, []).append(node)

    def origin(self, name: str, op: str) -> Origin:
        """Return the origin of an operator.

        Args:
            name: of its node in the graph that runs.
            op: the type of the ONNX operator that it is most of.
        """
        index = self._index(name)
        if index is None:
            return Origin("", UNATTRIBUTED, op)
        if op in _REORDERS:
            return replace(self._known[self._ancestor(index, "Conv")], kind=LAYOUT, op=op)
        return self._known[self._ancestor(index, op)]

    def _index(self, name: str) -> int | None:
        """Return the exported node that a name speaks of, or else the node's values, or their users.

        The graph's own output has no mark, and a runtime may call the node by it.
        """
        node = self._runs.get(name)
        users = [user for value in node.output for user in self._users.get(value, ())] if node else []
        words = [name, *(node.output if node else ()), *(user.name for user in users)]
        marks = (_MARK.search(word) for word in words)
        marked = next((int(found.group(1)) for found in marks if found), None)
        return self._makers.get(name) if marked is None else marked

    def _ancestor(self, index: int, op: str) -> int:
        """Return the nearest node of type ``op``, the node itself or before it; itself where none is near.

        A convolution that took in an addition or an activation goes by the name of the last of them.
        """
        near = [index]
        for _ in range(_FAR):
            for one in near:
                if self._known[one].op == op:
                    return one
            before = (value for one in near for value in self._inputs[one])
            near = [self._makers[value] for value in before if value in self._makers]
        return index


def _layer(node: Any, modules: Iterable[str], dynamic: Iterable[str]) -> str | None:
    """Return the dynamic layer that a node stands in, else its module, or None where it does not say."""
    said = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES)
    if said is None:
        return None
    scopes = [scope for scope in ast.literal_eval(said) if scope in modules]
    return next((scope for scope in scopes if scope in dynamic), scopes[-1] if scopes else "")


def _static(node: Any, layer: str, modules: Iterable[str]) -> Origin:
    """Return the origin of a node outside dynamic layers.

    A convolution into which a normalisation was folded stands in that one's scope; its weight tells its own.
    One that stands for a normalisation is none of the network's.
    """
    if node.op_type != "Conv" or node.input[1].startswith(BLOCKED_PREFIX):
        return Origin(layer, REST, node.op_type)
    owner = node.input[1].removesuffix(".weight")
    return Origin(owner if owner in modules else layer, STATIC_CONVOLUTION, node.op_type)


def _shapes(graph: Any, constants: Iterable[str]) -> set[str]:
    """Return the values that depend on nothing but shapes."""
    found: set[str] = set()
    for node in graph.node:
        given = [value for value in node.input if value and value not in constants]
        if node.op_type == "Shape" or (given and all(value in found for value in given)):
            found.update(node.output)
    return found
