"""onnxruntime sessions for timing: pinned threads, bound inputs and outputs, profiles."""

from pathlib import Path
from typing import Any

import numpy as np

from export import _onnxruntime
from export.benchmark.engine import Bound
from export.onnx import INPUT, LOGITS
from zoo.errors import ZooError


def open_session(
    path: Path,
    device: str = "cpu",
    threads: int = 1,
    *,
    cuda_graphs: bool = False,
    profile: Path | None = None,
    optimised: Path | None = None,
) -> Any:
    """Return an ``onnxruntime.InferenceSession`` on exactly one device.

    Args:
        path: an ONNX file.
        device: a key of ``export._onnxruntime.PROVIDERS``.
        threads: of one operator; operators run one after another.
        cuda_graphs: whether its runs are recorded and replayed; inputs and outputs must then be bound.
        profile: prefix of the file that ``session.end_profiling()`` writes; None profiles nothing.
        optimised: where to write the graph that really runs.

    Raises:
        ZooError: the device cannot be used, or the file not be loaded.
    """
    if reason := _onnxruntime.available(device):
        raise ZooError(f"cannot run on {device}: {reason}.")
    options = _onnxruntime.session_options(threads)
    options.inter_op_num_threads = 1
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    settings = {"enable_cuda_graph": "1"} if cuda_graphs else {}
    return _onnxruntime.session(path, device, options, **settings)


def run(session: Any, images: np.ndarray) -> np.ndarray:
    """Return the session's output for images that lie on the CPU."""
    return session.run([LOGITS], {INPUT: images})[0]


def bound(session: Any, images: np.ndarray) -> Bound:
    """Put images and room for the result on the CUDA device, where a recorded graph expects them again."""
    import onnxruntime

    shape = len(images), session.get_outputs()[0].shape[1]
    given = onnxruntime.OrtValue.ortvalue_from_numpy(images, "cuda", 0)
    room = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input(INPUT, given)
    binding.bind_ortvalue_output(LOGITS, room)

    def call() -> None:
        session.run_with_iobinding(binding)  # it waits for the device, also where it replays a graph

    return Bound(call, lambda _: room.numpy())
