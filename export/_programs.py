"""Programs captured by torch.export, and the PT2 archives that torch keeps them in."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.base import ExportOptions, first_line
from zoo.errors import ZooError

_METADATA = "extra/metadata.json"
_PROGRAMS = "models/"
_WRITTEN_BY_TORCH = (".data/", "byteorder")


def capture(model: nn.Module, options: ExportOptions) -> torch.export.ExportedProgram:
    """Return ``model`` as a program of torch's operators alone.

    Raises:
        ZooError: torch.export cannot express the model.
    """
    axes = {0: torch.export.Dim("batch")} if options.batch is None else None
    try:
        with torch.no_grad():
            program = torch.export.export(model, (options.example(),), dynamic_shapes=(axes,))
    except Exception as error:  # torch.export has a class for each way to fail, and no base of its own
        raise ZooError(f"torch.export cannot express the model: {first_line(error)}") from error
    _forget_sources(program)
    return program


def load(path: Path) -> torch.export.ExportedProgram:
    """Return the program in the archive at ``path``.

    Raises:
        ZooError: there is no archive, or it holds no program, or a damaged one.
    """
    _reader(path)
    loader = logging.getLogger("torch.export")
    hushed, loader.disabled = loader.disabled, True  # it logs a stack trace, and its error says to read that
    try:
        with path.open("rb") as file:  # of a path torch wants that it ends in .pt2
            return torch.export.load(file)
    except Exception as error:  # what torch raises depends on what of the archive it cannot read
        reason = first_line(error).removesuffix("Please check the warnings above for possible errors. ")
        raise ZooError(f"torch cannot load {path}: {reason.strip()}") from error
    finally:
        loader.disabled = hushed


def annotate(path: Path, metadata: dict[str, str]) -> None:
    """Store ``metadata`` in the archive at ``path``; all else stays as it is, byte for byte."""
    from torch.export.pt2_archive import PT2ArchiveWriter

    reader = _reader(path)
    content = io.BytesIO()  # by way of memory: on a full disk torch's own writer aborts the process
    with PT2ArchiveWriter(content) as writer:
        for name in reader.get_file_names():
            if name != _METADATA and not name.startswith(_WRITTEN_BY_TORCH):
                writer.write_bytes(name, reader.read_bytes(name))
        writer.write_string(_METADATA, json.dumps(metadata))
    path.write_bytes(content.getvalue())


def metadata(path: Path) -> dict[str, str]:
    """Return what :func:`annotate` stored."""
    reader = _reader(path)
    return json.loads(reader.read_string(_METADATA)) if _METADATA in reader.get_file_names() else {}


def _reader(path: Path) -> Any:
    """Return torch's reader of the archive at ``path``.

    Raises:
        ZooError: there is none, or it holds no program.
    """
    from torch.export.pt2_archive import PT2ArchiveReader, is_pt2_package

    try:
        path.open("rb").close()
    except OSError as error:
        raise ZooError(f"cannot load {path}: {error.strerror}.") from error
    if not is_pt2_package(str(path)):
        raise ZooError(f"cannot load {path}: it is not a PT2 archive; python -m export.pt2 writes one.")
    try:
        reader: Any = PT2ArchiveReader(str(path))
    except RuntimeError as error:
        raise ZooError(f"cannot load {path}: {first_line(error)}") from error
    if not any(name.startswith(_PROGRAMS) for name in reader.get_file_names()):
        raise ZooError(
            f"cannot load {path}: it is a PT2 archive without a program; python -m export.pt2 writes one."
        )
    return reader


def _forget_sources(program: torch.export.ExportedProgram) -> None:
    """Drop the stack traces torch leaves on every node: they double small files and name local folders."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
