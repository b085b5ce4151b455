"""The one error type that commands turn into a sentence and exit code 2."""

import difflib
from collections.abc import Iterable


class ZooError(ValueError):
    """Bad input: one sentence that names what was wrong and what to do.

    Commands print it without a traceback and exit with code 2; Python callers
    can catch it as a ``ValueError``.
    """


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return ``" Did you mean a, b?"`` for the known names closest to ``name``, or ``""``."""
    close = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f" Did you mean {', '.join(close)}?" if close else ""
