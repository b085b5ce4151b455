"""AOTInductor: ``python -m export.aoti --model resnet18_kw`` writes a certified ``resnet18_kw.aoti.pt2``.

torch compiles the model to a shared library for the CPU it is exported on, or one with the same instructions.
The package holds that library with the weights in it, and runs from Python or from C++ with libtorch and
without a compiler. Where :class:`AotInductor` does not run it, these are the caller's to see to: the library
takes contiguous float32 of the right size and looks at none of it, unless ``AOTI_RUNTIME_CHECK_INPUTS=1`` is in
the environment; and it is code, so load only files that you trust.
"""

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from export import _cli, _flow, _programs
from export.base import ExportOptions, Predict, Runtime, first_line
from export.certificate import Certificate
from zoo.cli import run
from zoo.errors import ZooError

_FOLDER = "data/aotinductor/"
_SETTINGS = {
    "aot_inductor.package": True,
    # Precompiled headers save a second export three seconds, cost the first six, and stay in /tmp: 50 MB.
    "aot_inductor.precompile_headers": False,
    # Otherwise the library keeps the number of threads of the process that exported it.
    "cpp.dynamic_threads": True,
    # Channels-last convolutions: those of oneDNN with small batches take twice the time.
    "layout_optimization": False,
}


class AotInductor(Runtime):
    """A program compiled by AOTInductor, run by torch."""

    name: ClassVar[str] = "aoti"
    title: ClassVar[str] = "AOTInductor"
    suffix: ClassVar[str] = ".aoti.pt2"
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    providers: ClassVar[tuple[str, ...]] = ("cpu",)

    def available(self, provider: str = "cpu") -> str | None:
        """Return None when packages can be made and run for ``provider`` here, otherwise the reason."""
        return self._refusal(provider) or _no_compiler()

    def export(self, model: nn.Module, path: Path, options: ExportOptions) -> None:
        """Capture ``model``, compile it and write the package to ``path``."""
        from torch.export.pt2_archive._package import package_pt2

        program = _programs.capture(model, options)
        shape = [options.batch, *options.example().shape[1:]]
        content = io.BytesIO()  # by way of memory: on a full disk torch's own writer aborts the process
        # A folder of our own, because torch's cache would keep the weights twice.
        with tempfile.TemporaryDirectory(prefix="aoti-") as folder:
            files = _compile(program, {"aot_inductor.output_path": folder, **_settings(shape)})
            # The sources stay out: they name local folders.
            package_pt2(content, aoti_files=[file for file in files if not file.endswith(".cpp")])
        path.write_bytes(content.getvalue())

    def annotate(self, path: Path, metadata: dict[str, str]) -> None:
        """Store ``metadata`` as the extra file ``metadata.json``."""
        _programs.annotate(path, _FOLDER, metadata)

    def metadata(self, path: Path) -> dict[str, str]:
        """Return what :meth:`annotate` stored."""
        return _programs.metadata(path, _FOLDER)

    def load(self, path: Path, provider: str = "cpu", threads: int | None = None) -> Predict:
        """Return the artifact as a function of arrays; ``threads`` holds for torch in the whole process.

        Raises:
            ZooError: also for a package that was compiled for another kind of CPU, which would crash.
        """
        if reason := self._refusal(provider):
            raise ZooError(f"cannot run {path} on {provider}: {reason}.")
        if threads is not None:
            torch.set_num_threads(threads)
        model = _load(path)
        about = model.get_metadata()
        made_for, has = about.get("AOTI_CPU_ISA", ""), torch.backends.cpu.get_cpu_capability()
        if "AVX512" in made_for and "AVX512" not in has:
            raise ZooError(f"cannot run {path}: it was compiled for {made_for}, and this CPU has {has}.")
        return _checked(model, json.loads(about["input"]))

    def _refusal(self, provider: str) -> str | None:
        if provider in self.providers:
            return None
        return f"{self.title} has no provider {provider!r} here; packages are compiled for the cpu"


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
    """Write ``model`` as a compiled package; arguments, result and errors as for :func:`export.onnx.export`.

    Compiling takes from ten seconds to minutes.
    """
    options = ExportOptions(lowering=lowering, batch=batch, input_size=input_size)
    return _flow.export(AotInductor(), model, path, options, images, class_names, metadata)


def _no_compiler() -> str | None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:
        return f"there is no C++ compiler ({first_line(error)})"
    return None


def _settings(shape: list[int | None]) -> dict[str, Any]:
    """Return what the compiler is told; ``shape`` (None for any batch) goes into the package for loading."""
    from torch._inductor import config

    settings = {**_SETTINGS, "aot_inductor.metadata": {"input": json.dumps(shape)}}
    if hasattr(config.aot_inductor, "enable_line_tables"):  # newer torch keeps them by default: a megabyte
        settings["aot_inductor.enable_line_tables"] = False
    return settings


def _compile(program: torch.export.ExportedProgram, settings: dict[str, Any]) -> list[str]:
    args, kwargs = program.example_inputs
    try:
        with torch.no_grad():
            module = program.module(check_guards=False)
            return torch._inductor.aot_compile(module, args, kwargs, options=settings)
    except Exception as error:  # a lowering, the compiler and the linker fail in classes of their own
        raise ZooError(f"AOTInductor cannot compile the model: {first_line(error)}") from error


def _load(path: Path) -> Any:
    content = _programs.read(path, _FOLDER)
    try:
        # The file itself where it has the suffix that torch insists on; torch copies a buffer to such a file.
        return torch._inductor.aoti_load_package(path if path.suffix == ".pt2" else io.BytesIO(content))
    except Exception as error:  # what torch raises depends on what of the package it cannot use
        raise ZooError(f"torch cannot load {path}: {first_line(error)}") from error


def _checked(model: Callable, shape: list[int | None]) -> Predict:
    """Return ``model`` as a function of arrays that looks at them first, because the library does not."""

    @torch.inference_mode()
    def predict(images: np.ndarray) -> np.ndarray:
        fits = len(images.shape) == len(shape) and all(
            wanted in (None, size) for wanted, size in zip(shape, images.shape, strict=True)
        )
        if not fits or images.dtype != np.float32:
            wanted = ", ".join("N" if size is None else str(size) for size in shape)
            raise ZooError(f"images of shape {images.shape}, {images.dtype}, are not ({wanted}), float32.")
        images = np.require(images, requirements=["C", "W"])
        return model(torch.from_numpy(images)).numpy()

    return predict


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    runtime = AotInductor()
    return _cli.main(runtime, _cli.parser(runtime).parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(run(main))
