"""The ways to run a model, one row of ``ENGINES`` each: as it is, compiled, or exported to a format."""

from export.benchmark.engine import Engine
from export.benchmark.formats import Onnx, Program, Script
from export.benchmark.inductor import AotInductor
from export.benchmark.networks import Compiled, Eager
from export.benchmark.openvino import OpenVinoEngine

ENGINES: dict[str, Engine] = {
    "eager": Eager(),
    "compile": Compiled(),
    "torchscript": Script(),
    "pt2": Program(),
    "aoti": AotInductor(),
    "onnx": Onnx(),
    "openvino": OpenVinoEngine(),
}
"""Every way to run a model, by name."""


def refusal(name: str, device: str, dtype: str) -> str | None:
    """Return None when the engine called ``name`` can be measured so, otherwise the reason why not."""
    engine = ENGINES[name]
    if device not in engine.devices:
        return f"it has no {device}, only {' and '.join(engine.devices)}"
    if dtype not in engine.dtypes:
        return f"there is no {dtype} for it yet"
    if dtype in engine.dtypes_of_cuda and device != "cuda":
        return f"{dtype} is measured on cuda alone"
    return engine.available(device)
