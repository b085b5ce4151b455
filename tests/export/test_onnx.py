import copy
import json
from collections import Counter
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import export.onnx
import zoo
from export.base import runtime
from zoo.errors import ZooError
from zoo.layers import FAMILIES, LOWERINGS, DynamicConv2d, lowerings_of

SIZE = (3, 12, 10)
ANY_BATCH = [
    (family, lowering)
    for family, layer in FAMILIES.items()
    for lowering in lowerings_of(layer)
    if LOWERINGS[lowering].batch == "any"
]


@pytest.fixture(scope="module", params=ANY_BATCH, ids="-".join)
def exported(request, small, tmp_path_factory):
    """Return (model, lowering, path) of a small model exported with a dynamic batch."""
    family, lowering = request.param
    model, path = small(family), tmp_path_factory.mktemp("onnx") / "net.onnx"
    assert export.onnx.export(model, path, lowering=lowering, input_size=SIZE).passed
    return model, lowering, path


def assert_agrees(path, model, batch):
    """Compare with the eager model in whatever lowering it has, on inputs the certificate did not see."""
    images = np.random.default_rng(3).standard_normal((batch, *SIZE), dtype=np.float32)
    with torch.inference_mode():
        want = model(torch.from_numpy(images)).numpy()
    got = runtime("onnx").load(path)(images)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def test_right_at_every_batch_size(exported):
    model, _, path = exported
    for batch in (1, 2, 3, 5, 8, 13):
        assert_agrees(path, model, batch)


def test_the_graph_is_batch_free(exported):
    graph = onnx.load(exported[2]).graph
    (tensor,), (logits,) = graph.input, graph.output
    assert (tensor.name, logits.name) == ("input", "logits")
    taken, given = (value.type.tensor_type.shape.dim for value in (tensor, logits))
    assert [dim.dim_param or dim.dim_value for dim in taken] == ["batch", *SIZE]
    assert [dim.dim_param or dim.dim_value for dim in given] == ["batch", 7]
    assert not {node.op_type for node in graph.node} & {
        "Loop",
        "If",
        "Scan",
        "NonZero",
        "Constant",
        "Identity",
    }


def test_the_file_is_one_and_names_no_source_file(exported):
    path = exported[2]
    assert sorted(file.name for file in path.parent.iterdir()) == ["net.onnx", "net.onnx.certificate.json"]
    assert b".py" not in path.read_bytes()


def test_the_metadata_says_what_it_is(exported):
    _, lowering, path = exported
    found = runtime("onnx").metadata(path)
    assert found["model"] == "Sequential"
    assert found["family"] in FAMILIES
    assert found["weights"] == "given in memory"
    assert json.loads(found["input_size"]) == list(SIZE)
    assert (found["batch"], found["lowering"]) == ("dynamic", lowering)
    assert json.loads(found["lowerings"]) == {"3": lowering, "5": lowering}
    versions = json.loads(found["versions"])
    assert versions["zoo"] == zoo.__version__
    assert versions["torch"] == version("torch")
    assert versions.keys() == {"zoo", "torch", "timm", "onnx", "onnxscript", "onnxruntime"}
    certificate = json.loads(found["certificate"])
    assert certificate["passed"] is True
    assert len(certificate["checks"]) > 10


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("lowering", "batch"), [("grouped", 3), ("single", 1), ("auto", 6)])
def test_a_fixed_batch(small, tmp_path, family, lowering, batch):
    model, path = small(family), tmp_path / "net.onnx"
    assert export.onnx.export(model, path, lowering=lowering, batch=batch, input_size=SIZE).batch == batch
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == batch
    assert runtime("onnx").metadata(path)["batch"] == str(batch)
    assert_agrees(path, model, batch)


@pytest.mark.parametrize("opset", [18, 21, export.onnx.newest_opset()])
def test_the_opset_is_the_one_asked_for(small, tmp_path, opset):
    model, path = small("dpk"), tmp_path / "net.onnx"
    assert export.onnx.export(model, path, opset=opset, input_size=SIZE).passed
    assert {entry.domain: entry.version for entry in onnx.load(path).opset_import} == {"": opset}


@pytest.mark.parametrize("opset", [17, export.onnx.newest_opset() + 1])
def test_an_opset_out_of_range_names_the_range(small, tmp_path, opset):
    with pytest.raises(ZooError, match=f"opset {opset} cannot be written; give one from 18 to"):
        export.onnx.export(small("kw"), tmp_path / "net.onnx", opset=opset, input_size=SIZE)
    assert not any(tmp_path.iterdir())


def test_a_convex_model_becomes_its_static_twin(stir, tmp_path):
    counts = {}
    for name in ("resnet10_convex", "resnet10_static"):
        path = tmp_path / f"{name}.onnx"
        assert export.onnx.export(stir(zoo.create_model(name)), path).passed
        counts[name] = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert counts["resnet10_convex"] == counts["resnet10_static"]
    assert counts["resnet10_convex"]["Conv"] == 12
    found = runtime("onnx").metadata(tmp_path / "resnet10_convex.onnx")
    assert set(json.loads(found["lowerings"]).values()) == {"fold"}


def test_a_lowering_that_the_family_lacks_is_named(small, tmp_path):
    with pytest.raises(ZooError, match="KernelWeightedConv2d has no lowering 'experts'"):
        export.onnx.export(small("kw"), tmp_path / "net.onnx", lowering="experts", input_size=SIZE)
    assert not any(tmp_path.iterdir())


def test_the_callers_model_is_untouched(small, tmp_path):
    model = small("fgk").train()
    layers = [module for module in model.modules() if isinstance(module, DynamicConv2d)]
    lowerings = [layer.lowering for layer in layers]
    before = copy.deepcopy(model.state_dict())
    export.onnx.export(model, tmp_path / "net.onnx", lowering="unfold", input_size=SIZE)
    assert all(module.training for module in model.modules())
    assert [layer.lowering for layer in layers] == lowerings
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_that_onnx_cannot_express_is_one_sentence(tmp_path):
    class Awkward(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if x.sum().item() > 0 else x.amax((2, 3))

    with pytest.raises(ZooError, match=r"torch\.onnx cannot express the model") as caught:
        export.onnx.export(Awkward(), tmp_path / "net.onnx", input_size=SIZE)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_threads_are_taken(exported, monkeypatch):
    taken, make = [], onnxruntime.InferenceSession

    def watched(source, options, **kwargs):
        made = make(source, options, **kwargs)
        taken.append(made.get_session_options().intra_op_num_threads)
        return made

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    for threads in (1, 3, None):
        runtime("onnx").load(exported[2], threads=threads)
    assert taken == [1, 3, 0]
