import contextlib
import gc
import weakref
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from export.base import RUNTIMES
from export.benchmark import networks
from export.benchmark.engine import FileEngine, Setting
from export.benchmark.engines import ENGINES, engines, refusal
from export.benchmark.networks import Compiled
from export.torchscript import TorchScript
from zoo.errors import ZooError

SIZE = (3, 32, 32)
FILES = [name for name, engine in ENGINES.items() if isinstance(engine, FileEngine)]
#: Those that call a C++ compiler.
SLOW = ("compile", "aoti")


def runs_here(name, device="cpu"):
    if reason := refusal(name, device, "fp32"):
        pytest.skip(f"{name} on {device}: {reason}")
    return ENGINES[name]


def images(batch):
    return np.random.default_rng(batch).standard_normal((batch, *SIZE), dtype=np.float32)


def answer(engine, subjects, setting, folder, lowering="unfold"):
    """Return what an engine computes of a batch that is called twice, for a call must not spoil the next."""
    bind = engine.prepare(subjects.deployed("benchnet_kw", lowering), setting, folder)
    bound = bind(images(setting.batch))
    bound.call()
    return bound.fetch(bound.call())


@pytest.mark.parametrize("name", [name for name in ENGINES if name not in SLOW])
def test_every_engine_computes_the_model(name, subjects, tmp_path):
    batch = 3
    found = answer(runs_here(name), subjects, Setting(SIZE, batch), tmp_path)
    assert found.shape == (batch, 10)
    assert found.dtype == np.float32
    assert np.allclose(found, subjects.expected("benchnet_kw")(images(batch)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype", "error"),
    [
        *((name, "fp16", 0.02) for name in ENGINES if name not in SLOW),
        ("onnx", "int8", 0.5),
        ("openvino", "int8", 0.5),
    ],
)
def test_another_dtype_has_a_file_of_its_own_and_computes_the_model_nearly(
    name, dtype, error, subjects, tmp_path
):
    engine, setting = runs_here(name), Setting(SIZE, 3, dtype=dtype)
    plain = replace(setting, dtype="fp32")
    if isinstance(engine, FileEngine):
        assert engine.artifact(setting, tmp_path) != engine.artifact(plain, tmp_path)
    found, exact = answer(engine, subjects, setting, tmp_path), answer(engine, subjects, plain, tmp_path)
    assert not np.array_equal(found, exact)
    assert np.abs(found - exact).max() < error * np.abs(exact).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_compiled_engines_compute_the_model(name, subjects, tmp_path):
    found = answer(runs_here(name), subjects, Setting(SIZE, 3), tmp_path)
    assert np.allclose(found, subjects.expected("benchnet_kw")(images(3)), rtol=1e-3, atol=1e-4)


def test_torch_compile_takes_many_networks_of_one_class(subjects, tmp_path, monkeypatch):
    """More than torch keeps for one code object; without inductor, which takes long."""
    monkeypatch.setattr(Compiled, "backend", "eager")
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    for batch in (1, 2, 3):
        answer(Compiled(), subjects, Setting(SIZE, batch), tmp_path)


def test_what_torch_compile_cannot_do_is_one_sentence(tmp_path):
    class Branches(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    bound = ENGINES["compile"].prepare(Branches(), Setting(SIZE), tmp_path)(images(1))
    with pytest.raises(ZooError, match=r"^torch\.compile cannot compile the model: .*$"):
        bound.call()


@pytest.mark.parametrize("name", [name for name in FILES if name not in SLOW])
def test_a_file_is_written_once_and_for_a_frozen_batch_anew(name, subjects, tmp_path, monkeypatch):
    engine = runs_here(name)
    free, frozen = Setting(SIZE, 2), Setting(SIZE, 2, frozen=True)
    assert engine.artifact(free, tmp_path) == engine.artifact(replace(free, batch=5), tmp_path)
    assert engine.artifact(free, tmp_path) != engine.artifact(frozen, tmp_path)
    answer(engine, subjects, frozen, tmp_path, "grouped")
    monkeypatch.setattr(type(engine), "export", None)
    answer(engine, subjects, frozen, tmp_path, "grouped")
    with pytest.raises(TypeError):
        answer(engine, subjects, free, tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_one_sentence(name, tmp_path):
    engine = runs_here(name)
    path = tmp_path / f"model{engine.suffix}"
    path.write_bytes(b"no model")
    with pytest.raises(ZooError, match=rf"cannot load (\S*/)?{path.name}[^\n]*$"):
        engine.load(path, Setting(SIZE))


@pytest.mark.parametrize("name", FILES)
def test_half_a_file_is_not_left(name, tmp_path, monkeypatch):
    class Untraceable(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("no way")

    engine, setting = runs_here(name), Setting(SIZE)
    model = Untraceable().eval()
    with pytest.raises(ZooError, match="cannot express the model"):
        engine.prepare(model, setting, tmp_path)
    assert files(tmp_path) == []

    def interrupted(model, options, half):
        half.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.prepare(model, setting, tmp_path)
    assert files(tmp_path) == []


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


class Another(TorchScript):
    """A format that the benchmark has no row for."""

    name = "another"
    suffix = ".another"


def test_a_format_without_a_row_runs_as_it_does_by_itself(subjects, tmp_path, monkeypatch):
    monkeypatch.setitem(RUNTIMES, "another", f"{__name__}:Another")
    engine = engines()["another"]
    assert engine.available("cpu") is None
    found = answer(engine, subjects, Setting(SIZE, 3), tmp_path)
    assert [path.suffix for path in files(tmp_path)] == [".another"]
    assert np.allclose(found, subjects.expected("benchnet_kw")(images(3)), rtol=1e-3, atol=1e-4)


def test_reasons_name_what_there_is_instead():
    assert refusal("openvino", "cuda", "fp32") == "it has no cuda, only cpu"
    assert refusal("onnx", "cpu", "bf16") == "there is no bf16 for it yet"
    assert refusal("onnx", "cpu", "fp16") is None
    assert refusal("torchscript", "cpu", "fp16") == "fp16 is measured on cuda alone"


def test_a_recorded_graph_keeps_what_it_reads(monkeypatch):
    """Its network and images lie in memory that others would be given otherwise."""
    for name in ("Stream", "current_stream", "CUDAGraph", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *args, **options: contextlib.nullcontext())
    network, images = torch.nn.Linear(2, 2), torch.zeros(1, 2)
    call = networks._recorded(network, images)
    read = weakref.ref(network), weakref.ref(images)
    del network, images
    gc.collect()
    assert call().shape == (1, 2)
    assert None not in [each() for each in read]


@pytest.mark.cuda
@pytest.mark.parametrize(("dtype", "error"), [("fp32", 1e-2), ("fp16", 5e-2)])
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("name", [name for name, engine in ENGINES.items() if "cuda" in engine.devices])
def test_every_engine_computes_the_model_on_cuda(name, graphs, dtype, error, subjects, tmp_path):
    setting = Setting(SIZE, 3, "cuda", dtype, cuda_graphs=graphs)
    found = answer(runs_here(name, "cuda"), subjects, setting, tmp_path)
    assert np.allclose(found, subjects.expected("benchnet_kw")(images(3)), rtol=error, atol=error / 10)
