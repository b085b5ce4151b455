"""The ways to run a model, one row of ``ENGINES`` each: as it is, compiled, or exported to a format."""

import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import nn

from export.base import RUNTIMES, ExportOptions, Runtime, runtime
from export.benchmark import sessions
from export.benchmark.engine import Bind, Bound, Engine, Setting
from export.benchmark.networks import Compiled, Eager


class Exported(Engine):
    """A format of ``export.base.RUNTIMES`` and the library that runs it.

    Args:
        name: the key there.
    """

    copies: ClassVar[bool] = True

    def __init__(self, name: str):
        self.name = name

    @property
    def runtime(self) -> Runtime:
        """The format."""
        return runtime(self.name)

    @property
    def devices(self) -> tuple[str, ...]:
        """What the format may run on."""
        return self.runtime.providers

    def available(self, device: str) -> str | None:
        """Return what the format says."""
        return self.runtime.available(device)

    def artifact(self, setting: Setting, folder: Path) -> Path | None:
        """Return a file in a folder of its own: some formats write several."""
        kind = f"{self.name}-b{setting.batch}" if setting.frozen else self.name
        return folder / kind / f"model{self.runtime.suffix}"

    def export(self, model: nn.Module, setting: Setting, path: Path) -> None:
        """Write the file, with the batch fixed or free."""
        options = ExportOptions(
            input_size=setting.input_size, batch=setting.batch if setting.frozen else None
        )
        path.parent.mkdir(parents=True)
        try:
            self.runtime.export(model, path, options)
        except BaseException:
            shutil.rmtree(path.parent)  # half an artifact must not be taken for one
            raise

    def prepare(self, model: nn.Module, setting: Setting, folder: Path) -> Bind:
        """Return the loaded artifact."""
        path = self.artifact(setting, folder)
        assert path is not None
        if not path.exists():
            self.export(model, setting, path)
        return self.load(path, setting)

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return the artifact as the format itself loads it."""
        predict = self.runtime.load(path, setting.device, setting.threads)
        return lambda images: Bound(lambda: predict(images), np.asarray)


class Onnx(Exported):
    """ONNX in onnxruntime, with the session's threads and, on CUDA, its input and output bound."""

    copies: ClassVar[bool] = False

    def load(self, path: Path, setting: Setting) -> Bind:
        """Return a session that is alone on its threads."""
        graphs = setting.cuda_graphs and setting.device == "cuda"
        session = sessions.open_session(path, setting.device, setting.threads, cuda_graphs=graphs)
        if setting.device == "cpu":
            return lambda images: Bound(lambda: sessions.run(session, images), np.asarray)
        return lambda images: Bound(*sessions.bound(session, images, "cuda"))


def refusal(name: str, device: str, dtype: str) -> str | None:
    """Return None when the engine called ``name`` can be measured so, otherwise the reason why not."""
    engine = ENGINES[name]
    if device not in engine.devices:
        return f"there is no {device} for it"
    if dtype not in engine.dtypes:
        return f"there is no {dtype} for it yet"
    if dtype == "bf16" and device != "cuda":
        return "bf16 is measured on cuda alone"
    return engine.available(device)


ENGINES: dict[str, Engine] = {
    "eager": Eager(),
    "compile": Compiled(),
    **{name: Onnx(name) if name == "onnx" else Exported(name) for name in RUNTIMES},
}
"""Every way to run a model, by name."""
