"""int8: an ONNX file rewritten to compute what is static in it in small integers.

onnxruntime's quantizer does the work, in ONNX's QDQ form: weights get a scale for each output channel, what
flows between layers one for each tensor, from the range it has on images. What flows has eight bits. Weights
are stored in eight, but use seven, from -64 to 64: processors without VNNI add two products of eight bits in
sixteen, which would saturate, and a file is for whatever processor it meets. That costs some accuracy, which
the certificate measures. Only convolutions with constant
weights and the classifier are rewritten, and the sums and products of what they compute. What makes kernels
(context, gates, softmax) and the products with kernels made for an image stay in fp32: those would have to be
quantized anew in every call. So int8 pays for the families whose lowerings are static convolutions, and
:data:`SHARE` in a file's metadata says how much of its work that is.
"""

import contextlib
import logging
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from export import _onnxruntime
from zoo.errors import ZooError

SHARE = "int8_share"
"""The metadata's name for what runs in int8 of the multiplies of all convolutions and matrix products."""

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_CHUNK = 16
_BETWEEN = ("Add", "Mul")
_KEEPS_MAPS = (*_BETWEEN, "Relu", "Clip", "HardSwish", "HardSigmoid", "MaxPool", "Split", "Slice", "Concat")


def quantize(path: Path, name: str, images: np.ndarray, batch: int | None = None) -> int:
    """Rewrite an ONNX file in int8, in place, and note :data:`SHARE` in its metadata.

    Args:
        path: of the file.
        name: of its input.
        images: to see the ranges on, as the file takes them.
        batch: the one batch size of the file, or None for any.

    Returns:
        How many nodes compute in int8.

    Raises:
        ZooError: none would: the file has no convolution with constant weights, and does not end in a linear
            layer. It is left as it was.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(path)
    nodes = quantizable(model)
    if not nodes:
        raise ZooError(
            "nothing in the file can run in int8: it has no convolution with constant weights and ends in no "
            "linear layer; export it in fp32."
        )
    some = np.resize(np.arange(len(images)), batch or 1)  # a fixed batch may be larger than there are images
    multiplies = _multiplies(model, name, images[some])
    with tempfile.TemporaryDirectory() as folder, _quiet():
        named, inferred = Path(folder, "named.onnx"), Path(folder, "inferred.onnx")
        onnx.save(model, named)
        quant_pre_process(named, inferred, skip_symbolic_shape=True, skip_optimization=True)
        quantize_static(
            inferred,
            path,
            _Images(name, images, batch or _CHUNK),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # seven bits of weight; the module says why
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=nodes,
        )
    rewritten = onnx.load(path)
    whole = sum(multiplies.values())
    share = sum(multiplies[node] for node in _in_int8(rewritten)) / whole
    known = {entry.key: entry.value for entry in rewritten.metadata_props}
    onnx.helper.set_model_props(rewritten, {**known, SHARE: f"{share:.4f}"})
    onnx.checker.check_model(rewritten, full_check=True)
    onnx.save(rewritten, path)
    return len(nodes)


def quantizable(model: Any) -> list[str]:
    """Return the names of the nodes to rewrite; nodes of an ONNX ``model`` without a name get one.

    They are convolutions with constant weights, what is added to or multiplied with their outputs, and the
    linear layer that the model ends with: others are parts of what makes kernels.
    """
    ends = {output.name for output in model.graph.output}
    constants = {constant.name for constant in model.graph.initializer}
    maps: set[str] = set()
    found: list[str] = []
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
        layer = node.op_type == "Conv" or (node.op_type == "Gemm" and ends.intersection(node.output))
        weighted = layer and node.input[1] in constants
        if weighted or (node.op_type in _KEEPS_MAPS and maps.intersection(node.input)):
            maps.update(node.output)
            if weighted or node.op_type in _BETWEEN:
                found.append(node.name)
    return found


def _multiplies(model: Any, name: str, images: np.ndarray) -> dict[str, int]:
    """Return the multiplies of every convolution and matrix product by the name of its node.

    Args:
        model: an ONNX model whose nodes have names; left as it is.
        name: of its input.
        images: a batch of as few as it takes. Their run shows the shapes, whatever they are made from.
    """
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    products = [node for node in graph.node if node.op_type in _PRODUCTS]
    shapes = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    shapes[name] = images.shape
    ends = {output.name for output in graph.output}
    needed = {each for node in products for each in (*node.input[:2], node.output[0])} - shapes.keys()
    graph.output.extend(onnx.ValueInfoProto(name=each) for each in sorted(needed - ends))
    names = sorted(needed)
    values = _onnxruntime.session(watched.SerializeToString()).run(names, {name: images})
    shapes |= {each: value.shape for each, value in zip(names, values, strict=True)}
    found: dict[str, int] = {}
    for node in products:
        left, right = (shapes[each] for each in node.input[:2])
        found[node.name] = math.prod(shapes[node.output[0]]) * _terms(node, left, right)
    return found


def _terms(node: Any, left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Return how many products each output of a node is the sum of."""
    if node.op_type == "Conv":
        return math.prod(right[1:])
    transposed = any(each.name == "transA" and each.i for each in node.attribute)
    return left[-2] if transposed else left[-1]


def _in_int8(model: Any) -> list[str]:
    """Return the names of the convolutions and matrix products whose two factors are int8, in QDQ form."""
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    products = [node for node in model.graph.node if node.op_type in _PRODUCTS]
    return [node.name for node in products if made.issuperset(node.input[:2])]


class _Images:
    """Images in batches, as onnxruntime's calibration reads them."""

    def __init__(self, name: str, images: np.ndarray, size: int):
        # Whole batches: a file with a fixed batch takes no other, and the ranges are the same.
        rows = np.resize(np.arange(len(images)), -(-len(images) // size) * size)
        self._batches: Iterator[np.ndarray] = iter(images[rows].reshape(-1, size, *images.shape[1:]))
        self._name = name

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch by the input's name, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hush what the quantizer logs of its progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
