"""Tables of what lies in folders of ``benchmarks/``: where time goes, what files get right, training."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from export import cost, evaluate
from export.base import AUTO
from export.benchmark import profile
from export.benchmark.attribution import CONTEXT, CONVOLUTION, FACTORS, LAYOUT, STATIC_CONVOLUTION
from export.benchmark.subjects import twin_of
from export.cost import MULTIPLIES
from export.report import markdown
from export.report.files import FOLDER, committed
from zoo.catalog import split_name
from zoo.errors import ZooError
from zoo.layers import STATIC
from zoo.training import speed

_FACTS = {"date", "cpu", "gpu", "versions", "commit"}
_SHOWN = (CONTEXT, FACTORS, CONVOLUTION, LAYOUT, STATIC_CONVOLUTION)


def parts(root: Path) -> str:
    """Return where the time goes: a row for each model, runtime, batch size and number of threads."""
    return "\n\n".join(_parts(record) for record in _records(root, "breakdown", profile.FORMAT))


class _Roof(NamedTuple):
    """What a machine reads and multiplies in a second at most: bytes, and numbers."""

    read: float
    product: float

    def least(self, moved: float, multiplies: float) -> float:
        """Return the seconds that reading or multiplying would take, whichever takes longer."""
        return max(moved / self.read, multiplies / self.product)


def _parts(record: dict[str, Any]) -> str:
    header = ["model", "runtime", "batch", "threads", "ms", "over static", *_SHOWN]
    header += ["all else", "MB", "MMAC", "GB/s", "GMAC/s", "of the roof", "takes most"]
    lines: list[list[str]] = []
    for threads, found in record["ceilings"].items():
        reached = [f"{found[name] / 1e9:.1f}" for name in _Roof._fields]
        name = "what torch reads and multiplies"
        lines.append([name, "", "", threads, *[""] * (len(header) - 8), *reached, "", ""])
    roofs = {threads: _roof(threads, found, record) for threads, found in record["ceilings"].items()}
    whole = {_key(row): row["seconds"] for row in record["profiles"]}
    for row in record["profiles"]:
        twin = whole[_key({**row, "model": twin_of(row["model"]), "lowering": AUTO})]
        lines.append(_part(row, twin, roofs.get(str(row["threads"]))))
    parts = markdown.table(header, f"ll{'r' * (len(header) - 3)}l", lines)
    how = markdown.measured(record["environment"])
    return "\n\n".join([*markdown.made_by(record.get("command", "")), parts, how])


def _roof(threads: str, found: dict[str, float], record: dict[str, Any]) -> _Roof:
    """Return the roof of runs with so many threads.

    A runtime can multiply faster than torch does: the roof is the fastest that was seen.
    """
    rows = [row for row in record["profiles"] if str(row["threads"]) == threads]
    seen = [_multiplies(row) / (_inside(row) or math.inf) for row in rows]
    return _Roof(found["read"], max([found["product"], *seen]))


def _part(row: dict[str, Any], twin: float, roof: _Roof | None) -> list[str]:
    """Return a profile's line.

    Args:
        row: the profile.
        twin: seconds of a call of its static twin.
        roof: for its threads, where that was measured.
    """
    seconds, kinds = row["seconds"], row["kinds"]
    shown = [kinds[kind] for kind in _SHOWN]
    shares = [f"{share / seconds:.0%}" for share in (*shown, seconds - sum(shown))]
    moved = sum(row["work"].get(kind, 0) for kind in ("moved", "passed", "constants"))
    amounts, inside = (moved, _multiplies(row)), _inside(row)
    rates = [f"{amount / 1e6:.1f}" if amount else "" for amount in amounts]
    rates += [f"{amount / inside / 1e9:.1f}" if amount else "" for amount in amounts]
    least = roof.least(*amounts) if roof else 0
    rates.append(f"{least / inside:.0%}" if least and inside else "")
    most = ", ".join(
        f"{operator} {spent / seconds:.0%} ({kind})" for operator, kind, _, spent in row["operators"][:3]
    )
    label = row["model"] if row["lowering"] == AUTO else f"{row['model']} ({row['lowering']})"
    how = [row["runtime"], str(row["batch"]), str(row["threads"])]
    return [f"`{label}`", *how, f"{seconds * 1e3:.1f}", f"{seconds / twin:.2f}", *shares, *rates, most]


def _multiplies(row: dict[str, Any]) -> float:
    """Return the multiplies of a profile's dynamic convolutions, of a static model's static ones."""
    return sum(row["work"].get(kind, 0) for kind in MULTIPLIES)


def _inside(row: dict[str, Any]) -> float:
    """Return the seconds that these convolutions took."""
    static = split_name(row["model"])[1] == STATIC
    kinds = (STATIC_CONVOLUTION,) if static else (CONTEXT, FACTORS, CONVOLUTION, LAYOUT)
    return sum(row["kinds"][kind] for kind in kinds)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a profile is of."""
    return tuple(row[name] for name in ("model", "runtime", "lowering", "batch", "threads"))


