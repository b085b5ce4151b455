"""What a lowering is likely to cost on a runtime: its work counted on no device, and priced.

The price is linear: so many seconds for each unit of each kind of work in :data:`WORK`. The seconds are
fitted to measurements by ``python -m export.rates`` and lie in ``export/rates.json``. A price need not be
right to serve: it is only compared with the prices of the other lowerings of the same layer.
"""

import copy
import functools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from export.base import ExportOptions
from export.places import Place, batches, candidates
from zoo.layers import set_lowering

WORK = {
    "operations": "operations, however small",
    "convolution": "multiplies of a convolution with a static weight",
    "depthwise": "multiplies of a depthwise convolution with a static weight",
    "made": "multiplies of a convolution with a weight made for the sample",
    "product": "multiplies of a matrix product",
    "moved": "bytes that a convolution or a copy reads and writes",
    "passed": "bytes that an elementwise operation or a matrix product reads and writes",
    "constants": "bytes of constants that any operation reads",
    "special": "numbers through exp, sigmoid, softmax or tanh",
}
"""Kinds of work and their units."""

MULTIPLIES = ("convolution", "depthwise", "made", "product")
"""The kinds of work that are multiplies."""

RATES = Path(__file__).with_name("rates.json")

_FREE = {
    "flatten",
    "unflatten",
    "unsqueeze",
    "squeeze",
    "view",
    "reshape",
    "expand",
    "dim",
    "__get__",
    "size",
}
_COPIES = {
    "cat",
    "pad",
    "transpose",
    "permute",
    "t",
    "__getitem__",
    "index_select",
    "repeat",
    "repeat_interleave",
    "chunk",
}
_PRODUCTS = {"matmul", "__matmul__", "bmm", "linear"}
_SPECIAL = {"exp", "sigmoid", "softmax", "tanh"}
_CONSTANT = {"new_ones"}  # what takes the kind of a tensor, but not its numbers

Work = Mapping[str, float]
"""Amount by kind."""


def rates(runtime: str) -> Work | None:
    """Return the seconds that a unit of each kind of work takes on a runtime; None: nobody measured it."""
    return _all_rates().get(runtime)


def price(work: Work, seconds: Work) -> float:
    """Return the seconds that ``work`` takes at so many ``seconds`` a unit."""
    return sum(amount * seconds[kind] for kind, amount in work.items())


def cheapest(place: Place, options: ExportOptions, seconds: Work) -> str:
    """Return the lowering of a layer with the lowest price, by the geometric mean over the batch sizes.

    Only lowerings that are right at every batch size are compared, also for an artifact with a fixed one.
    What a convolution with as many groups as the batch has images takes depends on how the layers around it
    lie in memory, which a price does not know.

    Args:
        place: the layer in its place.
        options: the batch sizes to be fast at.
        seconds: as :func:`rates` returns them.
    """
    placed = place.in_place(place.layer)  # as it is measured
    prices = {
        name: math.prod(
            price(count(placed, name, (batch, *place.outer_size)), seconds) for batch in batches(options)
        )
        for name in candidates(place.layer, batch=None)
    }
    return min(prices, key=lambda name: prices[name])


@torch.no_grad()
def count(layer: nn.Module, name: str, shape: tuple[int, ...]) -> Work:
    """Count the work of one call of a layer, what an exporter folds to constants left out.

    Args:
        layer: settled, as it is exported, or what it stands in; it is left as it is.
        name: of its lowering.
        shape: of the input, (N, I, H, W).
    """
    layer = copy.deepcopy(layer).to("meta").eval()
    set_lowering(layer, name)
    x = torch.empty(shape, device="meta")
    with _Ledger(x) as ledger:
        layer(x)
    return ledger.work


class _Ledger(TorchFunctionMode):
    """Notes the work of all that depends on ``x``."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.work: Counter[str] = Counter()
        self._known = {id(x): x}  # held, so that no other tensor gets the same id

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = list(_tensors((args, kwargs or {})))
        made = list(_tensors(result))
        depends = func.__name__ not in _CONSTANT and any(id(each) in self._known for each in given)
        if made and depends:
            self._known.update((id(each), each) for each in made)
            self._note(func.__name__, given, made)
        return result

    def _note(self, name: str, given: list[Tensor], results: list[Tensor]) -> None:
        if name in _FREE:
            return
        result = results[0]  # what cuts a tensor into several copies all of them
        self.work["operations"] += 1
        # A constant is read from memory at every call, what was just computed often from a cache.
        made = [each for each in given if id(each) in self._known]
        self.work["constants"] += _bytes(each for each in given if id(each) not in self._known)
        if name == "conv2d":
            weight = given[1]
            static = id(weight) not in self._known
            kind = ("depthwise" if weight.shape[1] == 1 else "convolution") if static else "made"
            self.work[kind] += result.numel() * weight[0].numel()
            self.work["moved"] += _bytes([*made, result])
        elif name in _PRODUCTS:
            self.work["product"] += result.numel() * given[0].shape[-1]
            self.work["passed"] += _bytes([*made, result])
        elif name in _COPIES:
            self.work["moved"] += 2 * _bytes(results)
        else:
            self.work["special"] += result.numel() if name in _SPECIAL else 0
            self.work["passed"] += _bytes([*made, result])


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@functools.cache
def _all_rates() -> dict[str, Work]:
    if not RATES.exists():
        return {}
    return {name: entry["seconds"] for name, entry in json.loads(RATES.read_text("utf-8")).items()}
