"""What docs/results.md says: accuracy against viewpoint, and at what cost.

Made from the weights manifest, from ``weights/evaluation.json``, which ``python -m zoo.evaluate --curves``
writes, and from the benchmarks.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.benchmark import render
from export.benchmark.environment import machine
from export.benchmark.handoff import FAR
from export.benchmark.results import read
from export.benchmark.subjects import twin_of
from export.report import benchmarks, markdown, records
from export.report.gains import FIGURES, in_points, paired_gains
from zoo import catalog
from zoo.catalog import split_name
from zoo.layers import STATIC
from zoo.models import list_models
from zoo.pretrained import images_seen, lineage, read_manifest, trained_on
from zoo.training.answers import read as read_answers
from zoo.training.invariance import STEPS, curve_mean
from zoo.training.invariance import read as read_evaluation

RUNTIME, BATCH = "onnx", 1
"""The way to run a model, in fp32 on a CPU, whose latency stands for its cost."""

AIMS: tuple[tuple[str, str, float, tuple[str, ...]], ...] = (
    ("clean", "with a GPU", 93, ("resnet18_static", "resnet18_kw", "resnet18_fgk", "resnet18_dpk")),
    ("augmented", "with a GPU", 90, ("resnet18_static", "resnet18_kw", "resnet18_fgk", "resnet18_dpk")),
    ("clean", "with a GPU", 91, ("mobilenetv2_100_static",)),
    ("clean", "on CPUs", 85, ("resnet18_static", "resnet18_kw", "resnet18_fgk")),
    ("clean", "on CPUs", 75, ("resnet18_dpk",)),
    (
        "clean",
        "on CPUs",
        80,
        tuple(f"mobilenetv3_small_100_{family}" for family in (STATIC, "kw", "fgk", "dpk")),
    ),
)
"""The top-1 in percent that this project aims at: of which images, how trained, how much, by which models."""


def models(_root: Path) -> str:
    """Return the trained and evaluated models, best clean top-1 first."""
    manifest = read_manifest()
    header = ["model", "parameters", "file", "clean top-1", "augmented top-1", "images seen", "trained on"]
    rows = [
        (
            f"`{row.model}`",
            f"{row.params / 1e6:.2f} M",
            f"{manifest[row.model]['bytes'] / 1e6:.1f} MB",
            f"{row.top1:.2f} %",
            f"{row.top1_augmented:.2f} %",
            f"{images_seen(manifest[row.model]):,}",
            trained_on(manifest[row.model], brief=True),
        )
        for row in catalog.sort(catalog.rows(pretrained=True), "top1")
        if row.top1_augmented is not None
    ]
    return markdown.table(header, "lrrrrrl", rows)


def accuracy(_root: Path) -> str:
    """Return what the trained models make of images as they are, warped at random, and step by step."""
    evaluation = read_evaluation()
    header = ["model", "clean", "augmented", *STEPS, "unchanged when turned", "calibration error"]
    lines = []
    for name, entry in _trained().items():
        figures = entry["figures"]
        spread = f" ± {figures['top1_augmented_std']:.2f}" if "top1_augmented_std" in figures else ""
        cells = [f"`{name}`", f"{figures['top1']:.2f} %", f"{figures['top1_augmented']:.2f}{spread} %"]
        found = evaluation.get(name)
        steps = [("top1", what) for what in STEPS] + [("unchanged", "rotation")]
        cells += [f"{curve_mean(found, *step):.1f} %" if found else "" for step in steps]
        error = figures.get("calibration_error")
        lines.append([*cells, "" if error is None else f"{error:.1f} %"])
    table = markdown.table(header, "l" + "r" * (len(header) - 1), lines)
    few = sorted({f"{found['images']:,}" for found in evaluation.values()})
    rests = (
        f"\n\nRotation, scale, shear and what is unchanged are of {' or '.join(few)} images." if few else ""
    )
    return table + rests


def aims(_root: Path) -> str:
    """Return what was reached of :data:`AIMS`, those that are met in bold."""
    trained = _trained()

    def reached(name: str, images: str, aim: float) -> str:
        entry = trained.get(name)
        if entry is None:
            return f"`{name}` no weights"
        figure = entry["figures"][FIGURES[images]]
        text = f"**{figure:.2f} %**" if figure >= aim else f"{figure:.2f} %"
        return f"`{name}` {text} ({trained_on(entry, brief=True)})"

    lines = [
        [images, how, f"{aim:.0f} %", ", ".join(reached(name, images, aim) for name in names)]
        for images, how, aim, names in AIMS
    ]
    return markdown.table(["images", "to be trained", "aim", "reached, by weights of"], "llrl", lines)


def against_twin(root: Path) -> str:
    """Return the same as points gained over the static twin, and what they cost as multiples of it."""
    trained, evaluation, latency, params = _trained(), read_evaluation(), _latency(root), _params()
    answers, training = read_answers(), records.training_times(root)
    gains = ["clean", "augmented", *STEPS, "unchanged when turned"]
    header = ["model", *gains, "parameters", "latency", "training"]
    lines = []
    for name, entry in trained.items():
        twin = twin_of(name)
        if twin not in trained or name == twin:
            continue
        points = [
            f"{entry['figures'][figure] - trained[twin]['figures'][figure]:+.1f}"
            for figure in ("top1", "top1_augmented")
        ]
        if name in answers and twin in answers and answers[name].data_sha256 == answers[twin].data_sha256:
            points = [in_points(gain) for gain in paired_gains(answers[name], answers[twin])]
        mine, its = evaluation.get(name), evaluation.get(twin)
        if mine and its and _followed(mine) != _followed(its):
            mine = None  # other images are easier or harder by more than families differ
        for figure, step in [("top1", step) for step in STEPS] + [("unchanged", "rotation")]:
            both = mine and its and (curve_mean(mine, figure, step), curve_mean(its, figure, step))
            points.append(f"{both[0] - both[1]:+.1f}" if both else "")
        row, _ = latency.get(name, (None, ""))
        lines.append(
            [
                f"`{name}`",
                *points,
                f"{params[name] / params[twin]:.2f}x",
                f"{row.tax.value:.2f}x" if row and row.tax else "",
                f"{training[name]:.1f}x" if name in training else "",
            ]
        )
    return markdown.table(header, "l" + "r" * (len(header) - 1), lines)


def _followed(found: dict[str, Any]) -> tuple[int, str | None]:
    """Return which images curves are of: how many, and of what data."""
    return found["images"], found.get("data", {}).get("sha256")


def costs(root: Path) -> str:
    """Return what each trained model takes: parameters, file, training, and a call of it deployed."""
    latency, params = _latency(root), _params()
    header = [
        "model",
        "parameters",
        "file",
        "images seen",
        "training",
        f"ms ({RUNTIME}, batch {BATCH})",
        "threads",
        "tax",
        "measured on",
    ]
    lines = []
    for name, entry in _trained().items():
        row, measured_on = latency.get(name, (None, ""))
        lines.append(
            [
                f"`{name}`",
                f"{params[name] / 1e6:.2f} M",
                f"{entry['bytes'] / 1e6:.1f} MB",
                f"{images_seen(entry):,}",
                f"{_duration(_seconds(entry))}, {trained_on(entry)}",
                f"{row.latency.p50 * 1e3:.2f}" if row else "",
                row.result.candidate.on if row else "",
                render.tax_cell(row) if row and row.tax else "",
                measured_on,
            ]
        )
    return markdown.table(header, "lrrrrrrrl", lines)


def _trained() -> dict[str, dict[str, Any]]:
    """Return the manifest's evaluated entries, backbone by backbone, the static twin first."""
    entries = {name: entry for name, entry in read_manifest().items() if entry.get("figures")}
    return dict(sorted(entries.items(), key=lambda item: order(item[0])))


