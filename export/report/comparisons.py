"""What docs/results.md and docs/performance.md say of trainings that scripts in docs/ compared."""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from export.benchmark.statistics import Interval
from export.benchmark.subjects import twin_of
from export.report import markdown
from export.report.gains import FIGURES, in_points
from zoo.errors import ZooError
from zoo.training.invariance import curve_mean

SWAPPED = {
    "clean": {"mean": "the mean image's", "other": "another image's"},
    "augmented": {"mean": "the mean image's", "other": "another image's", "upright": "the upright image's"},
}
"""By which images, and what docs/swapped.py makes the kernels for instead."""

_BRACKETS = {
    True: "plus or minus is a standard deviation",
    False: "brackets are 95 % intervals over test images",
}
"""What follows a figure, by whether a model has several runs."""

QUARTERS = ("0", "90", "180", "270")
"""Angles, as :func:`zoo.training.invariance.curves` names them, that leave an image as sharp as it was."""


def transfer(root: Path) -> str:
    """Return what docs/transfer.py reached from each start, as it lies in docs/transfer.json."""
    record = _record(root, "transfer")
    header = [
        "start",
        "always the commonest class",
        "before training",
        f"top-1 of {record['test_images']:,} images",
    ]
    lines = [
        [row["title"], *(f"{row[figure]:.1f} %" for figure in ("commonest", "before", "top1"))]
        for row in record["rows"]
    ]
    starts = " and ".join(f"{name} at {start['top1']:.1f} %" for name, start in record["starts"].items())
    budget = (
        f"{record['epochs']} epochs of {record['images']:,} images at {record['size']} px each, "
        f"tested at 32 px, from {starts}: `{record['command']}`"
    )
    return f"{markdown.table(header, 'lrrr', lines)}\n\n{budget}"


def sizes(root: Path) -> str:
    """Return what other sizes of layers save and cost, and fewer of them, as docs/sizes.py measured it."""
    names = sorted(path.stem for path in (root / "docs").glob("sizes_*.json"))
    if not names:
        raise ZooError(f"there is no {root / 'docs'}/sizes_*.json; python docs/sizes.py makes one.")
    return "\n\n".join(_sizes(_record(root, name), name) for name in names)


def _sizes(record: Mapping[str, Any], name: str) -> str:
    if "environment" not in record:
        raise ZooError(f"docs/{name}.json does not say where it was measured; docs/sizes.py makes it anew.")
    how = record["recipe"]
    batches = list(record["rows"][0]["tax"])
    header = [
        "family",
        "size",
        "parameters",
        "multiplies an image",
        *(f"tax, batch {batch}" for batch in batches),
        "clean top-1",
        "over static",
    ]
    lines = []
    for row in record["rows"]:
        size = ", ".join(
            f"{name} {' and '.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in row["sizes"].items()
        )
        numbers = [f"{row['params'] / 1e6:.2f} M", f"{row['macs'] / 1e6:.0f} M"]
        taxes = [f"{row['tax'][batch]:.2f}" for batch in batches]
        gained = in_points(Interval(*row["over_static"])) if "over_static" in row else ""
        lines.append([row["family"], size, *numbers, *taxes, f"{row['top1']:.1f} %", gained])
    an_epoch = how["images_per_epoch"] // how["batch_size"] * how["batch_size"]
    phases = " and ".join(f"{epochs * an_epoch:,} at {size} px" for size, epochs in how["phases"])
    start = " from the static network's weights as published then" if record.get("pretrained") else ""
    paired = any("over_static" in row for row in record["rows"])  # an early file has no pairs
    error = 100 * (0.25 / record["test_images"]) ** 0.5
    reach = (
        "brackets are 95 % intervals over them" if paired else f"standard error at most {error:.1f} points"
    )
    budget = (
        f"{record['model']}{start}, {phases}, one seed; {record['test_images']:,} test images, "
        f"{reach}; "
        f"tax: onnxruntime, one thread: `{record['command']}`. "
        f"{markdown.measured(record['environment'])}"
    )
    table = markdown.table(header, "ll" + "r" * (len(header) - 2), lines)
    return f"{table}\n\n{budget}"


def spared(root: Path) -> str:
    """Return what docs/spared.py found of runs with other shares of unwarped images."""
    record = _record(root, "spared")
    header = ["not warped", "turned, not warped", "clean", "augmented"]
    header += [*(f"{step} degrees" for step in QUARTERS), "rotation", "unchanged when turned"]
    lines = []
    for row in sorted(record["rows"], key=lambda row: (row["upright"], row["turned"])):
        spread = f" ± {row['top1_augmented_std']:.2f}" if "top1_augmented_std" in row else ""
        followed = row["curves"]
        cells = [f"{row['upright']:.0%}", f"{row['turned']:.0%}"]
        cells += [f"{row['top1']:.2f} %", f"{row['top1_augmented']:.2f}{spread} %"]
        cells += [f"{followed['top1']['rotation'][step]:.1f} %" for step in QUARTERS]
        cells += [f"{curve_mean(followed, figure, 'rotation'):.1f} %" for figure in ("top1", "unchanged")]
        lines.append(cells)
    images = record["rows"][0]["curves"]["images"]
    how = (
        f"{record['model']}, one run each of {record['images_seen']:,} images, all from the same weights; "
        f"angles: {images:,} images: `{record['command']}`"
    )
    return f"{markdown.table(header, 'r' * len(header), lines)}\n\n{how}"


