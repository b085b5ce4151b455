"""Programs captured by torch.export and compiled ahead of time by AOTInductor."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from export import _programs
from export.base import FP32, ExportOptions, first_line
from export.benchmark.engine import Bind, FileEngine, Setting
from export.benchmark.networks import no_compiler, on_device
from zoo.errors import ZooError

SETTINGS = {
    # Otherwise the library keeps the number of threads of the process that exported it.
    "cpp.dynamic_threads": True,
    # Channels-last convolutions: those of oneDNN with small batches take twice the time.
    "layout_optimization": False,
}


class AotInductor(FileEngine):
    """A program compiled to a shared library for this machine's CPU."""

    kind: str = "aoti"
    suffix: str = ".pt2"
    devices: tuple[str, ...] = ("cpu",)
    dtypes: tuple[str, ...] = (FP32,)
    slow: bool = True

    def available(self, device: str) -> str | None:
        """Return None where there is a compiler."""
        return no_compiler()

    def write(self, model: nn.Module, options: ExportOptions, path: Path) -> None:
        """Capture the model and compile the program into the package at ``path``."""
        program = _programs.capture(model, options)
        try:
            with torch.no_grad():
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(path), inductor_configs=SETTINGS
                )
        except Exception as error:  # a lowering, the compiler and the linker fail in classes of their own
            raise ZooError(f"AOTInductor cannot compile the model: {first_line(error)}") from error

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return the library as a function."""
        try:
            library: Any = torch._inductor.aoti_load_package(str(path))
        except Exception as error:  # as above
            raise ZooError(f"torch cannot load {path.name}: {first_line(error)}") from error
        return on_device(library, setting)
