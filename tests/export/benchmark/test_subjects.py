import pytest
import torch

from export.benchmark.subjects import Subjects, as_timm_writes_it, family_of, twin_of
from export.onnx import OnnxRuntime
from export.openvino import OpenVino
from export.parity import prepared
from zoo.errors import ZooError
from zoo.layers import DynamicConv2d, dynamic_layers
from zoo.pretrained import read_manifest


def test_random_weights_leave_no_layer_without_effect(subjects):
    model = prepared(subjects.model("benchnet_kw"), "unfold")
    images = torch.randn(2, *subjects.size("benchnet_kw"))
    layers = [module for module in model.modules() if isinstance(module, DynamicConv2d)]
    assert len(layers) == 2
    with torch.no_grad():
        before = model(images)
        for layer in layers:
            layer.weight.mul_(1.5)
            after = model(images)
            assert (after - before).abs().max() > 1e-3 * before.abs().max()
            before = after
    assert not any(module.training for module in model.modules())


def test_the_peer_is_our_condconv_in_timms_words(subjects):
    ours = prepared(subjects.model("benchnet_condconv"), "unfold")
    theirs = as_timm_writes_it(ours)
    assert any(isinstance(module, DynamicConv2d) for module in ours.modules())
    assert not any(isinstance(module, DynamicConv2d) for module in theirs.modules())
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, theirs)]
    assert count[0] == count[1]
    images = torch.randn(5, *subjects.size("benchnet_condconv"))
    with torch.no_grad():
        assert torch.allclose(theirs(images), ours(images), rtol=1e-4, atol=1e-5)


def test_costs_are_of_the_model_as_it_is_deployed(subjects):
    """convex learns four kernels for one and folds them into it."""
    static, folded = subjects.cost("benchnet_static", "auto"), subjects.cost("benchnet_convex", "fold")
    unfolded = subjects.cost("benchnet_convex", "unfold")
    assert folded[0] == unfolded[0] == sum(p.numel() for p in subjects.model("benchnet_convex").parameters())
    assert folded[0] > 3 * static[0]
    assert folded[1] == static[1] < unfolded[1]
    stem, first, second = 32 * 32 * 3 * 8, 32 * 32 * 8 * 12, 16 * 16 * 12 * 8
    assert static[1] == 9 * (stem + first + second) + 8 * 10


def test_a_model_with_another_lowering_is_not_the_same_subject_changed(subjects):
    before = subjects.deployed("benchnet_kw", "unfold")
    subjects.deployed("benchnet_kw", "grouped")
    lowerings = {layer.lowering for layer in before.modules() if isinstance(layer, DynamicConv2d)}
    assert lowerings == {"unfold"}


def test_a_trained_model_brings_its_accuracy():
    manifest = read_manifest()
    name = min(manifest, key=lambda name: manifest[name]["bytes"], default=None)
    if name is None:
        pytest.skip("there are no trained weights")
    trained, random = Subjects(), Subjects(pretrained=False)
    assert trained.is_trained(name)
    assert trained.top1(name) == manifest[name]["figures"]["top1"]
    assert not random.is_trained(name)
    assert random.top1(name) is None
    assert not trained.is_trained("benchnet_kw")


def test_weights_that_do_not_fit_are_one_sentence(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("size mismatch\nand so on")

    monkeypatch.setattr("export.benchmark.subjects.create_model", fails)
    trained = Subjects()
    monkeypatch.setattr(trained, "is_trained", lambda name: True)
    with pytest.raises(ZooError, match=r"^the trained weights of benchnet_kw do not fit it; [^\n]*$"):
        trained.model("benchnet_kw")


@pytest.mark.parametrize(
    ("name", "family", "twin"),
    [
        ("resnet18_kw", "kw", "resnet18_static"),
        ("mobilenetv2_100_static", "static", "mobilenetv2_100_static"),
        ("resnet18_se", "se", "resnet18_static"),
    ],
)
def test_a_name_says_the_family_and_the_twin(name, family, twin):
    assert (family_of(name), twin_of(name)) == (family, twin)


def test_networks_settle_for_the_runtime_that_they_run_in(subjects):
    for runtime, bounded in ((None, True), (OnnxRuntime(), True), (OpenVino(), False)):
        network = subjects.deployed("benchnet_dpk", "contract", runtime)
        assert {layer.bounded for layer in dynamic_layers(network)} == {bounded}
