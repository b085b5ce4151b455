"""torch.export: ``python -m export.pt2 --model resnet18_kw`` writes a certified ``resnet18_kw.pt2``.

The file holds the model as a program of torch's operators alone, and needs torch to run, but none of this
project's code: ``torch.export.load("resnet18_kw.pt2").module()``. It is also what torch's compilers start
from, such as AOTInductor, whose library C++ loads::

    program = torch.export.load("resnet18_kw.pt2")
    torch._inductor.aoti_compile_and_package(
        program,
        package_path="resnet18_kw.aoti.pt2",
        # Any number of threads, not this process's, and no layout that is slow with small batches on a CPU.
        inductor_configs={"cpp.dynamic_threads": True, "layout_optimization": False},
    )

Such a library is for one kind of CPU or GPU, and nothing certifies it. What the file says of itself comes
with ``extra_files={"metadata.json": ""}`` of ``torch.export.load``, as JSON in place of the empty text. As
for all formats of torch, load only files that you trust.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from export import _cli, _flow, _programs
from export._torch import TorchRuntime
from export.base import FP32, ExportOptions
from export.certificate import Certificate
from zoo.cli import run


class TorchExport(TorchRuntime):
    """A program captured by torch.export, run by torch."""

    name: ClassVar[str] = "pt2"
    title: ClassVar[str] = "torch.export"
    suffix: ClassVar[str] = ".pt2"

    def export(self, model: nn.Module, path: Path, options: ExportOptions) -> None:
        """Capture ``model`` and write the program to ``path``."""
        content = io.BytesIO()  # by way of memory: on a full disk torch's own writer aborts the process
        torch.export.save(_programs.capture(model, options), content)
        path.write_bytes(content.getvalue())

    def annotate(self, path: Path, metadata: dict[str, str]) -> None:
        """Store ``metadata`` as the extra file ``metadata.json``."""
        _programs.annotate(path, metadata)

    def metadata(self, path: Path) -> dict[str, str]:
        """Return what :meth:`annotate` stored."""
        return _programs.metadata(path)

    def module(self, path: Path, device: str = "cpu") -> Callable[[Tensor], Tensor]:
        """Return the program at ``path`` as a module on ``device``."""
        program = _programs.load(path)
        if device != "cpu":
            program = move_to_device_pass(program, device)  # the tensors that it makes itself, too
        return program.module()


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
    dtype: str = FP32,
    preprocess: bool = False,
) -> Certificate:
    """Write ``model`` as a program; the rest is as for :func:`export.onnx.export`, without int8."""
    options = ExportOptions(
        lowering=lowering, batch=batch, input_size=input_size, dtype=dtype, preprocess=preprocess
    )
    return _flow.export(TorchExport(), model, path, options, images, class_names, metadata)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    runtime = TorchExport()
    return _cli.main(runtime, _cli.parser(runtime).parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(run(main))
