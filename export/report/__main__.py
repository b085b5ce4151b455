"""``python -m export.report``: see :mod:`export.report.command`."""

from export.report.command import main
from zoo.cli import run

if __name__ == "__main__":
    raise SystemExit(run(main))
