"""What an artifact says about itself, so that it can be used and traced back without this project."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

import zoo
from export.base import ExportOptions, Runtime, installed
from export.ends import Ends
from zoo.errors import ZooError
from zoo.layers import FAMILIES, STATIC, DynamicConv2d


@dataclass(frozen=True)
class Weights:
    """Where a model's weights came from.

    Attributes:
        origin: for people.
        sha256: of the file they were read from; empty where there was none.
    """

    origin: str
    sha256: str = ""


def describe(
    model: nn.Module,
    lowered: nn.Module,
    runtime: Runtime,
    options: ExportOptions,
    end: Ends,
    outputs: int,
    weights: Weights,
    class_names: Sequence[str] | None,
) -> dict[str, Any]:
    """Return what is known of an artifact, without its certificate.

    Args:
        model: as the caller gave it.
        lowered: the copy that is exported.
        runtime: the format.
        options: with the input size filled in.
        end: what it takes and returns.
        outputs: how many outputs the model has.
        weights: where they came from.
        class_names: of the outputs; None takes ``label_names`` of the model's ``pretrained_cfg`` when their
            number is right.

    Raises:
        ZooError: as many class names were given as there are not outputs.
    """
    config = getattr(model, "pretrained_cfg", None) or {}
    if class_names is None:
        known = config.get("label_names") or ()
        class_names = known if len(known) == outputs else ()
    elif len(class_names) != outputs:
        raise ZooError(f"{len(class_names)} class names were given for a model with {outputs} outputs.")
    facts = {
        "model": name_of(model),
        "family": family_of(model),
        "weights": weights.origin,
        "weights_sha256": weights.sha256,
        "class_names": list(class_names),
        "mean": list(end.mean),
        "std": list(end.std),
        "input": end.input,
        "output": end.output,
        "input_size": list(options.input_size or ()),
        "batch": options.batch or "dynamic",
        "dtype": options.dtype,
        "layout": runtime.layout(options) or "",
        "lowering": options.lowering,
        "lowerings": lowerings_of(lowered),
        "versions": versions(runtime),
    }
    return {key: value for key, value in facts.items() if value not in ("", [])}


def to_strings(facts: dict[str, Any]) -> dict[str, str]:
    """Return ``facts`` with every value that is not a string as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def name_of(model: nn.Module) -> str:
    """Return the model's name in timm's registry or else that of its class, and what dynamized it."""
    config = getattr(model, "pretrained_cfg", None) or {}
    name = config.get("architecture") or type(model).__name__
    # Of all its dynamic layers, not of the report: that is about the last of several calls.
    return f"{name} dynamized with {family_of(model)}" if hasattr(model, "dynamized") else name


def family_of(model: nn.Module) -> str:
    """Return the suffixes of the families that ``model`` has layers of, or ``static``."""
    # A family's layer may be a subclass of another's.
    kinds = {type(module) for module in model.modules()}
    return ", ".join(name for name, layer in FAMILIES.items() if layer in kinds) or STATIC


def lowerings_of(model: nn.Module) -> dict[str, str]:
    """Return the lowering of every dynamic convolution by its name."""
    return {
        name: module.lowering for name, module in model.named_modules() if isinstance(module, DynamicConv2d)
    }


def versions(runtime: Runtime) -> dict[str, str]:
    """Return the versions of everything that made and certified the artifact."""
    packages = dict.fromkeys(("torch", "timm", *runtime.packages))
    return {"zoo": zoo.__version__, **{name: installed(name) or "unknown" for name in packages}}
