"""Trained weights for the Hugging Face Hub, in timm's layout, with a card made from their figures.

python -m zoo.hub card resnet18_kw
python -m zoo.hub save resnet18_kw FOLDER
python -m zoo.hub push resnet18_kw OWNER/resnet18_kw

Whoever has this project installed then has, after ``import zoo``,
``timm.create_model("hf-hub:OWNER/resnet18_kw", pretrained=True)``.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from timm.models import push_to_hf_hub
from timm.models._hub import generate_readme, save_for_hf
from torch import nn

from zoo import cli
from zoo.catalog import split_name
from zoo.errors import ZooError
from zoo.layers import FAMILIES, STATIC
from zoo.models import check_name, create_model
from zoo.pretrained import images_seen, lineage, read_manifest, trained_on
from zoo.training import recipes
from zoo.training.invariance import curve_mean
from zoo.training.invariance import read as read_evaluation
from zoo.training.recipe import Recipe

_USAGE = """\
Install the dynamic-kernel zoo (`pip install .` in a checkout). To load from the Hub, write
`hf-hub:OWNER/NAME` in place of `NAME`.

```python
import timm, zoo
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

model = timm.create_model("NAME", pretrained=True).eval()
transform = create_transform(**resolve_model_data_config(model))
logits = model(transform(Image.open("image.png").convert("RGB")).unsqueeze(0))
print(model.pretrained_cfg["label_names"][logits.argmax()])
```

`python -m export.onnx --model NAME` writes an ONNX file that is right at every batch size.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m zoo.hub", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command, place, text in (
        ("card", None, "print the model card"),
        ("save", "folder", "write weights, configuration and card to a folder"),
        ("push", "repository", "upload them to OWNER/NAME, with the token of `hf auth login`"),
    ):
        made = commands.add_parser(command, help=text)
        made.add_argument("model", help="a model with trained weights")
        if place:
            made.add_argument(place)
    commands.choices["push"].add_argument(
        "--private", action="store_true", help="nobody else sees the repository"
    )
    args = parser.parse_args(argv)
    name = check_name(args.model)
    if args.command == "card":
        print(generate_readme(card(name), name))
    elif args.command == "save":
        save(name, Path(args.folder))
        print(f"wrote {name} to {args.folder}")
    else:
        push(name, args.repository, args.private)
        print(f"pushed {name} to {args.repository}")
    return 0


def push(name: str, repository: str, private: bool = False) -> None:
    """Upload what :func:`save` writes.

    Args:
        name: of a model with trained weights.
        repository: OWNER/NAME; made if need be. A card that it has already is left as it is.
        private: whether a new repository is seen by its owner alone.

    Raises:
        ZooError: the model has no trained weights, or the Hub refuses them.
    """
    model, about = trained(name).half(), card(name)
    try:
        push_to_hf_hub(model, repository, private=private, model_card=about, safe_serialization=True)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ZooError(f"cannot push to {repository}: {reason}; log in with `hf auth login`.") from error


def save(name: str, folder: Path) -> None:
    """Write a model's weights, timm's configuration and the card, as the Hub has them.

    Weights are fp16, as they are stored here; timm loads them into an fp32 model.

    Args:
        name: of a model with trained weights.
        folder: made if need be; what it holds of these files is replaced.

    Raises:
        ZooError: the model has no trained weights, or the folder cannot be written to.
    """
    model, text = trained(name).half(), generate_readme(card(name), name)
    try:
        save_for_hf(model, str(folder), safe_serialization=True)
    except OSError as error:
        raise ZooError(f"cannot write to {folder}: {error.strerror}; choose another folder.") from None
    with cli.atomic_path(folder / "README.md") as path:
        path.write_text(text, encoding="utf-8")


def trained(name: str) -> nn.Module:
    """Return a model with its trained weights.

    Raises:
        ZooError: it has none.
    """
    _entry(name)
    return create_model(name, pretrained=True).eval()


