"""Programs captured by torch.export: run by torch as they are, or compiled ahead of time by AOTInductor."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from export import _programs
from export.base import FP32, ExportOptions, first_line
from export.benchmark.engine import Bind, FileEngine, Setting
from export.benchmark.networks import no_compiler, no_device, on_device
from zoo.errors import ZooError

_AOTI_SETTINGS = {
    # Otherwise the library keeps the number of threads of the process that exported it.
    "cpp.dynamic_threads": True,
    # Channels-last convolutions: those of oneDNN with small batches take twice the time.
    "layout_optimization": False,
}


class TorchExport(FileEngine):
    """A ``.pt2`` program, run operator by operator."""

    kind: ClassVar[str] = "pt2"
    suffix: ClassVar[str] = ".pt2"

    def available(self, device: str) -> str | None:
        """Return None where torch has the device."""
        return no_device(device)

    def write(self, model: nn.Module, options: ExportOptions, path: Path) -> None:
        """Capture the model and write what :meth:`save` makes of the program."""
        self.save(_programs.capture(model, options), path)

    def save(self, program: torch.export.ExportedProgram, path: Path) -> None:
        """Write the program to ``path``."""
        torch.export.save(program, path)

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return the program as a module on the device."""
        try:
            program = torch.export.load(path)
        except Exception as error:  # what torch raises depends on what of the archive it cannot read
            raise ZooError(f"torch cannot load {path.name}: {first_line(error)}") from error
        if setting.device != "cpu":
            program = move_to_device_pass(program, setting.device)  # the tensors that it makes itself, too
        return on_device(program.module(), setting)


class AotInductor(TorchExport):
    """The program compiled to a shared library for this machine's CPU."""

    kind: ClassVar[str] = "aoti"
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    dtypes: ClassVar[tuple[str, ...]] = (FP32,)
    slow: ClassVar[bool] = True

    def available(self, device: str) -> str | None:
        """Return None where there is a compiler."""
        return no_compiler()

    def save(self, program: torch.export.ExportedProgram, path: Path) -> None:
        """Compile the program into the package at ``path``."""
        try:
            with torch.no_grad():
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(path), inductor_configs=_AOTI_SETTINGS
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
