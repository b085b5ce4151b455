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
from export._trials import PixelDraws
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
        if options.preprocess:
            network.shift.add_(0.05)
        inner(self, network, path, options)

    monkeypatch.setattr(OnnxRuntime, "export", wrong)
    with pytest.raises(_flow.CertificateError):
        export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE, preprocess=True)
    assert list(tmp_path.iterdir()) == []


def test_the_network_passes_with_its_own_ends_first(model, tmp_path, monkeypatch):
    """A softmax near one hides what is wrong with logits: here by a twentieth."""
    with torch.no_grad():
        model[-1].weight.mul_(3000)
    inner = OnnxRuntime.export

    def wrong(self, network, path, options):
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        linear.weight.mul_(1.05)
        inner(self, network, path, options)
        linear.weight.div_(1.05)

    monkeypatch.setattr(OnnxRuntime, "export", wrong)
    with pytest.raises(_flow.CertificateError) as caught:
        export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE, preprocess=True)
    assert len(caught.value.certificate.failures) > 10


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_the_record_has_every_step(dtype, model, tmp_path):
    path = tmp_path / "net.onnx"
    export.onnx.export(model, path, input_size=SIZE, dtype=dtype, preprocess=True)
    record = json.loads(_flow.certificate_path(path).read_text("utf-8"))
    assert [key for key in record if key.startswith("in_")] == list(dict.fromkeys(["in_fp32", f"in_{dtype}"]))
    names = [check["name"] for check in record["checks"]]
    assert "memory order NCHW" in names
    assert "all white" in names
    assert not any("magnitude" in name for name in names)
    assert "magnitude 10" in [check["name"] for check in record["in_fp32"]["checks"]]


def test_the_artifact_sees_every_layout_of_pixels(model, tmp_path, monkeypatch):
    seen = []
    inner = OnnxRuntime.load

    def watched(self, path, *args):
        predict = inner(self, path, *args)
        return lambda images: seen.append((images.dtype, images.strides)) or predict(images)

    monkeypatch.setattr(OnnxRuntime, "load", watched)
    export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE, preprocess=True)
    layouts = {strides for dtype, strides in seen if dtype == np.uint8}
    height, width, channels = 12, 10, 3
    image = height * width * channels
    assert (image, width * channels, channels, 1) in layouts
    assert (image, width, 1, height * width) in layouts
    assert (2 * image, width * channels, channels, 1) in layouts


def test_the_model_given_keeps_its_modes(model, tmp_path):
    model.train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE, preprocess=True)
    assert [module.training for module in model.modules()] == before
    PixelEnds(MEAN, STD).around(model)
    assert [module.training for module in model.modules()] == before


def test_one_output_has_no_probabilities(small, tmp_path):
    model = nn.Sequential(*small("kw")[:-1], nn.Linear(small("kw")[-1].in_features, 1)).eval()
    model.pretrained_cfg = {"mean": MEAN, "std": STD}
    with pytest.raises(ZooError, match="has one output, and the softmax of one is 1 whatever the image"):
        export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE, preprocess=True)
    assert export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE).passed


def test_the_command_makes_it(tmp_path, capsys):
    path = tmp_path / "net.onnx"
    words = ["--model", "resnet10_fgk", "--no-pretrained", "--preprocess", "--output", str(path)]
    assert export.onnx.main(words) == 0
    assert "taking pixels" in capsys.readouterr().out
    assert runtime("onnx").load(path)(np.zeros((2, 32, 32, 3), np.uint8)).sum() == pytest.approx(2, abs=1e-5)


def test_int8_sees_its_ranges_on_pixels(small, tmp_path):
    model = small("kwb")
    model.pretrained_cfg = {"mean": MEAN, "std": STD}
    coarse = np.random.default_rng(0).standard_normal((64, 3, 4, 5), dtype=np.float32)
    images = np.ascontiguousarray(coarse.repeat(3, axis=2).repeat(2, axis=3))
    certificate = export.onnx.export(
        model, tmp_path / "net.onnx", input_size=SIZE, images=images, dtype="int8", preprocess=True
    )
    assert certificate.agreement > 0.7
    record = json.loads(_flow.certificate_path(tmp_path / "net.onnx").read_text("utf-8"))
    assert [key for key in record if key.startswith("in_")] == ["in_fp32", "in_int8"]
    assert record["in_int8"]["tolerance"] == record["tolerance"] == 0.25
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}


