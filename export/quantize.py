"""Eight-bit integers: an ONNX file rewritten to compute what is static in it in int8.

onnxruntime's quantizer does the work, in ONNX's QDQ form: weights get a scale for each output channel, what
flows between layers one for each tensor, from the range it has on images. Only convolutions with constant
weights and the classifier are rewritten, and the sums and products of what they compute. What makes kernels
(context, gates, softmax) and the products with kernels made for an image stay in fp32: those would have to be
quantized anew in every call. So int8 pays for the families whose lowerings are static convolutions.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK = 16
_BETWEEN = ("Add", "Mul")
_KEEPS_MAPS = (*_BETWEEN, "Relu", "Clip", "HardSwish", "HardSigmoid", "MaxPool", "Split", "Slice", "Concat")


def quantize(path: Path, name: str, images: np.ndarray, batch: int | None = None) -> int:
    """Rewrite an ONNX file in int8, in place.

    Args:
        path: of the file.
        name: of its input.
        images: to see the ranges on, (N, C, H, W), float32, normalised as the model wants them.
        batch: the one batch size of the file, or None for any.

    Returns:
        How many nodes compute in int8.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(path)
    nodes = quantizable(model)
    if not nodes:
        return 0
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
            # Seven bits of weight: processors without VNNI add two products in sixteen bits, which would
            # saturate.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=nodes,
        )
    onnx.checker.check_model(onnx.load(path), full_check=True)
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
