"""Turning any convolutional network into its dynamic version, in place."""

import functools
import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from torch import nn

from zoo.errors import ZooError
from zoo.layers import DynamicConv2d, FCGeneratedConv2d
from zoo.layers import family as find_family
from zoo.models.convert import Where, choose, dynamic_like, replace
from zoo.models.sites import find_sites

_LOG = logging.getLogger("zoo")
#: Methods by which timm's blocks fold their branches and norms into one convolution for deployment.
_FOLDS = ("fuse", "reparameterize", "switch_to_deploy")
#: A relative error of kernels that says no more than that numbers are rounded.
_ROUNDING = 1e-5
#: How many names a line of the report shows.
_SHOWN = 6

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Dynamized:
    """What :func:`dynamize` did to a model; ``str()`` of it is for people.

    Attributes:
        model: the name of the model's class.
        family: the suffix of the family.
        replaced: by the name of each convolution that is dynamic now, the relative error of the kernels it
            starts with (0: exactly the static ones), or None where it starts at random.
        kept: by the name of each that is not, the reason.
        parameters: of the whole model, before and after.
    """

    model: str
    family: str
    replaced: Mapping[str, float | None]
    kept: Mapping[str, str]
    parameters: tuple[int, int]

    @property
    def largest_error(self) -> float | None:
        """The largest of the errors, None where no convolution was warm started."""
        return max((error for error in self.replaced.values() if error is not None), default=None)

    def __str__(self) -> str:
        error = self.largest_error
        if error is None:
            start = "random kernels"
        else:
            start = f"kernels off by up to {error:.1%}" if error > _ROUNDING else "outputs unchanged"
        before, after = (f"{count / 1e6:.2f} M" for count in self.parameters)
        count = f"{len(self.replaced)} of {len(self.replaced) + len(self.kept)} convolutions"
        lines = [f"{self.model}: {count} are now {self.family}, {before} -> {after} parameters, {start}"]
        for reason, names in _by_reason(self.kept).items():
            more = ", ..." if len(names) > _SHOWN else ""
            lines.append(f"kept {len(names)} {reason}: {', '.join(names[:_SHOWN])}{more}")
        return "\n".join(lines)


def dynamize(
    model: Model,
    family: str,
    stages: Sequence[int] | None = None,
    where: Where = "spatial",
    warm_start: bool = True,
    input_size: tuple[int, int, int] | None = None,
    **layer_args: Any,
) -> Model:
    """Make the convolutions of any network dynamic, in place.

    ``dynamize(timm.create_model("resnet50", pretrained=True), "kw")`` gives the same outputs and goes on
    training from there. Names, dtype, device, training mode, hooks and frozen parameters stay. Convolutions
    of a subclass of ``nn.Conv2d``, such as timm's ``StdConv2d``, are kept. Blocks that can fold their
    branches into one convolution (RepVGG) must do so before.

    Args:
        model: any network that maps images (N, C, H, W), from timm, torchvision or elsewhere.
        family: a suffix in ``FAMILIES``, such as ``"kw"``.
        stages: which stages become dynamic; None takes all. They are counted by resolution from 0:
            convolutions whose outputs are reduced alike are one stage.
        where: ``"spatial"`` takes kernels larger than 1x1, ``"all"`` those too; neither touches the stem,
            which sees the image itself, nor gates and heads that see a pooled map, nor linear layers in
            disguise. A function of a convolution's name and module that returns whether to take it may pick
            these too.
        warm_start: start from the static kernels, so that the outputs stay where the family can hold any
            kernel. An approximation is logged as a warning.
        input_size: (channels, height, width) of an image; None takes the model's ``pretrained_cfg``, else
            (3, 224, 224). It only serves to find the stages.
        **layer_args: the family's own arguments, such as ``embedding_dim``.

    Returns:
        The model, with a :class:`Dynamized` as its ``dynamized``.

    Raises:
        ZooError: an unknown family, word, stage or argument; a model that does not take such an image, that
            has nothing to replace, or that reads the weights of its convolutions; a warm start of a family
            that cannot hold static kernels. The model is left as it was.
    """
    if not isinstance(model, nn.Module):
        raise ZooError(f"dynamize takes a model, not {model!r}; create it first, as with timm.create_model.")
    layer = find_family(family)
    if warm_start and layer.holds_static is None:
        raise ZooError(f"{family} cannot hold static kernels; pass warm_start=False to start at random.")
    chosen, kept = choose(find_sites(model, input_size), stages, where)
    if not chosen:
        raise ZooError(_nothing_to_replace(model, kept, stages, where))
    made = {conv: dynamic_like(conv, layer, **layer_args) for conv in chosen}
    errors = {conv: _start(fresh, conv) if warm_start else None for conv, fresh in made.items()}
    before = _count_parameters(model)
    replace(model, made)
    try:
        find_sites(model, input_size)
    except ZooError as error:
        replace(model, {fresh: conv for conv, fresh in made.items()})
        raise ZooError(
            f"{type(model).__name__} does not run with dynamic convolutions ({error.__cause__}), perhaps "
            "because it reads the weight of one; leave that one out with a function as where."
        ) from error
    _forbid_folding(model)
    done = Dynamized(
        type(model).__name__,
        family,
        {name: errors[conv] for conv, names in chosen.items() for name in names},
        kept,
        (before, _count_parameters(model)),
    )
    model.dynamized = done  # type: ignore[assignment]
    _LOG.info(str(done).partition("\n")[0])
    if (done.largest_error or 0.0) > _ROUNDING:
        _LOG.warning(_advice(done, [*made.values()]))
    return model


