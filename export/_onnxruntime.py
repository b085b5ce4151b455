"""onnxruntime sessions that run where they were asked to, or say why they cannot."""

import contextlib
import ctypes
import functools
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from export.base import first_line
from zoo.errors import ZooError


class Provider(NamedTuple):
    """What onnxruntime calls a provider, the options it is given, and what brings its libraries."""

    name: str
    options: dict[str, str]
    cure: str


PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider", {}, "pip install onnxruntime"),
    # TF32 keeps ten bits of the mantissa: fast, and far outside the tolerance of an fp32 certificate.
    "cuda": Provider("CUDAExecutionProvider", {"use_tf32": "0"}, "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
    # This provider has no such option; NVIDIA_TF32_OVERRIDE=0 in the environment keeps TensorRT from TF32.
    "tensorrt": Provider("TensorrtExecutionProvider", {}, "install NVIDIA TensorRT"),
}

_ERRORS_ONLY = 3


def session_options(threads: int | None = None) -> Any:
    """Return the ``onnxruntime.SessionOptions`` that every session here has.

    Args:
        threads: of one operator; None leaves it to onnxruntime.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    # Idle threads would spin for milliseconds on the cores of whatever runs next: another session, or torch.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def session(model: Path | bytes, provider: str = "cpu", options: Any = None, **settings: str) -> Any:
    """Return an ``onnxruntime.InferenceSession`` on exactly ``provider``.

    Args:
        model: a file, or the bytes of one.
        provider: one of :data:`PROVIDERS`.
        options: of :func:`session_options`.
        **settings: more of the provider's options.

    Raises:
        ZooError: the provider cannot run here. onnxruntime itself would fall back to the CPU and go on.
    """
    if reason := _missing(provider):
        raise ZooError(f"cannot run on {provider}: {reason}.")
    import onnxruntime

    wanted = PROVIDERS[provider]
    providers = [(wanted.name, wanted.options | settings)]
    source = model if isinstance(model, bytes) else str(model)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where onnxruntime announces its fall back
            made = onnxruntime.InferenceSession(source, options or session_options(), providers=providers)
    except Exception as error:  # onnxruntime has a class for each way to fail, and no base of its own
        what = "a model" if isinstance(model, bytes) else model
        version = onnxruntime.__version__
        raise ZooError(f"onnxruntime {version} cannot load {what}: {first_line(error)}") from error
    if wanted.name not in made.get_providers():
        raise ZooError(f"cannot run on {provider}: {_why_fell_back(provider)}.")
    made.disable_fallback()
    return made


@functools.cache
def available(provider: str = "cpu") -> str | None:
    """Return None when a session on ``provider`` really runs here, otherwise the reason it cannot."""
    if reason := _missing(provider):
        return reason
    import onnxruntime

    # The reason below says what the log would; the log would say it in four lines of stack.
    onnxruntime.set_default_logger_severity(4)
    try:
        small = session(_doubling_model(), provider)
        ran = small.run(None, {"x": np.ones((1, 1), np.float32)})[0].item() == 2
    except ZooError as error:
        return str(error).removeprefix(f"cannot run on {provider}: ").removesuffix(".")
    except Exception as error:  # as above: a device can also fail when it first runs
        return f"a session fails: {first_line(error)}"
    finally:
        onnxruntime.set_default_logger_severity(2)  # its default
    return None if ran else "a session computes 1 + 1 wrongly"


def _missing(provider: str) -> str | None:
    """Return what a session on ``provider`` would lack, as far as it shows before making one."""
    if provider not in PROVIDERS:
        return f"onnxruntime has no provider {provider!r} here; there are {', '.join(PROVIDERS)}"
    try:
        import onnxruntime
    except ImportError as error:
        return f"onnxruntime cannot be imported ({error})"
    if PROVIDERS[provider].name not in onnxruntime.get_available_providers():
        return f"this build of onnxruntime {onnxruntime.__version__} has no {PROVIDERS[provider].name}"
    if provider == "cpu":
        return None
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError as error:
        return f"there is no NVIDIA driver ({error})"
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it misses; _why_fell_back says it
            onnxruntime.preload_dlls()
    return None


def _why_fell_back(provider: str) -> str:
    """Return why onnxruntime would not use ``provider``: most often a library that is not installed."""
    import onnxruntime

    # Its own attempt must have come first: the library is not made to be loaded by anyone else.
    stem = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{provider}.so"
    try:
        ctypes.CDLL(str(stem))
    except OSError as error:
        return f"{error}; {PROVIDERS[provider].cure}"
    return "onnxruntime fell back to the CPU"


def _doubling_model() -> bytes:
    """Return an ONNX model that computes x + x."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", [x], [y])
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
