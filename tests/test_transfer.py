"""The example of docs/transfer.py: what it starts from, and that it runs."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo.errors import ZooError
from zoo.layers import dynamic_layers
from zoo.pretrained import CIFAR10_CLASSES, publish, read_manifest
from zoo.training.data import Split

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import transfer


def split(count: int) -> Split:
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    return Split(images, torch.arange(count) % 10, CIFAR10_CLASSES, "made up", "0")


def test_animals_are_told_from_vehicles() -> None:
    changed = transfer.animal_or_vehicle(split(10))
    names = dict(zip(CIFAR10_CLASSES, (changed.classes[label] for label in changed.labels), strict=True))
    assert {name for name, kind in names.items() if kind == "vehicle"} == {
        "airplane",
        "automobile",
        "ship",
        "truck",
    }


def test_the_starts_are_what_they_are_called() -> None:
    titles = [title for title, _, _ in transfer.ways("resnet18_kw")]
    assert [("scratch" in title, "animal or vehicle" in title) for title in titles] == [
        (False, True),
        (True, True),
        (False, False),
        (False, False),
        (True, False),
    ]
    trained, scratch, dynamized, static, _ = (make() for _, make, _ in transfer.ways("resnet18_kw"))
    published = zoo.create_model("resnet18_kw", pretrained=True)
    assert torch.equal(trained.layer1[0].conv1.weight, published.layer1[0].conv1.weight)
    assert not torch.equal(scratch.layer1[0].conv1.weight, published.layer1[0].conv1.weight)
    assert [model.num_classes for model in (trained, scratch)] == [2, 2]
    assert len(dynamic_layers(dynamized)) >= len(dynamic_layers(published))
    x = torch.randn(2, 3, 32, 32)
    twin = zoo.create_model("resnet18_static", pretrained=True).eval()
    with torch.inference_mode():
        torch.testing.assert_close(dynamized.eval()(x), twin(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(static.eval()(x), twin(x))
    assert not dynamic_layers(static)


def test_it_trains_each_and_writes_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(title: str) -> transfer.Way:
        def make() -> torch.nn.Module:
            return zoo.create_model("resnet10_kw", num_classes=2, stages=(3,))

        return title, make, transfer.animal_or_vehicle

    monkeypatch.setattr(transfer, "ways", lambda name: [small("one"), small("two")])
    monkeypatch.setattr(transfer, "load_cifar10", lambda name, folder: split(40))
    words = ["--images", "12", "--test-images", "5", "--epochs", "2", "--size", "8", "--batch-size", "6"]
    words += ["--data", "/machine/of/mine/cifar10"]
    assert transfer.main([*words, "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "transfer.json").read_text())
    assert (record["images"], record["test_images"], record["epochs"]) == (12, 5, 2)
    assert [(row["title"], row["classes"]) for row in record["rows"]] == [("one", 2), ("two", 2)]
    assert all(row["commonest"] == 60 for row in record["rows"]), "bird, cat and deer of the first five"
    assert "--data .../mine/cifar10" in record["command"]
    assert "/machine" not in record["command"]
    manifest = read_manifest()
    assert record["starts"] == {
        name: {"sha256": manifest[name]["sha256"], "top1": manifest[name]["figures"]["top1"]}
        for name in ("resnet18_kw", "resnet18_static")
    }
    with pytest.raises(ZooError, match="--epochs is 0; it must be at least 1"):
        transfer.main(["--epochs", "0"])


def test_the_figures_are_of_before_and_after_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decided(model: torch.nn.Module, answer: int) -> torch.nn.Module:
        with torch.no_grad():
            model.fc.weight.zero_()
            model.fc.bias.copy_(torch.nn.functional.one_hot(torch.tensor(answer), 10))
        return model

    def train(_recipe: object, model: torch.nn.Module, _data: Split, folder: Path) -> None:
        learned = decided(model, 1).state_dict()
        save_file(learned, folder / transfer.FILE)

    # Of twelve images the answer 7 is right once, and 1 twice.
    way = ("one", lambda: decided(zoo.create_model("resnet10_static"), 7), lambda data: data)
    monkeypatch.setattr(transfer, "ways", lambda name: [way])
    monkeypatch.setattr(transfer, "load_cifar10", lambda name, folder: split(12))
    monkeypatch.setattr(transfer, "train", train)
    assert transfer.main(["--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "transfer.json").read_text())["rows"] == [
        {"title": "one", "classes": 10, "commonest": 16.67, "before": 8.33, "top1": 16.67}
    ]


@pytest.fixture
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong is said before the images are read, and so before any training."""

    def read(name: str, folder: str) -> Split:
        raise AssertionError("the images are read")

    monkeypatch.setattr(transfer, "load_cifar10", read)
    monkeypatch.setattr(transfer.memory, "keep_freed_memory", lambda: False)


@pytest.mark.usefixtures("_no_data")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model", "resnet18_dpk"],
            "resnet18_dpk cannot start from the kernels of its static twin; choose",
        ),
        (["--model", "resnet18_static"], "resnet18_static has no dynamic kernels; choose .* resnet18_kw"),
        (["--model", "resnet18_se"], "resnet18_se has no dynamic kernels; choose .* resnet18_kw"),
        (
            ["--model", "resnet10_kw"],
            "resnet10_kw, from which resnet10_kw would start, has no trained weights",
        ),
        (["--model", "nonsense"], "unknown model 'nonsense'"),
        (["--lr", "0"], r"--lr is 0\.0; it must be above 0"),
        (["--out", "nowhere/at/all"], "there is no folder nowhere/at/all; make it"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(words: list[str], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        transfer.main(words)


@pytest.mark.usefixtures("_no_data")
def test_weights_of_the_twin_must_be_there_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path))
    publish("resnet10_kw", {"x": torch.zeros(1)}, {})
    with pytest.raises(ZooError, match="resnet10_static, from which resnet10_kw would start, has no trained"):
        transfer.main(["--model", "resnet10_kw"])
    publish("resnet10_static", {"x": torch.zeros(1)}, {})
    assert transfer.trained_starts("resnet10_kw").keys() == {"resnet10_kw", "resnet10_static"}
    (tmp_path / "resnet10_static.safetensors").write_bytes(b"half")
    with pytest.raises(ZooError, match="the weights of resnet10_static are damaged"):
        transfer.main(["--model", "resnet10_kw"])


@pytest.mark.usefixtures("_no_data")
def test_a_tag_is_no_part_of_the_name() -> None:
    with pytest.raises(AssertionError, match="the images are read"):
        transfer.main(["--model", "resnet18_kw.cifar10"])
