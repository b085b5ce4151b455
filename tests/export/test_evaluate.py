"""``python -m export.evaluate``: what artifacts get right of images whose answers are known."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from export import evaluate
from export._flow import export
from export.base import RUNTIMES, ExportOptions, runtime
from zoo.cli import run
from zoo.errors import ZooError
from zoo.pretrained import CIFAR10_CLASSES
from zoo.training.data import Split

LEVELS = torch.arange(10)


@pytest.fixture
def split() -> Split:
    """Twelve images, each as red as the number of a class says; the last two have another label."""
    shades = torch.cat([LEVELS, LEVELS[:2]])
    images = torch.zeros(12, 3, 32, 32, dtype=torch.uint8)
    images[:, 0] = (shades * 255 / 9).round().to(torch.uint8).view(-1, 1, 1)
    labels = shades.clone()
    labels[-2:] = 9
    return Split(images, labels, CIFAR10_CLASSES, "made for a test", "a" * 64)


@pytest.fixture
def reader() -> nn.Module:
    """A network that tells how red images are: of class c it thinks 2 c r - c^2, with r from 0 to 9."""
    linear = nn.Linear(3, 10)
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[:, 0] = 9 * LEVELS
        linear.bias.copy_(9 * LEVELS - LEVELS**2)
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    nn.init.dirac_(model[0].weight)
    config = {
        "input_size": (3, 32, 32),
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "label_names": CIFAR10_CLASSES,
    }
    model.pretrained_cfg = config
    return model.eval()


def made(reader, folder, name="onnx", **options):
    own = runtime(name)
    if reason := own.available():
        pytest.skip(reason)
    path = folder / f"reader{own.suffix}"
    export(own, reader, path, ExportOptions(**options))
    return path


def normalised_by(reader, mean, std):
    """Have the network take images that are normalised in another way, and see the same in them."""
    reader.pretrained_cfg = {**reader.pretrained_cfg, "mean": mean, "std": std}
    first = reader[0]
    with torch.no_grad():  # x of 0.5 and 0.5 is 2 (y std + mean) - 1
        first.bias = nn.Parameter(2 * torch.tensor(mean) - 1)
        first.weight *= 2 * torch.tensor(std).view(-1, 1, 1)


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("options", [{}, {"batch": 5}, {"preprocess": True}], ids=str)
def test_it_counts_what_an_artifact_gets_right(name, options, reader, split, tmp_path):
    artifact = evaluate.read(made(reader, tmp_path, name, **options))
    found = evaluate.measure(artifact, split)
    assert found.top1 == round(1000 / 12, 2)
    assert (found.format, found.provider, found.dtype, found.images) == (name, "cpu", "fp32", 12)


@pytest.mark.parametrize("preprocess", [False, True])
def test_images_are_normalised_as_the_artifact_wants_them(preprocess, reader, split, tmp_path):
    normalised_by(reader, (0.1, 0.4, 0.4), (0.9, 0.2, 0.2))
    artifact = evaluate.read(made(reader, tmp_path, preprocess=preprocess))
    assert evaluate.measure(artifact, split).top1 == round(1000 / 12, 2)
    images = artifact.takes(split.images)
    if preprocess:
        assert (images == split.images.permute(0, 2, 3, 1).numpy()).all()
    else:
        assert images[9, 0].max() == pytest.approx(1.0), "(1 - 0.1) / 0.9"
        assert images[9, 1].max() == pytest.approx(-2.0), "(0 - 0.4) / 0.2"


def test_images_have_the_artifacts_size(reader, split, tmp_path):
    artifact = evaluate.read(made(reader, tmp_path, input_size=(3, 16, 16)))
    assert evaluate.measure(artifact, split).top1 == round(1000 / 12, 2)


def test_the_command_writes_what_the_weights_reach_too(reader, split, tmp_path, monkeypatch, capsys):
    path = made(reader, tmp_path, preprocess=True)
    monkeypatch.setattr(evaluate, "load_cifar10", lambda name, folder: split)
    entry = {"sha256": "b" * 64, "figures": {"top1": 84.5, "images": 12, "data": {"sha256": split.sha256}}}
    monkeypatch.setattr(evaluate, "read_manifest", lambda: {"reader": entry})
    own = evaluate.read(path)
    assert evaluate.measure(own, split).weights_top1 is None, "of weights that the manifest has not"
    own.runtime.annotate(path, {**own.runtime.metadata(path), "weights_sha256": "b" * 64})
    words = [str(path), "--data", "/machine/cifar", "--json", str(tmp_path / "found.json"), "--threads", "1"]
    assert run(evaluate.main, words) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-4:] == ["0.0", "12", "83.33", "84.50"]
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["format"] == evaluate.FORMAT
    assert (record["rows"][0]["top1"], record["rows"][0]["weights_top1"]) == (83.33, 84.5)
    assert record["command"].startswith("python -m export.evaluate .../")
    assert run(evaluate.main, [*words, "--images", "10"]) == 0
    record = json.loads((tmp_path / "found.json").read_text())
    assert (record["rows"][0]["top1"], record["rows"][0]["weights_top1"]) == (100, None), "of other images"


def test_classes_that_the_images_have_not_are_refused(reader, split, tmp_path):
    artifact = evaluate.read(made(reader, tmp_path))
    others = replace(split, classes=("cat", "dog"))
    with pytest.raises(
        ZooError, match=r"reader\.onnx tells other classes apart \(airplane, .*\) than cat, dog"
    ):
        evaluate.top1(artifact, lambda images: images, others)
    del artifact.about["class_names"]
    with pytest.raises(ZooError, match=r"tells other classes apart \(no names\)"):
        evaluate.top1(artifact, lambda images: images, split)


def test_images_of_another_shape_are_refused(reader, split, tmp_path):
    artifact = evaluate.read(made(reader, tmp_path, input_size=(3, 16, 24)))
    with pytest.raises(ZooError, match=r"takes images of 3 x 16 x 24; these are square, in colour"):
        evaluate.measure(artifact, split)


def test_what_cannot_work_is_said_before_anything_is_measured(reader, tmp_path, monkeypatch, capsys):
    def load(name, folder):
        raise AssertionError("the images are not needed to say so")

    monkeypatch.setattr(evaluate, "load_cifar10", load)
    path = str(made(reader, tmp_path))
    assert run(evaluate.main, [path, "--json", str(tmp_path)]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert run(evaluate.main, [path, "--provider", "abacus"]) == 2
    assert "on abacus: ONNX has no provider 'abacus' here" in capsys.readouterr().err
    reader.pretrained_cfg = {**reader.pretrained_cfg, "label_names": [str(level) for level in range(10)]}
    assert run(evaluate.main, [str(made(reader, tmp_path))]) == 2
    assert "tells other classes apart (0, 1," in capsys.readouterr().err


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_damaged_file_is_named(name, tmp_path):
    own = runtime(name)
    if reason := own.available():
        pytest.skip(reason)
    path = tmp_path / f"damaged{own.suffix}"
    path.write_bytes(b"no artifact")
    with pytest.raises(ZooError, match=r"cannot load .*damaged"):
        evaluate.read(path)


def test_what_is_no_artifact_is_refused(tmp_path):
    with pytest.raises(ZooError, match=r"there is no file .*absent\.onnx"):
        evaluate.read(tmp_path / "absent.onnx")
    (tmp_path / "note.txt").touch()
    with pytest.raises(
        ZooError, match=r"no suffix of a format; give a file that ends in one of \.onnx, \.pt"
    ):
        evaluate.read(tmp_path / "note.txt")


def test_a_file_of_others_says_nothing_of_itself(tmp_path):
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "other.onnx")
    with pytest.raises(ZooError, match=r"does not say its model; export it with python -m export\.onnx"):
        evaluate.read(tmp_path / "other.onnx")


def test_the_longest_suffix_tells_the_format(reader, tmp_path):
    assert evaluate.read(made(reader, tmp_path, "openvino")).runtime.name == "openvino"
    assert evaluate.read(made(reader, tmp_path, "onnx")).runtime.name == "onnx"
