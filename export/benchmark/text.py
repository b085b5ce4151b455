"""Columns of text."""

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]], align: str, indent: str = "") -> str:
    """Pad the cells of every line to columns.

    Args:
        lines: all with as many cells.
        align: an ``l`` or ``r`` for each column.
        indent: opens every line.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        [
            cell.ljust(width) if side == "l" else cell.rjust(width)
            for cell, width, side in zip(line, widths, align, strict=True)
        ]
        for line in lines
    )
    return "\n".join(f"{indent}{'  '.join(cells)}".rstrip() for cells in padded)


def threads_of(count: int, cores: str = "") -> str:
    """Return ``1 thread``, ``2 threads``, ``2 threads, cores near``."""
    return f"{count} thread{'s' if count > 1 else ''}{f', cores {cores}' if cores else ''}"
