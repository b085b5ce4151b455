"""The ways to run a model, one row of ``ENGINES`` each: as it is, compiled, or exported to a format."""

from export.base import RUNTIMES, runtime
from export.benchmark.engine import Engine
from export.benchmark.formats import Exported, InOnnxRuntime, InOpenVino, InTorch
from export.benchmark.inductor import AotInductor
from export.benchmark.networks import Compiled, Eager
from export.onnx import OnnxRuntime
from export.openvino import OpenVino
from export.pt2 import TorchExport
from export.torchscript import TorchScript


def engines() -> dict[str, Engine]:
    """Return every way to run a model, by name; a format without a row here runs as it does by itself."""
    own: dict[str, Engine] = {
        "eager": Eager(),
        "compile": Compiled(),
        "torchscript": InTorch(TorchScript()),
        "pt2": InTorch(TorchExport()),
        "aoti": AotInductor(),
        "onnx": InOnnxRuntime(OnnxRuntime()),
        "openvino": InOpenVino(OpenVino()),
    }
    return own | {name: Exported(runtime(name)) for name in RUNTIMES if name not in own}


ENGINES = engines()


def refusal(name: str, device: str, dtype: str) -> str | None:
    """Return None when the engine called ``name`` can be measured so, otherwise the reason why not."""
    engine = ENGINES[name]
    if device not in engine.devices:
        return f"it has no {device}, only {', '.join(engine.devices)}"
    if dtype not in engine.dtypes:
        return f"there is no {dtype} for it yet"
    if dtype in engine.dtypes_of_cuda and device != "cuda":
        return f"{dtype} is measured on cuda alone"
    return engine.available(device)