def test_what_is_tuned_has_the_ends_of_the_model(model, tmp_path):
    """Layers alone take no pixels."""
    path = tmp_path / "net.pt"
    certificate = export.torchscript.export(
        model, path, input_size=SIZE, batch=2, lowering="tune", preprocess=True
    )
    assert certificate.passed
    assert runtime("torchscript").load(path)(pixels(2)).shape == (2, 7)


def test_black_and_white_are_as_far_as_normalised_pixels_go():
    low, high = PixelEnds(MEAN, STD).pixels
    assert low == pytest.approx([-0.5 / 0.2, -0.4 / 0.25, -0.3 / 0.3])
    assert high == pytest.approx([0.5 / 0.2, 0.6 / 0.25, 0.7 / 0.3])
    assert Ends().pixels is None


def test_the_extremes_of_a_certificate_are_those_of_its_pixels(model, tmp_path, monkeypatch):
    seen = []
    inner = OnnxRuntime.load

    def watched(self, path, *args):
        predict = inner(self, path, *args)
        return lambda images: seen.append(images) or predict(images)

    monkeypatch.setattr(OnnxRuntime, "load", watched)
    export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE)
    two_valued = [images for images in seen if len(np.unique(images[:, 0])) == 2]
    low, high = PixelEnds(MEAN, STD).pixels
    assert any(
        np.allclose(images.min(axis=(0, 2, 3)), low) and np.allclose(images.max(axis=(0, 2, 3)), high)
        for images in two_valued
    )


def test_pixels_that_share_a_batch_are_unlike():
    """So that a context which leaks from one to the next is seen."""
    images = PixelDraws(np.random.default_rng(0), (3, 32, 32)).unlike(16)
    assert images.dtype == np.uint8
    contrast, brightness = images.std(axis=(1, 2, 3)), images.mean(axis=(1, 2, 3))
    assert contrast.max() > 3 * contrast.min()
    assert np.ptp(brightness) > 30


def test_pixels_survive_their_normalisation():
    """Every value of every channel comes back, so that a certificate's images are what they seem."""
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (1, 16, 16, 3))
    images = ((ramp / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    end = PixelEnds(MEAN, STD)
    assert np.array_equal(end.given(images), ramp)
    assert end.given(10 * images).max() == 255
    assert end.given(10 * images).min() == 0


@pytest.mark.parametrize(
    "config", [{}, {"mean": MEAN}, {"mean": MEAN[:1], "std": STD[:1]}, {"mean": 0.5, "std": 0.5}]
)
def test_a_model_that_does_not_say_how_is_refused(config, small, tmp_path):
    model = small("kw")
    model.pretrained_cfg = config
    with pytest.raises(ZooError, match="give it mean and std of 3 channels, or export without preprocessing"):
        export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE, preprocess=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [({}, "float32 NCHW"), ({"mean": MEAN, "std": STD}, "float32 NCHW, normalised by mean and std")],
)
def test_metadata_speaks_of_what_is_known(config, said, small, tmp_path):
    model = small("kw")
    model.pretrained_cfg = config
    export.onnx.export(model, tmp_path / "net.onnx", input_size=SIZE)
    stored = runtime("onnx").metadata(tmp_path / "net.onnx")
    assert stored["input"] == said
    assert ("mean" in stored) == ("std" in stored) == bool(config)


def test_without_it_nothing_stands_at_the_ends():
    model = nn.Flatten()
    plain, end = ends(model, ExportOptions(input_size=SIZE), 1)
    assert plain == end == Ends()
    assert end.around(model) is model
