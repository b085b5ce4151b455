"""int8: what is rewritten, what is not, and that the certificate holds it against the model on images."""

import json

import numpy as np
import onnx
import pytest
from torch import nn

import export.onnx as onnx_command
import export.openvino as openvino_command
from export import _flow, torchscript
from export.base import ExportOptions
from export.certificate import CertificateError
from export.onnx import OnnxRuntime
from export.parity import certify_int8, prepared
from export.quantize import quantizable, quantize
from zoo.cli import run
from zoo.errors import ZooError

SIZE = (3, 12, 10)
STATIC_WEIGHTS = ("kwb", "fgk", "convex")


@pytest.fixture(scope="module")
def images():
    """Smooth ones: neighbouring pixels are alike, as in photographs."""
    coarse = np.random.default_rng(0).standard_normal((64, 3, 4, 5), dtype=np.float32)
    return np.ascontiguousarray(coarse.repeat(3, axis=2).repeat(2, axis=3))


def int8_options(**others):
    return ExportOptions(input_size=SIZE, dtype="int8", **others)


def kinds(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("family", [*STATIC_WEIGHTS, "kw", "dpk"])
def test_certified_after_it_passed_in_fp32(family, small, images, tmp_path):
    path, plain = tmp_path / "int8.onnx", tmp_path / "fp32.onnx"
    model = small(family)
    certificate = _flow.export(OnnxRuntime(), model, path, int8_options(), images)
    assert certificate.passed
    assert 1e-4 < certificate.max_rel <= certificate.tolerance == 0.25
    assert {check.batch for check in certificate.checks} == {1, 2, 3, 5, 8, 16, 17}
    record = json.loads((tmp_path / "int8.onnx.certificate.json").read_text())
    assert record["in_fp32"]["passed"]
    assert record["in_fp32"]["tolerance"] == 1e-4
    assert record["agreement"] == certificate.agreement > 0.7  # winners of a small network lead by little
    assert record["agreement_images"] == 32
    stored = OnnxRuntime().metadata(path)
    assert stored["dtype"] == "int8"
    assert 0 < float(stored["int8_share"]) <= 1
    assert record["about"]["int8_share"] == float(stored["int8_share"])
    assert json.loads(stored["certificate"])["agreement"] == certificate.agreement
    onnx_command.export(model, plain, input_size=SIZE)
    assert OnnxRuntime().metadata(plain)["dtype"] == "fp32"
    assert "QuantizeLinear" in kinds(path)
    assert "QuantizeLinear" not in kinds(plain)


@pytest.mark.parametrize("family", STATIC_WEIGHTS)
def test_static_weights_have_seven_bits(family, small, images, tmp_path):
    path = tmp_path / "int8.onnx"
    _flow.export(OnnxRuntime(), small(family), path, int8_options(), images)
    graph = onnx.load(path).graph
    constants = {constant.name: constant for constant in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    quantized = [makers[node.input[1]] for node in layers if node.input[1] in makers]
    assert len(quantized) > len([node for node in layers if node.op_type == "Conv"])  # the classifier, too
    for node in quantized:
        assert node.op_type == "DequantizeLinear"
        assert constants[node.input[0]].data_type == onnx.TensorProto.INT8
        assert 0 < np.abs(onnx.numpy_helper.to_array(constants[node.input[0]]).astype(int)).max() <= 64


def multiplies_of_small(batch_free):
    """Count by hand what ``small`` multiplies for an image: all, or what has constant weights in kw."""
    static = 8 * 12 * 10 * 3 * 9 + 8 * 7
    return static if batch_free else static + 12 * 12 * 10 * 8 * 9 + 8 * 6 * 5 * 6 * 9


def test_the_share_of_int8_is_of_the_multiplies(small, images, tmp_path):
    """All of a network without dynamic layers once it is folded; of kw, the stem and the classifier."""
    said = []
    shares = {}
    for family in ("convex", "kw"):
        path = tmp_path / f"{family}.onnx"
        options = int8_options(lowering="unfold" if family == "kw" else "fold")
        _flow.export(OnnxRuntime(), small(family), path, options, images, say=said.append)
        shares[family] = float(OnnxRuntime().metadata(path)["int8_share"])
    assert shares["convex"] == 1
    # Beside the convolutions, the reduced contexts and the gates of kw's kernels are products, too: few.
    expected = multiplies_of_small(True) / multiplies_of_small(False)
    assert 0.9 * expected < shares["kw"] < expected < 0.5
    (line,) = [line for line in said if "100.0% of the multiplies" in line]
    assert line.startswith("rewrote ")
    assert any(f"{shares['kw']:.1%} of the multiplies of all convolutions" in line for line in said)


def test_a_file_without_static_layers_is_refused(images, tmp_path):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    path = tmp_path / "plain.onnx"
    OnnxRuntime().export(model, path, ExportOptions(input_size=SIZE))
    before = path.read_bytes()
    with pytest.raises(ZooError, match=r"nothing in the file can run in int8: .*; export it in fp32"):
        quantize(path, "input", images)
    assert path.read_bytes() == before
    with pytest.raises(ZooError, match="nothing in the file can run in int8"):
        _flow.export(OnnxRuntime(), model, tmp_path / "int8.onnx", int8_options(), images)
    assert [file.name for file in tmp_path.iterdir()] == ["plain.onnx"]


def test_the_agreement_counts_narrow_winners_too(images):
    """A quarter of the images get another top class, by less than the tolerance forgives."""

    def expected(batch):
        return np.tile(np.array([1, 0.9, 0], np.float32), (len(batch), 1))

    def swapped(batch):
        outputs = expected(batch)
        outputs[batch[:, 0, 0, 0] > level, 1] = 1.1
        return outputs

    level = np.sort(images[:, 0, 0, 0])[47]
    certificate = certify_int8(swapped, expected, SIZE, images)
    assert certificate.passed
    assert {check.top1 for check in certificate.checks} == {1.0}
    assert certificate.agreement == 0.75
    assert certificate.agreement_images == 64
    assert certificate.summary().endswith("the top class is the eager model's on 75.0% of 64 images")


def test_what_cannot_be_compared_has_no_agreement(images):
    certificate = certify_int8(
        lambda batch: np.full((len(batch), 3), np.nan), lambda batch: batch, SIZE, images
    )
    assert not certificate.passed
    assert certificate.agreement is None
    assert json.loads(certificate.to_json())["agreement"] is None
    assert "the top class" not in certificate.summary()


def test_what_makes_kernels_stays_as_it_is(small, tmp_path):
    path = tmp_path / "model.onnx"
    runtime = OnnxRuntime()
    for family in ("kw", "dpk", "condconv"):
        runtime.export(prepared(small(family), "unfold"), path, ExportOptions(input_size=SIZE))
        model = onnx.load(path)
        found = set(quantizable(model))
        constants = {constant.name for constant in model.graph.initializer}
        nodes = [node for node in model.graph.node if node.name in found]
        assert {node.op_type for node in nodes} <= {"Conv", "Gemm", "Add", "Mul"}
        layers = [node for node in nodes if node.op_type in ("Conv", "Gemm")]
        assert [node.op_type for node in layers].count("Gemm") == 1  # the classifier, and no gate
        assert "Conv" in {node.op_type for node in layers}
        assert all(node.input[1] in constants for node in layers)
        makers = {output: node for node in model.graph.node for output in node.output}
        made = {makers[name].op_type for node in nodes for name in node.input if name in makers}
        assert not {"Softmax", "Exp", "Sigmoid", "Tanh"}.intersection(made)


@pytest.mark.parametrize("batch", [5, 40], ids=["few", "more than are calibrated on"])
def test_a_fixed_batch(batch, small, images, tmp_path):
    certificate = _flow.export(
        OnnxRuntime(), small("kwb"), tmp_path / "int8.onnx", int8_options(batch=batch), images
    )
    assert certificate.passed
    assert {check.batch for check in certificate.checks} == {batch}


def test_openvino_runs_it(small, images, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "int8.openvino.onnx"
    assert openvino_command.export(small("fgk"), path, input_size=SIZE, images=images, dtype="int8").passed


def test_wrong_scales_are_not_kept(small, images, tmp_path, monkeypatch):
    inner = OnnxRuntime.quantize

    def wrong(self, path, options, seen):
        count = inner(self, path, options, seen)
        model = onnx.load(path)
        constants = {constant.name: constant for constant in model.graph.initializer}
        makers = {output: node for node in model.graph.node for output in node.output}
        last = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
        scale = constants[makers[last.input[1]].input[1]]
        scale.CopyFrom(onnx.numpy_helper.from_array(3 * onnx.numpy_helper.to_array(scale), scale.name))
        onnx.save(model, path)
        return count

    monkeypatch.setattr(OnnxRuntime, "quantize", wrong)
    with pytest.raises(CertificateError, match="parity checks and was not kept"):
        _flow.export(OnnxRuntime(), small("fgk"), tmp_path / "int8.onnx", int8_options(), images)
    assert list(tmp_path.iterdir()) == []


def test_few_images_are_refused(small, images, tmp_path):
    for given in (None, images[:31]):
        with pytest.raises(ZooError, match="int8 needs at least 32 images"):
            _flow.export(OnnxRuntime(), small("kwb"), tmp_path / "int8.onnx", int8_options(), given)


def test_formats_and_dtypes_that_there_are_not(small, images, tmp_path):
    with pytest.raises(ZooError, match="TorchScript has no int8 here; it has fp32, fp16"):
        _flow.export(torchscript.TorchScript(), small("kw"), tmp_path / "a.pt", int8_options(), images)
    with pytest.raises(ZooError, match="dtype 'int4' is none to export in; give one of fp32, fp16, int8"):
        ExportOptions(dtype="int4")


def test_the_command_wants_images_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["--model", "resnet10_static", "--no-pretrained", "--dtype", "int8"]
    assert run(onnx_command.main, argv) == 2
    assert "int8 needs images for its ranges; give a CIFAR-10 parquet folder as --data" in (
        capsys.readouterr().err
    )
