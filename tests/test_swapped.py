"""The comparison of docs/swapped.py: whose kernels it tests a model with, and what it writes."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from tests.test_spared import RECIPE, run, split
from zoo.errors import ZooError
from zoo.training.checkpoint import FILE, load_weights

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))

import swapped
from turning import layers_of


@pytest.fixture(scope="module")
def inputs() -> torch.Tensor:
    """Images as different as images are: dark and bright, pale and rich in contrast."""
    generator = torch.Generator().manual_seed(1)
    level, contrast = torch.randn(2, 6, 3, 1, 1, generator=generator)
    return level + contrast.exp() * torch.randn(6, 3, 32, 32, generator=generator)


@pytest.fixture(scope="module")
def model(inputs: torch.Tensor) -> nn.Module:
    """A network whose kernels move from image to image, and which does not call all of them the same."""
    torch.manual_seed(0)
    made = zoo.create_model("resnet10_kw", num_classes=10)
    for layer in layers_of(made).values():
        nn.init.normal_(layer.get_parameter("vectors"), std=3.0)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # the last of a block begins with zeros, which hide its kernels
            module.momentum = None
    with torch.no_grad():
        made.train()(inputs)
        logits = made.eval()(inputs)
        made.get_parameter("fc.bias").sub_(logits.mean(dim=0))
    return made


def test_kernels_are_those_of_the_chosen_contexts(model: nn.Module, inputs: torch.Tensor) -> None:
    """Each image alone, with the contexts of the image before it, must answer as all of them at once."""
    batch, seen = inputs[:2], []

    def keep(_name: str, contexts: torch.Tensor) -> torch.Tensor:
        seen.append(contexts)
        return contexts.roll(1, dims=0)

    with torch.inference_mode():
        with swapped.kernels_for(model, keep):
            both = model(batch)
        lent = iter(seen)
        with swapped.kernels_for(model, lambda _name, _contexts: next(lent)[:1]):
            second = model(batch[1:])
        own = model(batch)
    torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both, own, rtol=1e-2)
    assert not any("context" in vars(layer) for layer in layers_of(model).values()), "put back"


def test_one_image_alone_owes_nothing_to_its_own_kernels(model: nn.Module, inputs: torch.Tensor) -> None:
    same = inputs[:1].repeat(4, 1, 1, 1)
    found = swapped.compare(model, torch.zeros(4, dtype=torch.long), same, same)
    assert [found[of] for of in (swapped.MEAN, swapped.OTHER, swapped.UPRIGHT)] == [(0, 0, 0)] * 3


def test_what_is_lost_by_others_kernels_is_told(model: nn.Module, inputs: torch.Tensor) -> None:
    with torch.inference_mode():
        labels = model(inputs).argmax(dim=1)  # so its own kernels make all of them right
    found = swapped.compare(model, labels, inputs, inputs.roll(1, dims=0))
    assert found["top1"] == 100
    with torch.inference_mode(), swapped.kernels_for(model, lambda _name, contexts: contexts.roll(1, dims=0)):
        kept = float((model(inputs).argmax(dim=1) == labels).double().mean())
    assert kept < 1
    assert found[swapped.OTHER][0] == pytest.approx(100 * (kept - 1))


def test_kernels_of_the_image_before_it_was_warped(model: nn.Module, inputs: torch.Tensor) -> None:
    before, seen = inputs.roll(1, dims=0), []

    def keep(_name: str, contexts: torch.Tensor) -> torch.Tensor:
        seen.append(contexts)
        return contexts

    with torch.inference_mode():
        own = model(inputs).argmax(dim=1)
        with swapped.kernels_for(model, keep):
            model(before)
        lent = iter(seen)
        with swapped.kernels_for(model, lambda _name, _contexts: next(lent)):
            labels = model(inputs).argmax(dim=1)
    assert (own != labels).any()
    found = swapped.compare(model, labels, inputs, before)
    assert found["top1"] + found[swapped.UPRIGHT][0] == pytest.approx(100, abs=0.01)


def test_the_mean_is_of_all_images(
    model: nn.Module, inputs: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: dict[str, torch.Tensor] = {}

    def keep(name: str, its: torch.Tensor) -> torch.Tensor:
        contexts[name] = its.mean(dim=0, keepdim=True).expand_as(its)
        return its

    with torch.inference_mode():
        with swapped.kernels_for(model, keep):
            own = model(inputs).argmax(dim=1)
        with swapped.kernels_for(model, lambda name, _contexts: contexts[name]):
            frozen = model(inputs).argmax(dim=1)
    monkeypatch.setitem(swapped.BATCH_SIZES, "cpu", 2)  # the mean is not that of a batch
    found = swapped.compare(model, frozen, inputs)
    assert found["top1"] == pytest.approx(100 * float((own == frozen).double().mean()), abs=0.01)
    assert found["top1"] + found[swapped.MEAN][0] == pytest.approx(100, abs=0.01)


def test_it_writes_what_every_model_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swapped.memory, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(swapped, "load_cifar10", lambda name, folder: split(6))
    words = ["--models", "mobilenetv3_small_100_kw", "--images", "4", "--out", str(tmp_path)]
    assert swapped.main(words) == 0
    record = json.loads((tmp_path / "swapped.json").read_text())
    assert record["images"] == 4
    assert (
        record["command"]
        == f"python docs/swapped.py {' '.join(words[:-1])} {swapped.cli.portable(str(tmp_path))}"
    )
    (row,) = record["rows"]
    assert set(row["clean"]) == {"top1", "mean", "other"}
    assert set(row["augmented"]) == {"top1", "mean", "other", "upright"}


def test_a_finished_run_is_tested_with_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(swapped.memory, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(swapped, "load_cifar10", lambda name, folder: split(6))
    tested: list[nn.Module] = []
    measure = swapped.measure
    monkeypatch.setattr(swapped, "measure", lambda one, test: (tested.append(one), measure(one, test))[1])
    folder = run(tmp_path / "trained", replace(RECIPE, model="resnet10_kw"))
    swapped.main(["--runs", str(folder), "--name", "runs", "--out", str(tmp_path)])
    (row,) = json.loads((tmp_path / "runs.json").read_text())["rows"]
    assert (row["model"], row["run"]) == ("resnet10_kw", "trained")
    wanted = zoo.create_model("resnet10_kw")
    load_weights(wanted, folder / FILE)
    for name, value in tested[0].state_dict().items():
        torch.testing.assert_close(value, wanted.state_dict()[name])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--models", "mobilenetv3_small_100_static"], "makes kernels for the image"),
        (["--models", "resnet18_dpk", "--images", "1"], "give 2 or more"),
        (["--models", "resnet18_dpk", "--out", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], why: str) -> None:
    with pytest.raises(ZooError, match=why):
        swapped.main(words)
