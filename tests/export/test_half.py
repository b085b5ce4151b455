"""fp16: what is in half precision, that it is the model's numbers, and that fp32 has to pass first."""

import copy
import importlib
import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import export.onnx
from export import _flow
from export.base import RUNTIMES, ExportOptions, runtime
from export.certificate import CertificateError
from export.half import in_half
from export.onnx import OnnxRuntime
from export.parity import TOLERANCE_FP16, certify, prepared, reference
from zoo.errors import ZooError
from zoo.layers import FAMILIES, DotProductConv2d, settle

SIZE = (3, 12, 10)
ONNX_TYPES = onnx.TensorProto


def here(name, provider="cpu"):
    if reason := runtime(name).available(provider):
        pytest.skip(f"{provider}: {reason}")
    return runtime(name)


def off(got, want):
    return np.abs(got - want).max() / np.abs(want).max()


@pytest.mark.parametrize("format_name", RUNTIMES)
@pytest.mark.parametrize("family", ["kw", "fgk", "dpk"])
def test_certified_after_it_passed_in_fp32(family, format_name, small, tmp_path):
    format = here(format_name)
    model, path = small(family), tmp_path / f"half{format.suffix}"
    certificate = importlib.import_module(f"export.{format_name}").export(
        model, path, input_size=SIZE, dtype="fp16"
    )
    assert certificate.passed
    assert certificate.tolerance == TOLERANCE_FP16
    assert certificate.max_rel > 1e-4  # half precision all through is not to be had for less
    in_torch = [
        check.name for check in certificate.checks if check.name.endswith(", computed in fp16 by torch")
    ]
    assert len(in_torch) == 6
    assert "darkest and brightest pixels, computed in fp16 by torch" in in_torch
    record = json.loads(_flow.certificate_path(path).read_text("utf-8"))
    assert record["in_fp32"]["passed"]
    assert record["in_fp32"]["tolerance"] == 1e-4
    stored = format.metadata(path)
    assert stored["dtype"] == "fp16"
    assert json.loads(stored["certificate"])["tolerance"] == TOLERANCE_FP16
    images = np.random.default_rng(3).standard_normal((7, *SIZE), dtype=np.float32)
    found = format.load(path)(images)
    assert found.dtype == np.float32
    assert 0 < off(found, reference(model)(images)) < TOLERANCE_FP16


@pytest.mark.parametrize("family", FAMILIES)
def test_all_between_the_two_ends_is_in_half(family, small, tmp_path):
    export.onnx.export(small(family), tmp_path / "half.onnx", input_size=SIZE, dtype="fp16")
    graph = onnx.load(tmp_path / "half.onnx").graph
    casts = [node for node in graph.node if node.op_type == "Cast"]  # torch adds up in fp32 between two
    assert list(casts[0].input) == [graph.input[0].name]
    assert list(casts[-1].output) == [graph.output[0].name]
    assert {constant.data_type for constant in graph.initializer if np.prod(constant.dims) > 1} <= {
        ONNX_TYPES.FLOAT16,
        ONNX_TYPES.INT64,
    }
    assert [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)] == (
        [ONNX_TYPES.FLOAT] * 2
    )


def test_exponentials_that_half_would_overflow_are_taken_in_fp32():
    """Bounded logits come without their maximum, up to what fp32 has room for."""
    torch.manual_seed(0)
    layer = DotProductConv2d(8, 12, 3, padding=1)
    with torch.no_grad():
        layer.in_queries.mul_(30 / layer._bounds().max())
        layer.reduce.bias.fill_(5.0)  # so that the images' logits come near what they are bounded by
    layer = settle(layer.eval())
    assert layer.bounded
    half = in_half(layer)
    images = torch.randn(2, 8, 9, 9)
    with torch.inference_mode():
        want, found = layer(images).numpy(), half(images).numpy()
    assert off(found, want) < 0.02
    logits = (layer.out_queries.unsqueeze(1) * (layer.keys[1:] - layer.keys[:1])).flatten(0, 1) / 8**0.5
    largest = ((logits * layer.reduce(images.mean(dim=(2, 3)))[0].tanh()) @ layer.in_queries.t()).max()
    assert largest > np.log(np.finfo(np.float16).max)


