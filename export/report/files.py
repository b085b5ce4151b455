"""The files that the pages are made from: those of a checkout, or else of this one."""

from pathlib import Path

from zoo.errors import ZooError

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = "benchmarks"

_MAKERS = {
    "": "python -m export.benchmark",
    "runtimes": "python -m export.benchmark --runtimes all",
    "breakdown": "python -m export.benchmark --breakdown MODEL",
    "training": "python -m zoo.training.speed",
    "artifacts": "python -m export.evaluate",
}


def committed(root: Path, kind: str = "") -> list[Path]:
    """Return what was measured of a kind, by name.

    Args:
        root: of the checkout; where it has none of the kind, they are those of this one.
        kind: a folder of :data:`FOLDER`; by default that itself.

    Raises:
        ZooError: there are none.
    """
    for folder in (root / FOLDER / kind, CHECKOUT / FOLDER / kind):
        if paths := sorted(folder.glob("*.json")):
            return paths
    raise ZooError(f"there are no results in {root / FOLDER / kind}; {_MAKERS[kind]} --json FILE makes some.")
