"""List the models of the zoo with their cost and what their weights reach.

python -m zoo
python -m zoo "*_dpk" "resnet50_*" --sort macs
python -m zoo --pretrained --json
"""

import argparse
import sys
from collections.abc import Iterable, Sequence

from zoo import catalog, cli
from zoo.errors import ZooError
from zoo.training.processes import progress_bar

LEGEND = """\
MACs: multiply-accumulates for one image, in eager mode (an exported file can need fewer);
weights: the file of trained ones, - without;
clean, augmented: top-1 on CIFAR-10's test images, as they are and randomly warped."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see the module's docstring."""
    options = _parser().parse_args(argv)
    table = catalog.rows(options.patterns, pretrained=options.pretrained, watch=_with_bar)
    if options.sort:
        table = catalog.sort(table, options.sort)
    if options.layout:
        print(options.layout(table))
    else:
        print(f"{catalog.to_text(table)}\n\n{len(table)} models. {LEGEND}")
    return 0


def _with_bar(names: list[str]) -> Iterable[str]:
    try:
        return progress_bar(names, desc="count", unit=" models")
    except ZooError:  # tqdm comes with the train extra; a table of names must not need it
        return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m zoo", description="List the models with their cost and what their weights reach."
    )
    add = parser.add_argument
    add("patterns", nargs="*", metavar="PATTERN", help='names or shell patterns in quotes, such as "*_dpk"')
    add("--pretrained", action="store_true", help="only models with trained weights")
    add("--sort", choices=catalog.COLUMNS, metavar="COLUMN", help=f"one of {', '.join(catalog.COLUMNS)}")
    layout = parser.add_mutually_exclusive_group()
    for name, function in {"json": catalog.to_json, "csv": catalog.to_csv}.items():
        layout.add_argument(
            f"--{name}", dest="layout", action="store_const", const=function, help=f"print {name.upper()}"
        )
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