def seeds(root: Path, name: str = "seeds") -> str:
    """Return what docs/seeds.py found of runs, model by model.

    Args:
        root: of the checkout.
        name: of the file that it wrote.
    """
    record = _record(root, name)
    models: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}
    for row in record["rows"]:
        models.setdefault((row["model"], tuple(row.get("frozen", ()))), []).append(row)
    lines = []
    several = any(len(rows) > 1 for rows in models.values())
    moves = any("moves" in row for row in record["rows"])  # early files do not have them
    for (model, frozen), rows in models.items():
        kept = f", {' and '.join(f'`{each}`' for each in frozen)} frozen" if frozen else ""
        cells = [f"`{model}`{kept}", str(len(rows))]
        for figure in FIGURES.values():
            found = [row[figure] for row in rows]
            spread = f" ± {stdev(found):.2f}" if len(found) > 1 else ""
            cells.append(f"{mean(found):.2f}{spread} %")
            if several:
                cells.append(f"{min(found):.2f} to {max(found):.2f} %")
            cells.append(_seed_by_seed(rows, models.get((twin_of(model), ()), []), figure))
        lines.append([*cells, *([_furthest(rows)] if moves else [])])
    header = ["model", "runs"]
    for images in FIGURES:
        header += [images, *(["lowest to highest"] if several else []), "over static, seed by seed"]
    header += ["kernels move"] if moves else []
    start = "all of a model from the same weights" if record["from_weights"] else "from no weights"
    said = [
        f"Runs of {record['images_seen']:,} images, {start}",
        f"augmented: {_draws(record['draws'])}",
        _BRACKETS[several],
    ]
    if moves:
        said.append("kernels move: the median from one image to another, in the layer that moves furthest")
    said += [_over_frozen(row) for row in record["rows"] if "gain_unfrozen" in row]
    how = f"{'; '.join(said)}: `{record['command']}`"
    return f"{markdown.table(header, 'l' + 'r' * (len(header) - 1), lines)}\n\n{how}"


def _over_frozen(row: Mapping[str, Any]) -> str:
    """Return what a model gains over its run with frozen parameters of the same seed."""
    gains = [
        f"{in_points(Interval(*row[figure.replace('top1', 'gain_unfrozen')]))} {images}"
        for images, figure in FIGURES.items()
    ]
    return f"`{row['model']}` over itself frozen, seed {row['seed']}: {', '.join(gains)}"


def _seed_by_seed(rows: list[dict[str, Any]], twins: list[dict[str, Any]], figure: str) -> str:
    """Return the points a model gains over its twin's run of the same seed, where there is one of each."""
    its = {row["seed"]: row[figure] for row in twins}
    if rows is twins or its.keys() != {row["seed"] for row in rows}:
        return ""
    gains = [row[figure] - its[row["seed"]] for row in rows]
    if len(gains) == 1:
        return in_points(Interval(*rows[0][figure.replace("top1", "gain")]))
    return f"{mean(gains):+.2f} ± {stdev(gains):.2f}"


def _furthest(rows: list[dict[str, Any]]) -> str:
    """Return how far kernels move from image to image in the layer of each run that moves furthest."""
    found = [100 * max(row["moves"].values()) for row in rows if row.get("moves")]
    least, most = (f"{end(found):.1f}" if found else "" for end in (min, max))
    return f"{least} to {most} %" if least != most else f"{most} %" * bool(found)


def swapped(root: Path, name: str = "swapped") -> str:
    """Return what docs/swapped.py found of kernels that are made for something else than the image.

    Args:
        root: of the checkout.
        name: of the file that it wrote.
    """
    record = _record(root, name)
    lines = []
    for row in record["rows"]:
        cells = [f"`{row['model']}`"]
        for images, others in SWAPPED.items():
            cells.append(f"{row[images]['top1']:.2f} %")
            cells += [in_points(Interval(*row[images][of])) for of in others]
        lines.append(cells)
    header = ["model"]
    for images, others in SWAPPED.items():
        header += [images, *others.values()]
    how = (
        f"The first {record['images']:,} test images, warped once; brackets are 95 % intervals over them: "
        f"`{record['command']}`"
    )
    return f"{markdown.table(header, 'l' + 'r' * (len(header) - 1), lines)}\n\n{how}"


def distilled(root: Path) -> str:
    """Return what docs/distilled.py found of two runs, one with a teacher."""
    record = _record(root, "distilled")
    lines = []
    for row in record["rows"]:
        cells = [f"`{row['teacher']}`" if row["teacher"] else "none"]
        for figure, gain in (("top1", "gain"), ("top1_augmented", "gain_augmented")):
            gained = f" ({in_points(Interval(*row[gain]))})" if gain in row else ""
            cells.append(f"{row[figure]:.2f} %{gained}")
        lines.append(cells)
    how = (
        f"`{record['model']}`, {record['images_seen']:,} images each, from the same weights, with the same "
        f"seed; augmented: {_draws(record['draws'])}: `{record['command']}`"
    )
    return f"{markdown.table(['teacher', *FIGURES], 'lrr', lines)}\n\n{how}"


def _draws(count: int) -> str:
    return f"{count} draw{'s' * (count > 1)}, the same for all"


def _record(root: Path, name: str) -> Any:
    """Return what docs/NAME.py wrote."""
    path = root / f"docs/{name}.json"
    if not path.is_file():
        raise ZooError(f"there is no {path}; python docs/{name}.py makes it.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ZooError(f"{path} is not JSON ({error}); python docs/{name}.py makes it anew.") from None
