"""Tables and what stands around them, as Markdown."""

from collections.abc import Sequence


def table(header: Sequence[str], align: str, lines: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table; ``align`` has an ``l`` or ``r`` for each column."""
    rule = "|".join("--:" if side == "r" else "---" for side in align)
    return "\n".join(
        [f"| {' | '.join(header)} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)]
    )


def folded(title: str, text: str) -> str:
    """Return Markdown that opens at a click."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def made_by(command: str) -> list[str]:
    """Return the command that made a file, as Markdown; nothing where the file does not say."""
    return [f"```sh\n{command}\n```"] if command else []
