"""What the rules that rewrite an ONNX graph share: putting operators and constants into it."""

import numpy as np
import onnx_ir as ir


def insert_before(node: ir.Node, made: ir.Node) -> ir.Value:
    """Insert an operator of the type of ``node`` that says to come from where it does; return its output."""
    made.metadata_props.update(node.metadata_props)
    made.outputs[0].type = node.outputs[0].type
    assert node.graph is not None
    node.graph.insert_before(node, made)
    return made.outputs[0]


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Return the float32 initializer of this name, made the first time it is asked for."""
    if name not in graph.initializers:
        tensor = ir.tensor(array.astype(np.float32), name=name)
        kind, shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
        graph.register_initializer(ir.Value(name=name, shape=shape, type=kind, const_value=tensor))
    return graph.initializers[name]
