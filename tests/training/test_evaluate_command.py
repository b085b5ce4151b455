"""``python -m zoo.evaluate``, from the command line to the manifest."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo import cli, evaluate, pretrained
from zoo.training import answers, invariance

from .helpers import SHORT, Command

pytestmark = pytest.mark.usefixtures("tiny_models")


@pytest.fixture
def published(tiny_models: None, zoo_train: Command, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of ``testnet_static``, in use."""
    assert zoo_train(*SHORT, "--publish") == 0
    # timm knows of weights from the time of registration; here they came later.
    create = zoo.create_model
    path = weights / "testnet_static.safetensors"
    monkeypatch.setattr(zoo, "create_model", lambda name, pretrained: create(name, checkpoint=path))


def figures() -> dict[str, Any]:
    entry = pretrained.manifest_entry("testnet_static")
    assert entry is not None
    return entry["figures"]


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("model", ["testnet_*", "testnet_static.cifar10"])
def test_evaluate_writes_figures(data: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "TEST_IMAGES", 4)
    before = figures()
    words = ["--model", model, "--data", str(data), "--draws", "6", "--curves", "3"]
    assert cli.run(evaluate.main, [*words, "--no-write"]) == 0
    assert figures() == before
    assert invariance.read() == {}
    assert len(answers.read()["testnet_static"].right) == 1 + before["augmented_draws"], "of publishing"
    only = ["--model", model, "--data", str(data), "--curves", "2", "--only-curves"]
    assert cli.run(evaluate.main, only) == 0
    assert figures() == before
    assert invariance.read()["testnet_static"]["images"] == 2
    assert cli.run(evaluate.main, words) == 0
    assert figures()["top1"] == before["top1"]
    assert figures()["augmented_draws"] == 6 > before["augmented_draws"]
    assert figures()["data"] == before["data"], "what was said of the same images is kept"
    assert before["data"]["note"] == "tiny"
    right = answers.read()["testnet_static"].right
    assert right.shape == (7, 4)
    assert figures()["top1"] == 100 * right[0].double().mean()
    (followed,) = invariance.read().values()
    assert followed["images"] == 3
    assert followed["top1"].keys() == invariance.STEPS.keys()


@pytest.mark.usefixtures("published")
def test_figures_of_more_draws_are_kept_unless_forced(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(evaluate, "TEST_IMAGES", 4)
    words = ["--model", "testnet_static", "--data", str(data)]
    fp32 = figures()["top1_fp32"]
    assert cli.run(evaluate.main, words) == 0
    before = figures()
    assert before["augmented_draws"] == evaluate.DRAWS > 1
    assert "top1_augmented_std" in before
    assert before["top1_fp32"] == fp32, "it cannot be measured again"
    assert 0 <= before["calibration_error"] <= 100
    capsys.readouterr()

    said = (
        "not recorded: the weights folder has figures of testnet_static "
        f"of --draws {evaluate.DRAWS}, more than 2; give as many, or --force to replace them."
    )
    few = [*words, "--draws", "2"]
    assert cli.run(evaluate.main, [*few, "--curves", "2"]) == 0
    assert said in capsys.readouterr().out
    assert figures() == before
    assert len(answers.read()["testnet_static"].right) == 1 + evaluate.DRAWS
    assert invariance.read()["testnet_static"]["images"] == 2, "curves are recorded all the same"
    assert cli.run(evaluate.main, [*few, "--no-write"]) == 0
    assert said not in capsys.readouterr().out
    assert cli.run(evaluate.main, [*few, "--force"]) == 0
    assert said not in capsys.readouterr().out
    assert figures()["augmented_draws"] == 2
    assert len(answers.read()["testnet_static"].right) == 3


@pytest.mark.usefixtures("published")
def test_what_is_known_of_more_or_other_images_is_kept_unless_forced(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(evaluate, "TEST_IMAGES", 4)
    words = ["--model", "testnet_static", "--data", str(data), "--curves"]
    assert cli.run(evaluate.main, [*words, "9"]) == 0
    assert "not recorded" not in capsys.readouterr().out
    curves, before = invariance.read()["testnet_static"], figures()
    assert curves["images"] == 4, "all there are"
    assert cli.run(evaluate.main, [*words, "3"]) == 0
    assert "curves of testnet_static of --curves 4, more than 3; give as many, or" in capsys.readouterr().out
    assert invariance.read()["testnet_static"] == curves
    assert cli.run(evaluate.main, [*words, "3", "--force"]) == 0
    assert invariance.read()["testnet_static"]["images"] == 3

    other = {"data": {**before["data"], "sha256": "of others"}}
    pretrained.record_figures("testnet_static", {**before, **other})
    invariance.record("testnet_static", {**curves, **other})
    assert cli.run(evaluate.main, [*words, "4"]) == 0
    printed = capsys.readouterr().out
    for what in ("figures", "curves"):
        kept = f"{what} of testnet_static of other images (CIFAR-10, parquet folder data, test)"
        assert f"not recorded: the weights folder has {kept}; give the same --data" in printed
    assert figures()["data"]["sha256"] == invariance.read()["testnet_static"]["data"]["sha256"] == "of others"
    assert cli.run(evaluate.main, [*words, "4", "--force"]) == 0
    assert figures()["data"]["sha256"] == before["data"]["sha256"]
    assert invariance.read()["testnet_static"]["data"]["sha256"] == before["data"]["sha256"]


@pytest.mark.usefixtures("published")
def test_figures_of_a_few_images_are_not_recorded(data: Path, capsys: pytest.CaptureFixture) -> None:
    pretrained.record_figures("testnet_static", {"top1": 55.0, "images": 10_000})
    before = figures()
    words = ["--model", "testnet_static", "--data", str(data)]
    said = "not recorded: CIFAR-10, parquet folder data, test has 4 images, not 10,000"
    assert cli.run(evaluate.main, words) == 0
    printed = capsys.readouterr().out
    assert "testnet_static  " in printed
    assert said in printed
    assert figures() == before
    assert cli.run(evaluate.main, [*words, "--no-write"]) == 0
    assert said not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "none_*"), "no model with trained weights matches 'none_*'"),
        (("--model", "testnet_statik"), "unknown model 'testnet_statik'"),
        (("--model", "testnet_static"), "testnet_static has no trained weights yet; give a --checkpoint"),
        (
            ("--model", "testnet_static", "testnet_kw", "--checkpoint", "f"),
            "belongs to one model, but 2 were given",
        ),
        (("--model", "testnet_static", "--batch-size", "0"), "--batch-size is 0; it must be at least 1"),
        (("--model", "testnet_static", "--draws", "0"), "--draws is 0; it must be at least 1"),
        (("--model", "testnet_static", "--curves", "0"), "--curves is 0; it must be at least 1"),
        (
            ("--model", "testnet_static", "--only-curves", "--curves", "9", "--draws", "2"),
            "--draws is about the figures that --only-curves leaves out",
        ),
        (("--model", "testnet_static", "--only-curves"), "say with --curves on how many images"),
        (("--model", "testnet_static", "--checkpoint", "absent"), "no checkpoint at absent"),
        (
            ("--model", "testnet_static", "--checkpoint", "other"),
            "other does not fit the model: 81 of 81 tensors differ, the first is bn1.bias",
        ),
    ],
)
def test_evaluate_errors(
    words: tuple[str, ...],
    message: str,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"x": torch.zeros(1)}, "other")
    assert cli.run(evaluate.main, words) == 2
    assert message in capsys.readouterr().err