def _start(fresh: DynamicConv2d, conv: nn.Conv2d) -> float | None:
    """Start a layer from a convolution's kernels, unless these have no values yet."""
    if conv.weight.is_meta:
        return None
    return fresh.warm_start_(conv.weight.detach(), None if conv.bias is None else conv.bias.detach())


def _forbid_folding(model: nn.Module) -> None:
    """Let blocks that hold a dynamic convolution refuse to fold themselves into a static one.

    A block such as RepVGG's does so with the weights of its convolutions. Those of a dynamic one are no
    kernels, though they may go by that name, and the fold could be wrong without an error.
    """
    names = [name.split(".") for name, module in model.named_modules() if isinstance(module, DynamicConv2d)]
    for owner in {".".join(name[:length]) for name in names for length in range(len(name))}:
        block = model.get_submodule(owner)
        for method in _FOLDS:
            if inspect.ismethod(getattr(block, method, None)):  # a submodule may have that name
                setattr(block, method, functools.partial(_refuse_to_fold, type(block).__name__, method))


def _refuse_to_fold(block: str, method: str) -> NoReturn:
    raise ZooError(f"{block} has dynamic kernels, which {method}() cannot fold; call it before dynamize.")


def _count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _nothing_to_replace(
    model: nn.Module, kept: Mapping[str, str], stages: Sequence[int] | None, where: Where
) -> str:
    what = "spatial convolution" if where == "spatial" else "convolution"
    place = "" if stages is None else f" in stages {tuple(stages)}"
    said = "; ".join(f"{len(names)} {reason}" for reason, names in _by_reason(kept).items())
    there = f"of its {len(kept)}: {said}" if kept else "it has no nn.Conv2d at all"
    return f"{type(model).__name__} has no {what} to replace{place} ({there})."


def _by_reason(kept: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of what was kept by the reason, the commonest first."""
    names: dict[str, list[str]] = {}
    for name, reason in kept.items():
        names.setdefault(reason, []).append(name)
    return dict(sorted(names.items(), key=lambda item: -len(item[1])))


def _advice(done: Dynamized, made: Sequence[DynamicConv2d]) -> str:
    """Say how far the kernels are from the static ones, and what would bring them there."""
    worst, error = max(done.replaced.items(), key=lambda item: item[1] or 0.0)
    said = f"{done.family} only approximates the static kernels: those of {worst} are off by {error:.1%}"
    generated = [layer for layer in made if isinstance(layer, FCGeneratedConv2d)]
    if not generated:
        return said
    needed = max(math.prod(layer.kernel_size) for layer in generated)
    hidden = generated[0].hidden_dim
    # By default it follows the embedding.
    wider = f", hidden_dim={needed}" if hidden < needed and hidden != generated[0].embedding_dim else ""
    return f"{said}; embedding_dim={needed}{wider} would be exact"
