"""Sessions on providers: the one that was asked for, or an error that says why not."""

import numpy as np
import onnxruntime
import pytest

import export.onnx
from export import _onnxruntime
from export.base import runtime
from export.benchmark.sessions import open_session
from export.parity import certify, reference
from zoo.errors import ZooError
from zoo.layers import FAMILIES

SIZE = (3, 12, 10)


def test_the_cpu_provider_runs():
    assert _onnxruntime.available("cpu") is None


def test_idle_threads_leave_the_cores_to_others(small, tmp_path):
    path = tmp_path / "net.onnx"
    export.onnx.export(small("kw"), path, input_size=SIZE)
    for session in (_onnxruntime.session(path), open_session(path)):
        entry = session.get_session_options().get_session_config_entry("session.force_spinning_stop")
        assert entry == "1"


def test_a_provider_missing_from_the_build_is_named(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ZooError, match=r"this build of onnxruntime .* has no CUDAExecutionProvider"):
        _onnxruntime.session(b"", "cuda")


def test_a_silent_fall_back_is_an_error(monkeypatch):
    class OnCpu:
        def __init__(self, *args, **kwargs):
            print("EP Error: falling back")

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(_onnxruntime, "_missing", lambda provider: None)
    monkeypatch.setattr(_onnxruntime, "_why_fell_back", lambda provider: "libcurand is missing")
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnCpu)
    with pytest.raises(ZooError, match="cannot run on cuda: libcurand is missing"):
        _onnxruntime.session(b"", "cuda")


def test_a_device_that_fails_when_it_runs_is_not_available(monkeypatch):
    class Failing:
        def run(self, *args):
            raise RuntimeError("out of memory\nand a long story")

    monkeypatch.setattr(_onnxruntime, "session", lambda *args: Failing())
    _onnxruntime.available.cache_clear()
    assert _onnxruntime.available("cpu") == "a session fails: out of memory"
    _onnxruntime.available.cache_clear()


@pytest.mark.cuda
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parity_on_the_gpu(small, tmp_path, family, provider):
    if reason := _onnxruntime.available(provider):
        pytest.skip(f"{provider}: {reason}")
    model, path = small(family), tmp_path / "net.onnx"
    export.onnx.export(model, path, input_size=SIZE)
    predict = runtime("onnx").load(path, provider=provider)
    certificate = certify(predict, reference(model), SIZE)
    assert certificate.passed, certificate.summary()
    assert predict(np.zeros((5, *SIZE), np.float32)).shape == (5, 7)
