import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from zoo.training import evaluate as module
from zoo.training.augment import Augmentation, normalise
from zoo.training.data import Split
from zoo.training.evaluate import (
    as_published,
    calibration_error,
    evaluate,
    probabilities,
    probe,
    table,
    top1,
    with_unrounded,
)


class _Brightness(nn.Module):
    """Reads the label off the brightness, where the fixture ``split`` puts it; right on clean images."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        darkest = (x.amin(dim=(1, 2, 3)) / 2 + 0.5) * 255
        label = ((darkest + 0.5) * self.scale / 20).floor().long().clamp(0, 9)
        return nn.functional.one_hot(label, 10).float()


def test_counts_right_answers(split: Split) -> None:
    labels = torch.where(torch.arange(64) < 16, 9 - split.labels, split.labels)
    wrong = dataclasses.replace(split, labels=labels)
    model = _Brightness().train()
    assert top1(model, split) == 100
    assert top1(model, wrong, batch_size=7) == 75
    assert model.training, "the mode is put back"


def test_a_forward_pass_takes_as_many_images_as_suit_the_device(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(_Brightness):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    monkeypatch.setitem(module.BATCH_SIZES, "cpu", 48)
    for asked, wanted in ((None, [48, 16]), (40, [40, 24])):
        seen: list[int] = []
        probabilities(Counting(), split, batch_size=asked)
        assert seen == wanted


def test_figures(split: Split) -> None:
    found = evaluate(_Brightness(), split, "a note").figures()
    assert found["top1"] == 100
    # Black corners hide the brightness.
    assert found["top1_augmented"] < 50
    assert found["images"] == 64
    assert found["data"] == {"source": "made for a test", "note": "a note", "sha256": "0" * 64}
    assert "top1_augmented_std" not in found
    assert len(found["probe"]) == 10
    # Always right, and with one-hot logits that sure of it.
    sure = math.e / (math.e + 9)
    assert found["calibration_error"] == round(100 * (1 - sure), 2)


def test_figures_have_the_calibration_error_of_all_images(split: Split) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    said = probabilities(model, split)
    whole, part = (calibration_error(said[:count], split.labels[:count]) for count in (64, 50))
    assert evaluate(model, split, batch_size=50).figures()["calibration_error"] == round(100 * whole, 2)
    assert round(100 * whole, 2) != round(100 * part, 2)


def test_the_top1_of_unrounded_weights_stays_with_its_images() -> None:
    found = {"top1": 1.0, "data": {"sha256": "a"}}
    known = {"top1": 1.0, "top1_fp32": 1.01, "data": {"sha256": "a"}}
    assert with_unrounded(found, known) == {**found, "top1_fp32": 1.01}
    assert with_unrounded(found, known | {"data": {"sha256": "b"}}) == found
    assert with_unrounded(found, {}) == found


def test_figures_do_not_depend_on_the_batch_size(split: Split) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    assert evaluate(model, split, batch_size=5).figures() == evaluate(model, split, batch_size=64).figures()


def test_the_probe_follows_what_the_model_computes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * 32 * 32), nn.Linear(3 * 32 * 32, 10))
    said = probe(model)
    assert model.training, "the mode is put back"
    assert probe(model) == said, "and nothing learned from the stripes"
    stripes = torch.tensor([math.sin(0.37 * pixel) for pixel in range(3 * 32 * 32)]).view(1, 3, 32, 32)
    torch.testing.assert_close(torch.tensor([said]), model.eval()(stripes).detach(), rtol=0, atol=1e-3)
    with torch.no_grad():
        model[2].bias[3] += 0.5
    assert [round(after - before, 2) for after, before in zip(probe(model), said, strict=True)] == [
        0.5 * (index == 3) for index in range(10)
    ]


def test_the_answers_are_those_the_figures_are_the_means_of(split: Split) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    measured = evaluate(model, split, draws=2)
    answers, found = measured.answers(), measured.figures()
    assert answers.data_sha256 == split.sha256
    said = probabilities(model, split).argmax(1)
    assert torch.equal(answers.right[0], said == split.labels)
    assert found["top1_augmented"] == round(100 * float(answers.right[1:].double().mean()), 2)


def test_several_draws_give_a_mean_and_a_spread(split: Split) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    found = evaluate(model, split, draws=3).figures()
    single = [
        top1(model, split, Augmentation().draw(64, 32, torch.Generator().manual_seed(seed)))
        for seed in range(3)
    ]
    assert len(set(single)) > 1
    assert found["top1_augmented"] == round(sum(single) / 3, 2)
    assert found["top1_augmented_std"] == round(float(torch.tensor(single).double().std()), 3)
    assert found["augmented_draws"] == 3


def test_probabilities_are_those_of_the_images_in_order(split: Split) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    found = probabilities(model, split, batch_size=7)
    torch.testing.assert_close(found, model(normalise(split.images)).softmax(1).detach())


def test_published_weights_are_halves() -> None:
    state = as_published({"w": torch.tensor([1 / 3]), "n": torch.tensor(2**20 + 1)})
    assert state["w"].item() == torch.tensor(1 / 3).half().item()
    assert state["n"] == 2**20 + 1


def test_table() -> None:
    row = {"top1": 61.2, "top1_augmented": 9.0}
    assert table([("resnet18_kw", row | {"calibration_error": 5.25}), ("m", row)]).splitlines() == [
        "model        clean %  augmented %  calibration error %",
        "resnet18_kw    61.20         9.00                  5.2",
        "m              61.20         9.00                     ",
    ]
    assert "9.00 +- 0.25" in table([("m", row | {"top1_augmented_std": 0.25})]).splitlines()[1]
