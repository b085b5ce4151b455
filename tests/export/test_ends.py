"""Pixels in, probabilities out: what an artifact with its preprocessing inside takes and returns."""

import importlib
import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import export.onnx
import export.torchscript
from export import _flow
from export.base import RUNTIMES, ExportOptions, runtime
from export.ends import Ends, PixelEnds, ends
from export.onnx import OnnxRuntime
from zoo.errors import ZooError

SIZE = (3, 12, 10)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture
def model(small):
    made = small("kw")
    made.pretrained_cfg = {"mean": MEAN, "std": STD}
    return made


def pixels(count):
    return np.random.default_rng(5).integers(0, 256, (count, 12, 10, 3), dtype=np.uint8)


def by_hand(model, pixels):
    """What a user of the plain model computes of pixels."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.inference_mode():
        return model(images).softmax(dim=1).numpy()


@pytest.mark.parametrize(("dtype", "error"), [("fp32", 1e-5), ("fp16", 0.02)])
@pytest.mark.parametrize("format_name", RUNTIMES)
def test_it_takes_pixels_and_returns_probabilities(format_name, dtype, error, model, tmp_path):
    format = runtime(format_name)
    if reason := format.available():
        pytest.skip(reason)
    path = tmp_path / "net"
    certificate = importlib.import_module(f"export.{format_name}").export(
        model, path, input_size=SIZE, dtype=dtype, preprocess=True
    )
    assert certificate.passed
    stored = format.metadata(path)
    assert stored["input"] == "uint8 NHWC, from 0 to 255"
    assert stored["output"] == "probabilities"
    assert json.loads(stored["mean"]) == list(MEAN)
    for count in (1, 2, 5):
        found = format.load(path)(pixels(count))
        assert found.shape == (count, 7)
        assert np.allclose(found.sum(axis=1), 1, atol=1e-3)
        assert np.abs(found - by_hand(model, pixels(count))).max() < error


def test_the_graph_says_so(model, tmp_path):
    export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE, preprocess=True)
    graph = onnx.load(tmp_path / "net.onnx").graph
    (taken,), (given,) = graph.input, graph.output
    assert (taken.name, given.name) == ("input", "probabilities")
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [dim.dim_param or dim.dim_value for dim in taken.type.tensor_type.shape.dim] == [
        "batch",
        12,
        10,
        3,
    ]


def test_another_normalisation_fails_the_certificate(model, tmp_path, monkeypatch):
    inner = OnnxRuntime.export

    def wrong(self, network, path, options):
        network.shift.add_(0.05)
        inner(self, network, path, options)

    monkeypatch.setattr(OnnxRuntime, "export", wrong)
    with pytest.raises(_flow.CertificateError):
        export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE, preprocess=True)
    assert list(tmp_path.iterdir()) == []


def test_int8_sees_its_ranges_on_pixels(small, tmp_path):
    model = small("kwb")
    model.pretrained_cfg = {"mean": MEAN, "std": STD}
    coarse = np.random.default_rng(0).standard_normal((64, 3, 4, 5), dtype=np.float32)
    images = np.ascontiguousarray(coarse.repeat(3, axis=2).repeat(2, axis=3))
    certificate = export.onnx.export(
        model, tmp_path / "net.onnx", input_size=SIZE, images=images, dtype="int8", preprocess=True
    )
    assert certificate.agreement > 0.7
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}


def test_what_is_tuned_has_the_ends_of_the_model(model, tmp_path):
    """Layers alone take no pixels."""
    path = tmp_path / "net.pt"
    certificate = export.torchscript.export(
        model, path, input_size=SIZE, batch=2, lowering="tune", preprocess=True
    )
    assert certificate.passed
    assert runtime("torchscript").load(path)(pixels(2)).shape == (2, 7)


def test_pixels_survive_their_normalisation():
    """Every value of every channel comes back, so that a certificate's images are what they seem."""
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (1, 16, 16, 3))
    images = ((ramp / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    end = PixelEnds(MEAN, STD)
    assert np.array_equal(end.given(images), ramp)
    assert end.given(10 * images).max() == 255
    assert end.given(10 * images).min() == 0


@pytest.mark.parametrize("config", [{}, {"mean": MEAN}, {"mean": MEAN[:1], "std": STD[:1]}])
def test_a_model_that_does_not_say_how_is_refused(config, small, tmp_path):
    model = small("kw")
    model.pretrained_cfg = config
    with pytest.raises(ZooError, match="give it mean and std of 3 channels, or export without preprocessing"):
        export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE, preprocess=True)
    assert list(tmp_path.iterdir()) == []


def test_without_it_nothing_stands_at_the_ends():
    model = nn.Flatten()
    end = ends(model, ExportOptions(input_size=SIZE))
    assert type(end) is Ends
    assert end.around(model) is model
