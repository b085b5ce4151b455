"""A teacher: the losses by their formulas, and a run that listens to one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.errors import ZooError
from zoo.models import BACKBONES
from zoo.training import loop
from zoo.training.checkpoint import read_progress
from zoo.training.data import Split
from zoo.training.distill import Teacher, attention_loss
from zoo.training.loop import train
from zoo.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("tiny_models")


def test_attention_is_where_the_activity_is_not_how_loud() -> None:
    own = torch.randn(3, 4, 5, 6)
    assert attention_loss(own, -7 * own) < 1e-10
    assert attention_loss(own, own.flip(1)) < 1e-10, "channels have no order"
    assert attention_loss(own, own.flip(2)) > 0.01


def test_attention_by_hand() -> None:
    """All activity in one pixel against all of it in another: two unit vectors at a right angle."""
    own, theirs = torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 2, 2)
    own[:, :, 0, 0] = 3.0
    theirs[:, :, 1, 1] = 0.5
    assert attention_loss(own, theirs) == pytest.approx(2.0)
    spread = torch.ones(1, 1, 4, 4)
    assert attention_loss(own, spread) == pytest.approx((1 - 0.5) ** 2 + 3 * 0.25)


def test_a_released_student_is_watched_no_more() -> None:
    student = zoo.create_model("testnet_kw")
    both = Teacher(zoo.create_model("testnet_static"), student)
    assert any(module._forward_hooks for module in student.modules())
    both.release()
    assert not any(module._forward_hooks for module in (*student.modules(), *both.model.modules()))


def test_the_opinion_is_hintons() -> None:
    student, teacher = zoo.create_model("testnet_kw"), zoo.create_model("testnet_static")
    both = Teacher(teacher, student.train(), temperature=3.0)
    images = torch.randn(4, 3, 16, 16)
    logits = student(images)
    opinion, _ = both.losses(images, logits)
    soft = (teacher(images) / 3).softmax(dim=1)
    by_hand = 9 * (soft * (soft.log() - (logits / 3).log_softmax(dim=1))).sum(dim=1).mean()
    torch.testing.assert_close(opinion, by_hand)


def test_only_the_student_learns() -> None:
    student, teacher = zoo.create_model("testnet_kw").train(), zoo.create_model("testnet_static").train()
    both = Teacher(teacher, student)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    images = torch.randn(4, 3, 16, 16)
    sum(both.losses(images, student(images))).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in student.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_a_teacher_alike_has_nothing_to_say() -> None:
    student = zoo.create_model("testnet_static").eval()
    both = Teacher(zoo.create_model("testnet_static"), student)
    both.model.load_state_dict(student.state_dict())
    images = torch.randn(2, 3, 16, 16)
    opinion, attention = both.losses(images, student(images))
    assert opinion.abs() < 1e-6
    assert attention < 1e-10


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_can_learn_from_its_static_twin(backbone: str) -> None:
    student = zoo.create_model(f"{backbone}_kw").train()
    both = Teacher(zoo.create_model(f"{backbone}_static"), student)
    images = torch.randn(2, 3, 32, 32)
    opinion, attention = both.losses(images, student(images))
    assert opinion > 0
    assert 0 < attention < 2 * len(student.feature_info)  # maps have length one
    (opinion + attention).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_teachers_that_do_not_fit_are_refused() -> None:
    student = zoo.create_model("testnet_static")
    with pytest.raises(ZooError, match="the teacher tells 7 classes apart and the model 10"):
        Teacher(zoo.create_model("testnet_static", num_classes=7), student)
    with pytest.raises(ZooError, match="Sequential does not say where its stages end"):
        Teacher(nn.Sequential(nn.Flatten()), student)
    with pytest.raises(ZooError, match="the teacher has 4 stages and the model 5; choose a teacher alike"):
        Teacher(timm.create_model("convnext_atto", num_classes=10), student)


@pytest.fixture
def taught(recipe: Recipe, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Return a function that trains ``testnet_static`` with a random, opinionated teacher."""

    def teacher(run: object) -> nn.Module:
        torch.manual_seed(7)
        made = zoo.create_model("testnet_static")
        nn.init.normal_(made.get_classifier().weight, std=5.0)
        return made.eval()

    monkeypatch.setattr(loop._Run, "load_teacher", teacher)

    def go(folder: str, **changes: object) -> tuple[nn.Module, nn.Module]:
        run_dir = tmp_path / folder
        run_dir.mkdir(exist_ok=True)
        torch.manual_seed(0)
        model = zoo.create_model("testnet_static")
        resume = bool(changes.pop("resume", False))
        train(replace(recipe, **changes), model, split, run_dir, resume=resume)
        return model, teacher(None)

    return go


def agreement(model: nn.Module, teacher: nn.Module) -> Tensor:
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return F.cosine_similarity(model.eval()(images), teacher(images)).mean()


def test_a_model_follows_its_teacher(taught: Callable) -> None:
    phases = ((16, 12),)
    alone, teacher = taught("alone", phases=phases)
    follower, _ = taught("taught", phases=phases, teacher="testnet_static", distillation=1.0)
    assert agreement(follower, teacher) > agreement(alone, teacher) + 0.1


def test_a_stopped_run_with_a_teacher_goes_on_as_if_it_had_not(
    taught: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, _ = taught("whole", teacher="testnet_static")
    finish = loop._Run.finish_epoch

    def stop(run: loop._Run, record: dict, save: bool) -> None:
        finish(run, record, save)
        if record["epoch"] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Run, "finish_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        taught("stopped", teacher="testnet_static")
    monkeypatch.setattr(loop._Run, "finish_epoch", finish)
    again, _ = taught("stopped", teacher="testnet_static", resume=True)
    assert read_progress(tmp_path / "stopped").finished
    assert all(
        torch.equal(one, other) for one, other in zip(whole.parameters(), again.parameters(), strict=True)
    )
