"""Where the convolutions of a network stand: what each of them sees, and at which resolution."""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from zoo.errors import ZooError
from zoo.layers import DynamicConv2d

Size = tuple[int, int]
_Image = tuple[int, int, int]
Conv = nn.Conv2d | DynamicConv2d
Role = Literal["stem", "pooled", "dense", "body", "idle"]

#: Maps of fewer pixels a side say too little: rounding decides their size, and strides alone lead to 1x1.
_ROOM = 4
#: The network is then looked at with an image this many times as large.
_LARGER = 8


@dataclass(frozen=True)
class Site:
    """One convolution of a network.

    Attributes:
        names: every name the module has in the network, most often one.
        module: the convolution.
        input_size, output_size: (height, width) of its maps when it first runs; None when it does not run.
        role: ``"stem"`` sees the image itself, ``"pooled"`` a map pooled to 1x1 (a gate such as
            squeeze-and-excitation's, or a head), ``"dense"`` is a linear layer in disguise (its kernel covers
            its whole map, or it follows one that does), ``"idle"`` does not run; the others are ``"body"``.
        stage: of a ``"body"``, counted from 0 by the resolution of its output, see :func:`find_sites`.
        obstacle: what forbids to replace the module by one of another kind, or ``""``.
    """

    names: tuple[str, ...]
    module: Conv
    input_size: Size | None
    output_size: Size | None
    role: Role
    stage: int | None
    obstacle: str

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]


class _Visit(NamedTuple):
    """One run of a convolution."""

    module: Conv
    sees_image: bool
    input_size: Size
    output_size: Size


def find_sites(model: nn.Module, input_size: tuple[int, int, int] | None = None) -> list[Site]:
    """Run a network once without computing anything, and say where its convolutions stand.

    **Stages** follow one rule for all networks: convolutions whose outputs are reduced alike, to the nearest
    power of two of the image, are one stage, and stages count from 0 at the least reduction. Stems, pooled
    and dense convolutions are in no stage.

    Args:
        model: any network that maps images (N, C, H, W); it is left as it is, its mode and buffers too.
        input_size: (channels, height, width) to run it at; None takes that of its ``pretrained_cfg``, else
            (3, 224, 224), with the channels of its first convolution where these do not fit.

    Returns:
        Its convolutions (``nn.Conv2d``, subclasses of it, and dynamic ones) in order of execution; those that
        do not run come last.

    Raises:
        ZooError: it cannot be run at this size.
    """
    names: dict[Conv, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Conv):
            names.setdefault(module, []).append(name)
    if not names:
        return []
    visits, size = _run(model, input_size, next(iter(names)).in_channels)
    first = _first(visits)
    clear, clear_size = _clearer(model, visits, size)
    pooled = {conv for conv in first if all(v.input_size == (1, 1) for v in clear if v.module is conv)}
    dense = _dense(visits)

    def role(conv: Conv) -> Role:
        if conv not in first:
            return "idle"
        if any(visit.sees_image for visit in visits if visit.module is conv):
            return "stem"
        return "dense" if conv in dense else "pooled" if conv in pooled else "body"

    roles = {conv: role(conv) for conv in (*first, *(conv for conv in names if conv not in first))}
    seen = _first(clear)
    reductions = {conv: _reduction(clear_size, seen[conv]) for conv, name in roles.items() if name == "body"}
    stages = sorted(set(reductions.values()))
    owners = Counter(id(tensor) for module in model.modules() for tensor in module._parameters.values())
    return [
        Site(
            tuple(names[conv]),
            conv,
            first[conv].input_size if conv in first else None,
            first[conv].output_size if conv in first else None,
            name,
            stages.index(reductions[conv]) if conv in reductions else None,
            "it is the model itself" if conv is model else _obstacle(conv, owners),
        )
        for conv, name in roles.items()
    ]


def _run(
    model: nn.Module, input_size: tuple[int, int, int] | None, channels: int
) -> tuple[list[_Visit], _Image]:
    """Return the runs of the convolutions and the size of the image that they happened at."""
    config = getattr(model, "pretrained_cfg", None) or {}
    usual: Any = input_size or config.get("input_size") or (3, 224, 224)
    sized = isinstance(usual, Sequence) and len(usual) == 3
    if not sized or not all(isinstance(number, int) and number > 0 for number in usual):
        raise ZooError(f"input_size must be (channels, height, width) in pixels, not {usual!r}.")
    sizes = dict.fromkeys([tuple(usual)] if input_size else [tuple(usual), (channels, *usual[1:])])
    reason: Exception | None = None
    for on_meta, size in product((True, False), sizes):
        try:
            return _look(model, size, on_meta), size
        except Exception as error:  # whatever a stranger's forward raises
            reason = error
    said = str(reason).strip().partition("\n")[0]
    raise ZooError(
        f"cannot see the convolutions of {type(model).__name__} at work: it does not take one image of "
        f"{'x'.join(map(str, usual))} ({type(reason).__name__}: {said}); give input_size=(channels, height, "
        "width), or the part of the model that takes images."
    ) from reason