def order(name: str) -> tuple[str, bool, int]:
    """Return the place of a model among others: backbone by backbone, the static twin first."""
    backbone, family = split_name(name)
    return backbone, family != STATIC, list_models().index(name)


def _latency(root: Path) -> dict[str, tuple[render.Row, str]]:
    """Return the models' rows measured as :data:`RUNTIME` says, and the machine.

    Most threads go first, then cores that are not known to be far from each other, then the file with the
    most rows, then the latest.
    """
    found: dict[str, tuple[Any, render.Row, str]] = {}
    for path in benchmarks.on_whole_machines(root):
        rows, env = benchmarks.headline(path), read(path).environment
        for row in rows:
            it = row.result.candidate
            if it.is_usual and (it.runtime, it.batch) == (RUNTIME, BATCH):
                rank = it.threads, it.cores != FAR, len(rows), str(env["date"])
                if it.model not in found or rank > found[it.model][0]:
                    found[it.model] = rank, row, machine(env)
    return {name: (row, where) for name, (_, row, where) in found.items()}


def _seconds(entry: Mapping[str, Any] | None) -> float:
    """Add up the training time behind an entry, that of the runs it started from included."""
    return sum(run["seconds"] for run in lineage(entry))


def _duration(seconds: float) -> str:
    """Return ``5 min`` or ``5.1 h``."""
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _params() -> dict[str, int]:
    return {row.model: row.params for row in catalog.rows(pretrained=True)}