def test_the_model_given_is_left_as_it_is(small):
    network = prepared(small("dpk"), "auto")
    before = copy.deepcopy(network.state_dict())
    in_half(network)
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32, torch.int64}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_an_error_that_half_precision_would_hide_is_found_in_fp32(small, tmp_path, monkeypatch):
    inner = OnnxRuntime.load

    def off_by_a_thousandth(self, path, *args):
        predict = inner(self, path, *args)
        return lambda images: predict(images) * np.float32(1.001)

    monkeypatch.setattr(OnnxRuntime, "load", off_by_a_thousandth)
    options = ExportOptions(input_size=SIZE, dtype="fp16")
    with pytest.raises(CertificateError, match="relative error allowed: 1e-04"):
        _flow.export(OnnxRuntime(), small("kw"), tmp_path / "half.onnx", options)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_half_is_not_kept(small, tmp_path, monkeypatch):
    monkeypatch.setattr(_flow, "in_half", lambda network: in_half(small("kw", seed=1)))
    options = ExportOptions(input_size=SIZE, dtype="fp16")
    with pytest.raises(CertificateError, match="relative error allowed: 5e-02"):
        _flow.export(OnnxRuntime(), small("kw"), tmp_path / "half.onnx", options)
    assert list(tmp_path.iterdir()) == []


def test_an_overflow_is_found_that_a_cpu_would_not_meet(tmp_path):
    """onnxruntime computes on a CPU in fp32 what is stored in fp16."""
    torch.manual_seed(0)
    loud = nn.Conv2d(3, 8, 3, padding=1)
    quiet = FAMILIES["kw"](8, 7, 3)
    with torch.no_grad():
        loud.weight.mul_(1e5)  # its outputs are beyond 65504, and the next layer brings them back
        quiet.weight.mul_(1e-3)
        quiet.reduce.weight.mul_(1e-5)
    model = nn.Sequential(loud, nn.ReLU(), quiet, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    options = ExportOptions(input_size=SIZE, dtype="fp16")
    with pytest.raises(CertificateError, match="in fp16 by torch"):
        _flow.export(OnnxRuntime(), model, tmp_path / "half.onnx", options)
    assert list(tmp_path.iterdir()) == []


def test_an_overflow_on_one_bright_image_is_found_whatever_the_runtime_computes_in(tmp_path, monkeypatch):
    torch.manual_seed(0)
    edges = nn.Conv2d(3, 8, 3, padding=1)
    quiet = FAMILIES["kw"](8, 7, 3)
    with torch.no_grad():
        edges.weight.fill_(400.0)  # 27 values of 2 come to 21,600, of 10 to beyond 65,504
        edges.bias.zero_()
        quiet.weight.mul_(1e-3)
        quiet.reduce.weight.mul_(1e-5)
    model = nn.Sequential(edges, nn.ReLU(), quiet, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = np.random.default_rng(0).uniform(-1, 1, (32, *SIZE)).astype(np.float32)
    monkeypatch.setattr(OnnxRuntime, "load", lambda self, path, *args: reference(model))
    options = ExportOptions(input_size=SIZE, dtype="fp16")
    assert _flow.export(OnnxRuntime(), model, tmp_path / "half.onnx", options, images).passed
    images[20] = 10
    with pytest.raises(CertificateError, match="real images, computed in fp16 by torch"):
        _flow.export(OnnxRuntime(), model, tmp_path / "bright.onnx", options, images)


def test_an_operator_that_torch_lacks_in_half_is_named(small, tmp_path):
    class Normalised(nn.Module):
        def forward(self, x):
            return nn.functional.local_response_norm(x, 2)

    model = nn.Sequential(Normalised(), *small("kw")).eval()
    try:
        Normalised()(torch.zeros(1, *SIZE).half())
    except RuntimeError:
        pass
    else:
        pytest.skip("this torch has the operator")
    with pytest.raises(ZooError, match=r"fp16 cannot be certified: .*; export it in fp32"):
        export.onnx.export(model, tmp_path / "half.onnx", input_size=SIZE, dtype="fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_batch(small, tmp_path):
    path = tmp_path / "half.onnx"
    certificate = export.onnx.export(
        small("dpk"), path, input_size=SIZE, batch=3, lowering="grouped", dtype="fp16"
    )
    assert certificate.passed
    assert {check.batch for check in certificate.checks} == {3}


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("format_name", "provider"),
    [(name, provider) for name in RUNTIMES for provider in runtime(name).providers if provider != "cpu"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_parity_on_the_gpu(family, format_name, provider, small, tmp_path):
    format = here(format_name, provider)
    model, path = small(family), tmp_path / f"half{format.suffix}"
    importlib.import_module(f"export.{format_name}").export(model, path, input_size=SIZE, dtype="fp16")
    certificate = certify(
        format.load(path, provider),
        reference(model),
        SIZE,
        other_precision=reference(model, torch.float16),
        tolerance=TOLERANCE_FP16,
    )
    assert certificate.passed, certificate.summary()
