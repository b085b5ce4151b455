"""torch.export: ``python -m export.pt2 --model resnet18_kw`` writes a certified ``resnet18_kw.pt2``.

The file holds the model as a program of torch's operators alone. It runs in Python with torch and without this
project's code: ``torch.export.load("resnet18_kw.pt2").module()``; it can also be compiled for other devices.
As for every format of torch, load only files that you trust.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from export import _cli, _flow, _programs
from export.base import ExportOptions, Predict, Runtime, first_line
from export.certificate import Certificate
from export.parity import to_tensor
from export.torchscript import _no_tf32
from zoo.cli import run
from zoo.errors import ZooError

_FOLDER = "models/"


class TorchExport(Runtime):
    """A program captured by torch.export, run by torch."""

    name: ClassVar[str] = "pt2"
    title: ClassVar[str] = "torch.export"
    suffix: ClassVar[str] = ".pt2"
    packages: ClassVar[tuple[str, ...]] = ("torch",)

    def available(self, provider: str = "cpu") -> str | None:
        """Return None when artifacts run on ``provider`` here, otherwise the reason they cannot."""
        if provider not in self.providers:
            return f"{self.title} has no provider {provider!r}; it has {' and '.join(self.providers)}"
        if provider == "cuda" and not torch.cuda.is_available():
            return "torch finds no CUDA device" if torch.version.cuda else "this torch is built without CUDA"
        return None

    def export(self, model: nn.Module, path: Path, options: ExportOptions) -> None:
        """Capture ``model`` and write the program to ``path``."""
        content = io.BytesIO()  # by way of memory: on a full disk torch's own writer aborts the process
        torch.export.save(_programs.capture(model, options), content)
        path.write_bytes(content.getvalue())

    def annotate(self, path: Path, metadata: dict[str, str]) -> None:
        """Store ``metadata`` as the extra file ``metadata.json``."""
        _programs.annotate(path, _FOLDER, metadata)

    def metadata(self, path: Path) -> dict[str, str]:
        """Return what :meth:`annotate` stored."""
        return _programs.metadata(path, _FOLDER)

    def load(self, path: Path, provider: str = "cpu", threads: int | None = None) -> Predict:
        """Return the artifact as a function of arrays; ``threads`` holds for torch in the whole process."""
        if reason := self.available(provider):
            raise ZooError(f"cannot run {path} on {provider}: {reason}.")
        if threads is not None:
            torch.set_num_threads(threads)
        content = _programs.read(path, _FOLDER)
        try:
            program = torch.export.load(io.BytesIO(content))
        except Exception as error:  # what torch raises depends on what of the archive it cannot read
            raise ZooError(f"torch cannot load {path}: {first_line(error)}") from error
        if provider != "cpu":
            # Parameters alone can be moved as a module's; this also moves what the program makes itself.
            program = torch.export.passes.move_to_device_pass(program, provider)
        module = program.module()

        @torch.inference_mode()
        def predict(images: np.ndarray) -> np.ndarray:
            with _no_tf32() if provider == "cuda" else contextlib.nullcontext():
                return module(to_tensor(images).to(provider)).cpu().numpy()

        return predict


def export(
    model: nn.Module | str,
    path: str | Path,
    *,
    lowering: str = "auto",
    batch: int | None = None,
    input_size: tuple[int, int, int] | None = None,
    images: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    metadata: dict[str, str] | None = None,
) -> Certificate:
    """Write ``model`` as a program; arguments, result and errors as for :func:`export.onnx.export`."""
    options = ExportOptions(lowering=lowering, batch=batch, input_size=input_size)
    return _flow.export(TorchExport(), model, path, options, images, class_names, metadata)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    runtime = TorchExport()
    return _cli.main(runtime, _cli.parser(runtime).parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(run(main))
