"""Mixed batches: what torchvision makes of them reaches the loss, the same for the same seed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import zoo
from zoo.training import log, loop
from zoo.training.data import Split
from zoo.training.loop import train
from zoo.training.mix import make_mix
from zoo.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("tiny_models")


def test_a_recipe_mixes_nothing_unless_told_to(recipe: Recipe) -> None:
    assert make_mix(recipe, 10) is None


def mixed(recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
    """Return a mixed batch of which image i is full of the number i and has the label i."""
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 16, 16).contiguous()
    torch.manual_seed(seed)
    mix = make_mix(recipe, 8)
    assert mix is not None
    return mix(images, torch.arange(8))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_images_are_mixed_as_their_labels_are(recipe: Recipe, name: str) -> None:
    recipe = dataclasses.replace(recipe, **{name: 1.0})
    images, shares = mixed(recipe, 0)
    assert torch.allclose(shares.sum(dim=1), torch.ones(8))
    # The mean of an image is that of the labels, weighted: by area, or by how much it was faded.
    assert torch.allclose(images.mean(dim=(1, 2, 3)), shares @ torch.arange(8.0), atol=1e-4)
    assert (shares.max(dim=1).values < 1).any()
    boxes = all(image.unique().numel() <= 2 and image.frac().any() == 0 for image in images)
    assert boxes == (name == "cutmix")


def test_with_both_each_batch_has_one(recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, mixup=1.0, cutmix=1.0)
    blended = {bool(mixed(recipe, seed)[0].frac().any()) for seed in range(12)}
    assert blended == {False, True}


def train_once(recipe: Recipe, split: Split, folder: Path, **options: Any) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(recipe.seed)
    model = zoo.create_model(recipe.model)
    train(recipe, model, split, folder, **options)
    return model.state_dict()


def test_a_resumed_run_mixes_as_an_uninterrupted_one(
    recipe: Recipe, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(recipe, mixup=0.8, cutmix=1.0)
    whole = train_once(recipe, split, tmp_path / "whole")
    plain = train_once(dataclasses.replace(recipe, mixup=0.0, cutmix=0.0), split, tmp_path / "plain")
    assert not torch.equal(whole["fc.weight"], plain["fc.weight"])

    def killed(run_dir: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(log, "draw", killed)
        with pytest.raises(KeyboardInterrupt):
            train_once(recipe, split, tmp_path / "cut")
    resumed = train_once(recipe, split, tmp_path / "cut", resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_mixed_image_counts_as_what_most_of_it_is(
    recipe: Recipe, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch becomes nine tenths of its neighbours; nothing is learned in one update."""

    def neighbours(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        own = F.one_hot(labels, 10)
        return images, 0.1 * own + 0.9 * own.roll(1, 0)

    class Clear(torch.nn.Module):
        """Answers with the neighbour of the label that the brightness of an image tells."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            label = ((((x.amin(dim=(1, 2, 3)) / 2 + 0.5) * 255) + 0.5) / 20).long().clamp(0, 9)
            return self.scale * F.one_hot(label.roll(1, 0), 10).float()

    monkeypatch.setattr(loop, "make_mix", lambda recipe, classes: neighbours)
    still = dataclasses.replace(recipe.augmentation, upright=1.0, crop_padding=0, hflip=False)
    recipe = dataclasses.replace(recipe, phases=((32, 1),), augmentation=still)
    train(recipe, Clear(), split, tmp_path)
    assert json.loads((tmp_path / log.FILE).read_text())["train_top1"] == 100


def test_the_loss_is_of_the_mixed_labels(
    recipe: Recipe, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    plain = F.cross_entropy

    def noted(logits: Tensor, targets: Tensor, **options: Any) -> Tensor:
        seen.append(targets)
        return plain(logits, targets, **options)

    monkeypatch.setattr(loop.F, "cross_entropy", noted)
    train_once(dataclasses.replace(recipe, cutmix=1.0), split, tmp_path / "run")
    assert all(targets.shape == (recipe.batch_size, 10) for targets in seen)
    assert any(((targets > 0).sum(dim=1) == 2).any() for targets in seen)
