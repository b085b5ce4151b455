"""Draw what the kernels of a trained model do while an image turns.

python docs/gallery.py --model resnet18_kw --data ../shared/cifar10 --data-note "JPEG q75 copy"

Writes MODEL.png and MODEL.json, the figures in it, into docs/images/. Needs ``pip install -e '.[docs]'``.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from comparing import check_folder
from torch import nn
from turning import SHOWN, measure, turn

import zoo
from zoo import cli
from zoo.catalog import split_name
from zoo.errors import ZooError
from zoo.layers import DynamicConv2d, dynamic_layers
from zoo.models import BACKBONES
from zoo.pretrained import images_seen, read_manifest, trained_on
from zoo.training.data import Split, load_cifar10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    options = _parser().parse_args(argv)
    _check(options)
    try:
        drawing = importlib.import_module("drawing")
    except ModuleNotFoundError as error:
        raise ZooError(f"pictures need the package {error.name}; pip install -e '.[docs]'.") from None
    name = zoo.models.check_name(options.model)
    model, layers = load(name)
    test = load_cifar10("test", options.data)
    if not 0 <= options.image < len(test):
        raise ZooError(f"--image is {options.image}; the test images are 0 to {len(test) - 1}.")
    rows = torch.arange(options.image, options.image + options.compare) % len(test)
    record = facts(name, test, options.image, options.data_note)
    record |= measure(model, layers, test.images[rows], options.turn, options.step)
    figure = drawing.draw(record, turn(test.images[options.image], record["angles"])[SHOWN])
    with cli.atomic_path(options.out / f"{name}.png") as temporary:
        figure.savefig(temporary, dpi=100, pil_kwargs={"optimize": True})
    with cli.atomic_path(options.out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(f"{options.out / name}.png and .json")
    return 0


def load(name: str) -> tuple[nn.Module, dict[str, DynamicConv2d]]:
    """Load a model with its trained weights and choose the last dynamic convolution of each stage.

    Returns:
        The model in eval mode, and the chosen layers by their names in it.

    Raises:
        ZooError: no kernel of the model depends on the image, or it has no trained weights.
    """
    with torch.device("meta"):
        layers = dynamic_layers(zoo.create_model(name))
    if all(layer.sample_factor == "none" for layer in layers):
        raise ZooError(f"the kernels of {name} are the same for every image; there is nothing to draw.")
    trained = read_manifest()
    if name not in trained:
        raise ZooError(
            f"{name} has no trained weights, and random kernels would show nothing; "
            f"with weights: {', '.join(trained) or 'none'}."
        )
    model = zoo.create_model(name, pretrained=True).eval()
    last: dict[str, tuple[str, DynamicConv2d]] = {}
    for path, module in model.named_modules():
        for stage in BACKBONES[split_name(name)[0]].stages:
            if path.startswith(f"{stage}.") and isinstance(module, DynamicConv2d):
                last[stage] = path, module
    return model, dict(last.values())


def weights(name: str) -> dict[str, Any]:
    """Return what the title says of a model's weights."""
    entry = read_manifest()[name]
    return {
        "sha256": entry["sha256"],
        "epochs_seen": round(images_seen(entry) / entry["train_images"], 2),
        "device": trained_on(entry),
        "top1": entry.get("figures", {}).get("top1"),
    }


def facts(name: str, test: Split, image: int, note: str | None) -> dict[str, Any]:
    """Return what the figure is of: the model, where its weights come from, and the image."""
    return {
        "model": name,
        "weights": weights(name),
        "data": test.describe(note),
        "image": {"index": image, "label": test.classes[test.labels[image]]},
    }


def _check(options: argparse.Namespace) -> None:
    if options.step < 1 or 180 % options.step:
        raise ZooError(f"--step is {options.step}; give a number of degrees that divides 180.")
    if not 1 <= options.turn <= options.compare or options.compare < 2:
        raise ZooError(
            f"--turn is {options.turn} and --compare {options.compare}; "
            "compare 2 images or more, and turn 1 of them or more."
        )
    check_folder(options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python docs/gallery.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="a model with trained weights")
    add("--data", metavar="DIR", help="folder of parquet files (default: torchvision's download)")
    add("--data-note", metavar="TEXT", help="said beside the source of the data")
    add("--image", type=int, default=325, metavar="N", help="the test image to show (default: 325, a horse)")
    add("--step", type=int, default=15, metavar="DEGREES", help="between the angles (default: 15)")
    add("--turn", type=int, default=24, metavar="N", help="images to turn, from --image on (default: 24)")
    add("--compare", type=int, default=64, metavar="N", help="images to compare upright (default: 64)")
    add("--out", type=Path, default=Path(__file__).parent / "images", metavar="DIR")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
