"""The machine that figures come from."""

import os
import platform
import subprocess
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]


def cpu_model() -> str | None:
    """Return the name of the processor, or None where it cannot be found.

    Virtual machines may leave the number out of it. Then its family and model follow: what bears one name can
    differ by a factor of two.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or None
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name")
    if not name:
        return platform.machine() or None
    named = name.partition("@")[0]  # what follows is the clock
    numbered = any(character.isdigit() for character in named)
    if numbered or not {"cpu family", "model"} <= facts.keys():
        return name
    return f"{name} family {facts['cpu family']} model {facts['model']}"


def usable_cores() -> int | None:
    """Return how many cores this process may run on, or None where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def commit() -> str | None:
    """Return the checkout's commit, with ``+`` where files differ from it; None outside a checkout."""
    if not (_CHECKOUT / ".git").exists():
        return None
    try:
        head, changed = (
            subprocess.run(
                ["git", *words], cwd=_CHECKOUT, capture_output=True, text=True, check=True, timeout=30
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+" if changed else head
