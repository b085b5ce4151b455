"""What every command shares: errors as one sentence, files written whole or not at all."""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from zoo.errors import ZooError


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run ``main(argv)``; a :class:`ZooError` or a full disk becomes one sentence on stderr and code 2."""
    try:
        return main(argv)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def check_counts(options: argparse.Namespace, *names: str) -> None:
    """Check that options, where given, are at least 1.

    Args:
        options: as parsed.
        names: of the options, as they are called in ``options``.

    Raises:
        ZooError: one of them is below 1.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ZooError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")


def check_writable(path: Path | None) -> None:
    """Raise a :class:`ZooError` for a file, where one is given, that could not be written in the end."""
    if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise ZooError(f"cannot write {path}: it is a folder, or in none that can be written to.")


def portable(word: str) -> str:
    """Shorten an absolute path to its last two parts, which mean something on other machines too."""
    return "/".join(("...", *Path(word).parts[1:][-2:])) if os.path.isabs(word) else word


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; rename it to ``path`` when the block succeeds.

    A block that raises leaves whatever stood at ``path`` as it was.

    Raises:
        ZooError: the folder does not exist or cannot be written to.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ZooError(f"cannot write {path}: it is a folder; give a file name.")
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    except OSError as error:
        raise ZooError(
            f"cannot write {path}: {error.strerror}; choose a folder that exists and is writable."
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # Last, because a writer may have replaced the file by one of its own with other rights.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
