"""The machine that figures come from."""

import platform
from pathlib import Path


def cpu_model() -> str | None:
    """Return the name of the processor, or None where it cannot be found."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine() or None
