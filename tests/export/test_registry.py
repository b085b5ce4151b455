"""Every registered model, in every format, on every provider, at batch sizes unlike the traced one."""

import importlib

import numpy as np
import pytest
import torch

import zoo
from export.base import RUNTIMES, runtime
from export.onnx import OnnxRuntime
from tests.models.registry import MODELS, SMALL, parts

#: Besides the small backbones: what has published weights, and modules in each place of a network.
QUICK = ("kw", "fgk", "dpk", "se", "ge_plus", "bam", "sk", "mhsa")


def is_deep(name: str) -> bool:
    backbone, made = parts(name)
    return backbone not in SMALL and not (backbone == "resnet18" and made in QUICK)


def is_quick(name: str, format_name: str) -> bool:
    backbone, _ = parts(name)
    if format_name == "onnx":
        return not is_deep(name)
    return backbone in SMALL if format_name == "torchscript" else backbone == "resnet10"


def reads_onnx(format_name: str) -> bool:
    """Tell whether this is another reader of ONNX: it gets the graph tried as ONNX, of fewer models."""
    return format_name != "onnx" and isinstance(runtime(format_name), OnnxRuntime)


RUNS = [
    pytest.param(
        name,
        format_name,
        provider,
        marks=[
            *([] if is_quick(name, format_name) else [pytest.mark.slow]),
            *([] if provider == "cpu" else [pytest.mark.cuda]),
        ],
    )
    for format_name in RUNTIMES
    for provider in runtime(format_name).providers
    for name in MODELS
    if not (is_deep(name) and reads_onnx(format_name))
]


@pytest.mark.parametrize(("name", "format_name", "provider"), RUNS)
def test_every_model_is_right_at_every_batch_size(name, format_name, provider, stir, tmp_path):
    if reason := runtime(format_name).available(provider):
        pytest.skip(f"{provider}: {reason}")
    torch.manual_seed(0)
    model = stir(zoo.create_model(name))
    path = tmp_path / "model"
    certificate = importlib.import_module(f"export.{format_name}").export(model, path)
    assert certificate.max_rel <= 1e-4
    predict = runtime(format_name).load(path, provider)
    random = np.random.default_rng(9)
    for batch in (1, 2, 3, 5, 8):
        images = random.standard_normal((batch, 3, 32, 32), dtype=np.float32)
        with torch.inference_mode():
            want = model(torch.from_numpy(images)).numpy()
        got = predict(images)
        assert got.shape == want.shape == (batch, 10)
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max(), batch
