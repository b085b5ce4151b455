"""Write the README's table of models from the manifest: ``python -m zoo.report``.

No figure in the README is typed by hand; ``--check`` fails when the README and the manifest disagree.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo import cli
from zoo.errors import ZooError
from zoo.models import create_model
from zoo.pretrained import read_manifest, weights_dir

BEGIN, END = "<!-- models: python -m zoo.report -->", "<!-- end of models -->"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    parser = argparse.ArgumentParser("python -m zoo.report", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--readme", type=Path, default=weights_dir().parent / "README.md", help="file to update"
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if it is out of date"
    )
    options = parser.parse_args(argv)
    if not options.readme.is_file():
        raise ZooError(f"there is no {options.readme}; give the README of a checkout with --readme.")
    old = options.readme.read_text(encoding="utf-8")
    new = insert(old, model_table(read_manifest()))
    if options.check:
        print("up to date" if new == old else f"{options.readme} is out of date; run python -m zoo.report")
        return int(new != old)
    with cli.atomic_path(options.readme) as temporary:
        temporary.write_text(new, encoding="utf-8")
    return 0


def insert(text: str, table: str) -> str:
    """Put ``table`` between the two marker lines of ``text``.

    Raises:
        ZooError: the markers are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ZooError(f"the README has no lines {BEGIN!r} and {END!r} to put the table between.")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def model_table(manifest: dict[str, dict[str, Any]]) -> str:
    """Return the trained and evaluated models as a Markdown table, best clean top-1 first."""
    rows = [
        "| model | parameters | file | clean top-1 | augmented top-1 | images seen | trained on |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    evaluated = [item for item in manifest.items() if "top1_augmented" in item[1].get("figures", {})]
    best_first = sorted(evaluated, key=lambda item: -item[1]["figures"]["top1"])
    for name, entry in best_first:
        parameters = sum(parameter.numel() for parameter in create_model(name).parameters())
        figures = entry["figures"]
        rows.append(
            f"| `{name}` | {parameters / 1e6:.2f} M | {entry['bytes'] / 1e6:.1f} MB "
            f"| {figures['top1']:.2f} % | {figures['top1_augmented']:.2f} % "
            f"| {images_seen(entry):,} | {entry['device']} |"
        )
    return "\n".join(rows)


def images_seen(entry: dict[str, Any] | None) -> int:
    """Count the images behind a manifest entry, those of the runs it started from included."""
    return entry["images_seen"] + images_seen(entry.get("started_from")) if entry else 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