def card(name: str) -> dict[str, Any]:
    """Return the model card in timm's form, all of it from the weights folder and the code.

    Raises:
        ZooError: the model has no trained weights.
    """
    entry = _entry(name)
    backbone, family = split_name(name)
    figures, seen = entry["figures"], images_seen(entry)
    layer = FAMILIES.get(family)
    kernels = f"with {layer.__name__} kernels made anew for every image" if layer else "with ordinary kernels"
    spread = f" +- {figures['top1_augmented_std']:.2f}" if "top1_augmented_std" in figures else ""
    count = len(list(_runs(name, entry)))
    runs = f"in {count} runs one after the other, the last with" if count > 1 else "with"
    against = {} if family == STATIC else {"Static twin": _against_twin(name, f"{backbone}_{STATIC}")}
    followed = read_evaluation().get(name)
    return {
        "license": "apache-2.0",
        "description": f"A {backbone} {kernels}, for 32 x 32 images, from the dynamic-kernel zoo.",
        "details": {
            "Model type": "image classification",
            "Dataset": "cifar10",
            "Training data": " ".join(filter(None, (entry["data"]["source"], entry["data"]["note"]))),
            "Image size": "32 x 32",
            "Top-1": f"{figures['top1']:.2f} % of {figures['images']:,} test images",
            "Top-1 of images flipped, cropped, turned, zoomed and sheared at random": (
                f"{figures['top1_augmented']:.2f} %{spread}"
            ),
            **({} if followed is None else _followed(followed)),
            **against,
            "Images seen in training": f"{seen:,}, {entry['images_seen']:,} of them by the last run",
            "Trained on": trained_on(entry),
            **_made_by(name, entry),
            "Caveat": (
                f"trained once, {runs} seed {entry['seed']}, on {trained_on(entry)}, {seen:,} images in all; "
                "how to train was chosen while watching the accuracy on these same test images"
            ),
        },
        "usage": _USAGE.replace("NAME", name),
    }


def _made_by(name: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the command of the last run, and the recipe that makes another, where there is one."""
    behind = [_learned(run) for run in reversed(lineage(entry))]
    alike = [
        recipe
        for recipe in recipes.names()
        if [run.learned() for run in recipes.named(recipe, name)] == behind
    ]
    made = {"Made by": f"`{entry['command']}`" + ", the last run" * (len(behind) > 1)}
    if alike:
        made["To make another like it"] = f"`python -m zoo.train --recipe {alike[0]} --model {name}`"
    return made


def _learned(run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what decided what a run of an entry learned; None where this version cannot tell."""
    try:
        return Recipe.from_dict(run["recipe"]).learned()
    except (KeyError, ZooError):
        return None


def _followed(found: Mapping[str, Any]) -> dict[str, str]:
    """Return what becomes of images that are turned step by step."""
    right, same = (curve_mean(found, figure, "rotation") for figure in ("top1", "unchanged"))
    images = f"the first {found['images']:,} test images"
    return {"Top-1, mean over all angles": f"{right:.1f} % of {images}; {same:.1f} % keep their prediction"}


def _against_twin(name: str, twin: str) -> str:
    """Return the twin's top-1, clean and warped, and how much of the two's training is one and the same."""
    manifest = read_manifest()
    if twin not in manifest:
        return "not trained"
    its = set(_runs(twin, manifest[twin]))
    shared = sum(
        seen for model, seen, seconds in _runs(name, manifest[name]) if (model, seen, seconds) in its
    )
    start = f"from the same start, {shared:,} images in" if shared else "from a start of its own"
    its_top1, warped = (manifest[twin]["figures"][each] for each in ("top1", "top1_augmented"))
    return f"{its_top1:.2f} % top-1, {warped:.2f} % warped at random, {start}"


def _runs(name: str, entry: Mapping[str, Any] | None) -> Iterator[tuple[str, int, int]]:
    """Yield model, images and seconds of the runs behind an entry, which tell each run from every other."""
    for run in lineage(entry):
        yield run.get("model", name), run["images_seen"], run["seconds"]


def _entry(name: str) -> dict[str, Any]:
    manifest = read_manifest()
    if name not in manifest:
        known = ", ".join(sorted(manifest)) or "none"
        raise ZooError(f"{name} has no trained weights; those that have some are {known}.")
    return manifest[name]


if __name__ == "__main__":
    sys.exit(cli.run(main))