class Shortcut(TorchFunctionMode):
    """Pass over functions that keep the shape and take most of the time of a run without data."""

    passed_over = frozenset((F.batch_norm, F.layer_norm, F.hardswish, F.hardsigmoid))

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return args[0] if args and func in self.passed_over else func(*args, **(kwargs or {}))


@torch.no_grad()
def _look(model: nn.Module, size: tuple[int, ...], on_meta: bool) -> list[_Visit]:
    """Run a model on one image with copies of its state: shapes alone, or zeros on its own device."""
    parameter = next(model.parameters())
    image = torch.zeros(1, *size, dtype=parameter.dtype, device="meta" if on_meta else parameter.device)
    if on_meta:
        tensors = (*_own(model, "named_parameters"), *_own(model, "named_buffers"))
        state = {name: torch.empty_like(value, device="meta") for name, value in tensors}
    else:
        state = {name: value.clone() for name, value in _own(model, "named_buffers")}
    visits: list[_Visit] = []
    images = [image]

    def visit(module: Any, args: tuple, kwargs: dict, output: Tensor) -> None:
        seen = args[0] if args else next(iter(kwargs.values()))
        if not visits:  # no convolution has touched what the first one sees, but a normalisation may have
            images.append(seen)
        sees_image = any(seen is tensor for tensor in images)
        visits.append(_Visit(module, sees_image, (*seen.shape[-2:],), (*output.shape[-2:],)))

    with contextlib.ExitStack() as stack:
        stack.enter_context(_evaluating(model))
        for conv in (module for module in model.modules() if isinstance(module, Conv)):
            stack.enter_context(conv.register_forward_hook(visit, with_kwargs=True))
        if on_meta:
            stack.enter_context(Shortcut())
        # Ties are resolved above: functional_call does not put back what a module of two names had.
        torch.func.functional_call(model, state, (image,), tie_weights=False)
    return visits


def _own(model: nn.Module, kind: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of every module once under one name of the module, shared tensors once a module."""
    for name, module in model.named_modules():
        yield from getattr(module, kind)(name, recurse=False, remove_duplicate=False)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, then each back into its own."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _first(visits: list[_Visit]) -> dict[Conv, _Visit]:
    """Return the first run of every convolution, in order of execution."""
    first: dict[Conv, _Visit] = {}
    for visit in visits:
        first.setdefault(visit.module, visit)
    return first


def _clearer(model: nn.Module, visits: list[_Visit], size: _Image) -> tuple[list[_Visit], _Image]:
    """Return the runs at a larger image where maps are too small to tell one thing from another."""
    smallest = min((min(visit.output_size) for visit in visits if visit.output_size != (1, 1)), default=1)
    if smallest < _ROOM:
        larger = (size[0], _LARGER * size[1], _LARGER * size[2])
        with contextlib.suppress(Exception):  # a network of one size is judged by what there is
            again = _look(model, larger, on_meta=True)
            if _first(again).keys() == _first(visits).keys():
                return again, larger
    return visits, size


def _dense(visits: list[_Visit]) -> set[Conv]:
    """Return the convolutions that are linear layers in disguise, as in LeNet-5 and timm's VGG."""
    dense: set[Conv] = set()
    previous = None
    for conv, _, seen, made in visits:
        covers = seen == conv.kernel_size != (1, 1) and made == conv.stride == (1, 1)
        if covers or (seen == (1, 1) and previous in dense):
            dense.add(conv)
        previous = conv
    return dense


def _reduction(image: _Image, visit: _Visit) -> int:
    """Return how often the image was halved, to the nearest whole."""
    return round(math.log2(image[1] * image[2] / math.prod(visit.output_size)) / 2)


def _obstacle(conv: Conv, owners: Counter[int]) -> str:
    if isinstance(conv, DynamicConv2d):
        return "already dynamic"
    if type(conv) is not nn.Conv2d:
        return f"{type(conv).__name__}, a subclass of nn.Conv2d"
    if not isinstance(conv._parameters.get("weight"), nn.Parameter):
        return "its weight is computed (weight norm, pruning)"
    if any(owners[id(tensor)] > 1 for tensor in conv.parameters()):
        return "another module has the same weight"
    return "" if conv.padding_mode == "zeros" else f"padding mode {conv.padding_mode!r}"
