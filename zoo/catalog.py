"""The table of models: what each costs and what its weights reach (``python -m zoo``)."""

import contextlib
import csv
import fnmatch
import functools
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from zoo.errors import ZooError, nearest
from zoo.layers import fold
from zoo.models import BACKBONES, create_model, list_models
from zoo.models.sites import Shortcut
from zoo.pretrained import TAG, read_manifest


@dataclass(frozen=True)
class Complexity:
    """What a network costs.

    Attributes:
        params: numbers it learns.
        macs: multiply-accumulates for one image.
    """

    params: int
    macs: int


def complexity(model: nn.Module, input_size: Sequence[int]) -> Complexity:
    """Count the parameters of a network and its multiplies for one image, with its layers' own lowerings.

    torch's ``FlopCounterMode`` counts convolutions, matrix products and attention, the positions of the
    padding included. What works element by element is not counted: normalisations, activations, pooling,
    softmax, the gating of static kernels, the copies of im2col. Dynamic layers do more of that than static
    ones, so they take a larger share of the time than of the multiplies.

    Args:
        model: any module that takes (N, C, H, W); in eval mode meanwhile. On the meta device nothing is
            computed.
        input_size: C, H, W.
    """
    like = next(model.parameters(), torch.empty(0))
    image = torch.empty(1, *input_size, device=like.device, dtype=like.dtype)
    was_training = model.training
    model.eval()
    try:
        without_data = Shortcut() if image.is_meta else contextlib.nullcontext()
        with torch.no_grad(), without_data, FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        model.train(was_training)
    return Complexity(
        params=_params(model),
        macs=counter.get_total_flops() // 2,  # a multiply and an addition
    )


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        model: its name.
        family: what follows the backbone in its name: what makes its kernels, or its attention module.
        params: numbers it learns.
        macs: multiply-accumulates for one image of its input size, as deployed: lowering ``auto``, folded.
        weights: bytes of its trained weights, None without.
        top1, top1_augmented: percent of the clean and of the augmented test images; None if not measured.
    """

    model: str
    family: str
    params: int
    macs: int
    weights: int | None
    top1: float | None
    top1_augmented: float | None


COLUMNS = tuple(field.name for field in fields(Row))
#: Columns whose best value is their largest.
BEST_FIRST = ("top1", "top1_augmented")


def names(patterns: Sequence[str] = (), *, pretrained: bool = False) -> list[str]:
    """Return the models that match any of the shell patterns, in the order of the zoo; all without one.

    Args:
        patterns: such as ``resnet18_kw`` or ``*_dpk``, as for ``timm.list_models``.
        pretrained: only those with trained weights.

    Raises:
        ZooError: a pattern matches nothing; the nearest names or patterns are suggested.
    """
    manifest = read_manifest()
    known = [name for name in list_models() if name in manifest or not pretrained]
    found: set[str] = set()
    for pattern in patterns:
        matches = fnmatch.filter(known, pattern.removesuffix(f".{TAG}"))
        if not matches:
            what = "model with trained weights" if pretrained else "model"
            hint = nearest(pattern, _alternatives(pattern, known)) or " See them all with python -m zoo."
            raise ZooError(f"no {what} matches {pattern!r}.{hint}")
        found.update(matches)
    return [name for name in known if name in found or not patterns]


def rows(
    patterns: Sequence[str] = (),
    *,
    pretrained: bool = False,
    watch: Callable[[list[str]], Iterable[str]] = iter,
) -> list[Row]:
    """Describe the models that :func:`names` returns, built on the meta device: without memory or weights.

    Args:
        patterns, pretrained: as for :func:`names`.
        watch: passes the names through, such as to show a progress bar.

    Raises:
        ZooError: see :func:`names`.
    """
    manifest = read_manifest()
    return [_row(name, manifest.get(name, {})) for name in watch(names(patterns, pretrained=pretrained))]


def sort(table: Iterable[Row], column: str) -> list[Row]:
    """Sort by one of ``COLUMNS``: accuracies best first, all else ascending, what is missing last."""

    def key(row: Row) -> tuple[bool, Any]:
        value = getattr(row, column)
        if value is None:
            return True, 0
        return False, -value if column in BEST_FIRST else value

    return sorted(table, key=key)


def to_text(table: Sequence[Row]) -> str:
    """Lay the rows out for a terminal, one model a line, numbers aligned to the right."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    lines = [("model", "family", "params", "MACs", "weights", "clean %", "augmented %")]
    for row in table:
        lines.append(
            (
                row.model,
                row.family,
                f"{row.params / 1e6:.2f} M",
                f"{row.macs / 1e6:.1f} M",
                "-" if row.weights is None else f"{row.weights / 1e6:.1f} MB",
                percent(row.top1),
                percent(row.top1_augmented),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    align = (str.ljust, str.ljust, *[str.rjust] * 5)
    return "\n".join("  ".join(map(lambda put, *cell: put(*cell), align, line, widths)) for line in lines)


def to_json(table: Sequence[Row]) -> str:
    """Return the rows as a JSON list of objects with the keys ``COLUMNS``."""
    return json.dumps([asdict(row) for row in table], indent=2)


def to_csv(table: Sequence[Row]) -> str:
    """Return the rows as CSV with a header of ``COLUMNS``; what is missing is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in table)
    return stream.getvalue().rstrip("\n")


def split_name(name: str) -> tuple[str, str]:
    """Split a model's name into backbone and family; the latter is one word if the zoo lacks the backbone."""
    last = name.rpartition("_")[0]
    backbone = next((backbone for backbone in BACKBONES if name.startswith(f"{backbone}_")), last)
    return backbone, name.removeprefix(f"{backbone}_")


def _row(name: str, entry: dict[str, Any]) -> Row:
    params, macs = _cost(name)
    figures = entry.get("figures", {})
    return Row(
        model=name,
        family=split_name(name)[1],
        params=params,
        macs=macs,
        weights=entry.get("bytes"),
        top1=figures.get("top1"),
        top1_augmented=figures.get("top1_augmented"),
    )


@functools.cache
def _cost(name: str) -> tuple[int, int]:
    """Return the parameters of a model, and the multiplies of the deployed one for an image."""
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    with torch.device("meta"):
        model = create_model(name)
    return _params(model), complexity(fold(model), config.input_size).macs


def _params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _alternatives(pattern: str, known: Sequence[str]) -> list[str]:
    """Return what a pattern without a match can have meant: a name, or for wildcards a shorter pattern."""
    if set(pattern).isdisjoint("*?["):
        return list(known)
    parts = [split_name(name) for name in known]
    shorter = [f"{backbone}_*" for backbone, _ in parts] + [f"*_{family}" for _, family in parts]
    return list(dict.fromkeys(shorter))