def choices(_root: Path) -> str:
    """Return what choosing by price costs against measuring, as ``export/rates.json`` has it."""
    header = ["runtime", "model", "prices from", "auto over the fastest", "each layer's own rule"]
    lines = [
        [
            name,
            f"`{model}`",
            "other layers" if losses["held_out"] else "these layers",
            f"{losses['auto']:.2f}",
            f"{losses['rule']:.2f}",
        ]
        for name, entry in json.loads(cost.RATES.read_text("utf-8")).items()
        for model, losses in entry["over_the_fastest"].items()
    ]
    return markdown.folded(f"{len(lines)} rows", markdown.table(header, "lllrr", lines))


def training(root: Path) -> str:
    """Return how fast the families train, the fastest way of each model first."""
    return "\n\n".join(
        f"### `{FOLDER}/training/{path.name}`\n\n{_training(_record(path, speed.FORMAT))}"
        for path in committed(root, "training")
    )


def training_times(root: Path) -> dict[str, float]:
    """Return by model how much longer than its twin's its training takes on a CPU, an image in fp32.

    As ``zoo.train`` has it by default, of the latest record that has it: each image with kernels of its own,
    in the lowering and the layout that suit the model, which a record has before the other layout.
    """
    found: dict[str, float] = {}
    usual = {"lowering": AUTO, "compiled": False, "amp": "no", "shared": 1}
    for record in sorted(
        _records(root, "training", speed.FORMAT), key=lambda each: each["environment"]["date"]
    ):
        rows = [row for row in record["rows"] if {"amp": "no", "shared": 1, **row}.items() >= usual.items()]
        if record["environment"]["gpu"] is None:
            speeds: dict[str, float] = {}
            for row in rows:
                speeds.setdefault(row["model"], row["over_static"])
            found |= {name: 1 / value for name, value in speeds.items()}
    return found


def _training(record: dict[str, Any]) -> str:
    header = ["model", "lowering", "batch", "image", "images/s", "of static", "memory MiB"]
    lines: list[list[str]] = []
    # A static twin is measured anew beside each of its families; the first stands for all.
    distinct: dict[tuple[str, str], dict[str, Any]] = {}
    for row in record["rows"]:
        distinct.setdefault((row["model"], speed.way(row)), row)
    for row in sorted(distinct.values(), key=lambda row: (row["model"], -row["over_static"])):
        rate = [f"{row['images_per_second']:.1f}", f"{row['over_static']:.2f}"]
        memory = f"{row['peak_memory_mb'] or ''}"
        size = f"{row['side']} px"
        lines.append([f"`{row['model']}`", speed.way(row), str(row["batch"]), size, *rate, memory])
    load = record["loading"]
    rate = [f"{load['images_per_second']:.1f}", ""]
    lines.append(["loading and warping alone", "", str(load["batch"]), f"{load['side']} px", *rate, ""])
    fastest = max(record["rows"], key=lambda row: row["images_per_second"])
    share = fastest["images_per_second"] / load["images_per_second"]
    waits = f"Loading, which is not in the steps, would take {share:.1%} of the time of the fastest ones."
    table = markdown.table(header, "llrrrrr", lines)
    origin = f"{waits} {markdown.measured(record['environment'])}"
    return "\n\n".join([*markdown.made_by(record.get("command", "")), table, origin])


def artifacts(root: Path) -> str:
    """Return what exported files get right, beside the weights that they were made from."""
    return "\n\n".join(_artifacts(record) for record in _records(root, "artifacts", evaluate.FORMAT))


def _artifacts(record: dict[str, Any]) -> str:
    header = ["model", "runs as", "dtype", "MB", "top-1", "of the weights"]
    lines = []
    for row in record["rows"]:
        weights = row["weights_top1"]
        figures = [f"{row['top1']:.2f} %", "" if weights is None else f"{weights:.2f} %"]
        how = [f"{row['format']}, {row['provider']}", row["dtype"], f"{row['megabytes']:.1f}"]
        lines.append([f"`{row['model']}`", *how, *figures])
    counts = sorted({f"{row['images']:,}" for row in record["rows"]})
    origin = f"Of {' or '.join(counts)} test images. {markdown.measured(record['environment'])}"
    return "\n\n".join(
        [*markdown.made_by(record["command"]), markdown.table(header, "lllrrr", lines), origin]
    )


def _records(root: Path, kind: str, form: str) -> list[dict[str, Any]]:
    """Return the committed records of a kind."""
    return [_record(path, form) for path in committed(root, kind)]


def _record(path: Path, form: str) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ZooError(f"{path} is not JSON ({error}); measure anew.") from None
    known = isinstance(record, dict) and record.get("format") == form
    if not known or _FACTS - record.get("environment", {}).keys():
        raise ZooError(f"{path} is not a record of this version ({form}); measure anew.")
    return record
