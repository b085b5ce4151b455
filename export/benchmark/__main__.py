"""``python -m export.benchmark``: see :mod:`export.benchmark.cli`."""

from export.benchmark.cli import main
from zoo.cli import run

if __name__ == "__main__":
    raise SystemExit(run(main))
