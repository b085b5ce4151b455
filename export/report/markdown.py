"""Tables and what stands around them, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.benchmark.environment import on_whole_machine


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


def measured(found: Mapping[str, Any]) -> str:
    """Return where, when and with what a record was measured.

    Args:
        found: its environment.
    """
    versions = {name: version for name, version in found["versions"].items() if version}
    facts = [
        found["date"],
        found["cpu"],
        None if on_whole_machine(found) else f"held to {found['usable_cores']} of {found['cores']} cores",
        found["gpu"],
        *(f"{name} {each}" for name, each in versions.items()),
    ]
    return f"Measured {', '.join(filter(None, facts))}; commit {found['commit'] or 'unknown'}."
