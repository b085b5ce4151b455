"""TorchScript: ``python -m export.torchscript --model resnet18_kw`` writes a certified ``resnet18_kw.pt``.

The model is traced, frozen (batch normalisation folds into the convolutions) and certified; it needs torch to
run, from Python or from C++, and none of this project's code.
"""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from export import _cli, _flow, _script_sizes
from export._torch import TorchRuntime, no_tf32
from export.base import FP32, ExportOptions, first_line
from export.certificate import Certificate
from zoo.cli import run
from zoo.errors import ZooError

_METADATA = "metadata.json"


class TorchScript(TorchRuntime):
    """Traced and frozen TorchScript, run by torch."""

    name: ClassVar[str] = "torchscript"
    title: ClassVar[str] = "TorchScript"
    suffix: ClassVar[str] = ".pt"

    def export(self, model: nn.Module, path: Path, options: ExportOptions) -> None:
        """Trace ``model`` and write it frozen to ``path``.

        A trace notes of every convolution whether it may use TF32, and keeps to it wherever it runs.
        """
        with _quiet(), torch.no_grad(), no_tf32():
            try:
                # The certificate checks the trace, on more than the traced input.
                traced = torch.jit.trace(model, options.example(), check_trace=False)
            except RuntimeError as error:
                raise ZooError(f"torch.jit.trace cannot express the model: {first_line(error)}") from error
            frozen = torch.jit.freeze(_own(traced))
            _script_sizes.simplify(frozen.graph)
            _save(frozen, path)

    def annotate(self, path: Path, metadata: dict[str, str]) -> None:
        """Store ``metadata`` as the extra file ``metadata.json``."""
        _save(_load(path), path, {_METADATA: json.dumps(metadata)})

    def metadata(self, path: Path) -> dict[str, str]:
        """Return what :meth:`annotate` stored."""
        files = {_METADATA: ""}
        _load(path, files=files)
        return json.loads(files[_METADATA]) if files[_METADATA] else {}

    def module(self, path: Path, device: str = "cpu") -> torch.jit.ScriptModule:
        """Return the frozen module at ``path`` on ``device``."""
        return _load(path, device)


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
    """Write ``model`` as TorchScript; the rest is as for :func:`export.onnx.export`, without int8."""
    options = ExportOptions(
        lowering=lowering, batch=batch, input_size=input_size, dtype=dtype, preprocess=preprocess
    )
    return _flow.export(TorchScript(), model, path, options, images, class_names, metadata)


def _load(path: Path, device: str = "cpu", files: dict[str, str] | None = None) -> torch.jit.ScriptModule:
    try:
        with _quiet():
            return torch.jit.load(str(path), map_location=device, _extra_files=files)
    except (OSError, RuntimeError, ValueError) as error:
        raise ZooError(f"torch cannot load {path} as TorchScript: {first_line(error)}") from error


def _own(traced: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """Return ``traced`` as loaded: what torch freezes otherwise, it keeps until the process ends."""
    content = io.BytesIO()
    with _quiet():
        torch.jit.save(traced, content)
        content.seek(0)
        return torch.jit.load(content)


def _save(module: torch.jit.ScriptModule, path: Path, files: dict[str, str] | None = None) -> None:
    content = io.BytesIO()  # by way of memory: on a full disk torch's own writer aborts the process
    with _quiet():
        torch.jit.save(module, content, _extra_files=files)
    path.write_bytes(content.getvalue())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hush the advice to leave TorchScript, and the tracer: what it warns of, the certificate measures."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is (deprecated|not supported)")
        warnings.simplefilter("ignore", category=torch.jit.TracerWarning)
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    runtime = TorchScript()
    return _cli.main(runtime, _cli.parser(runtime).parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(run(main))
