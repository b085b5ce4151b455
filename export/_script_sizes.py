"""Sizes in TorchScript graphs as the whole numbers they are.

A trace computes with sizes as tensors of one number each. That is slow, and slower on CUDA: constants go
to the device with the rest of a module, so that every size waits for it, and no CUDA graph can be recorded.
"""

from typing import Any

import torch

_ARITHMETIC = {
    "aten::add": "aten::add",
    "aten::sub": "aten::sub",
    "aten::mul": "aten::mul",
    "aten::floor_divide": "aten::floordiv",
}
"""Operations on tensors, and those on whole numbers that do the same."""

_SCALED = ("aten::add", "aten::sub")
"""Those that multiply their second argument by a third."""

_LAST = 2**63 - 1
"""What a trace has for the end of a slice that goes to the end."""


def simplify(graph: Any) -> None:
    """Compute sizes with whole numbers, and leave out slices that take everything.

    Args:
        graph: a ``torch._C.Graph`` in which no view of a whole tensor changes its shape in place; changed in
            place itself. What is not understood stays as it is, and so do nodes in blocks.
    """
    sizes: dict[str, Any] = {}  # tensors of one number, by their names in the graph, and their numbers
    for node in list(graph.nodes()):
        kind, inputs = node.kind(), list(node.inputs())
        if kind == "prim::NumToTensor" and inputs[0].type().kind() == "IntType":
            sizes[node.output().debugName()] = inputs[0]
        elif kind == "prim::Constant" and (number := _whole_number(node)) is not None:
            sizes[node.output().debugName()] = _constant(graph, node, number)
        elif kind in _ARITHMETIC and all(value.debugName() in sizes for value in inputs[:2]):
            if kind not in _SCALED or inputs[2].toIValue() == 1:
                numbers = [sizes[value.debugName()] for value in inputs[:2]]
                sizes[node.output().debugName()] = _insert(graph, node, _ARITHMETIC[kind], numbers)
        elif kind == "aten::Int" and inputs[0].debugName() in sizes:
            node.output().replaceAllUsesWith(sizes[inputs[0].debugName()])
        elif kind == "aten::slice" and [value.toIValue() for value in inputs[2:]] == [0, _LAST, 1]:
            node.output().replaceAllUsesWith(inputs[0])
    torch._C._jit_pass_dce(graph)
    torch._C._jit_pass_constant_propagation(graph)
    torch._C._jit_pass_cse(graph)
    graph.lint()


def _whole_number(node: Any) -> int | None:
    """Return the number that a constant holds as a tensor of one, None of any other constant."""
    value = node.output().toIValue()
    if isinstance(value, torch.Tensor):
        return int(value) if value.ndim == 0 and value.dtype == torch.int64 else None
    # Until it is saved for the first time, such a tensor is a plain number that goes for one.
    plain = isinstance(value, int) and node.output().type().kind() == "TensorType"
    return value if plain else None


def _constant(graph: Any, before: Any, number: int) -> Any:
    node = graph.create("prim::Constant")
    node.i_("value", number)
    return _placed(node, before)


def _insert(graph: Any, before: Any, kind: str, numbers: list[Any]) -> Any:
    return _placed(graph.create(kind, numbers, 1), before)


def _placed(node: Any, before: Any) -> Any:
    """Put a node that makes a whole number before another; return the number."""
    node.output().setType(torch._C.IntType.get())
    node.insertBefore(before)
    return node.output()
