"""Where the weights that a run starts from came from."""

import dataclasses
import hashlib
import os
import platform
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo import cli, pretrained
from zoo.errors import ZooError
from zoo.training import answers, checkpoint, publish
from zoo.training.answers import Answers
from zoo.training.data import Split
from zoo.training.loop import train
from zoo.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("tiny_models")

_CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_dir(recipe: Recipe, split: Split, tmp_path: Path) -> Path:
    """The folder of a finished run that started from a plain file."""
    folder = tmp_path / "run"
    folder.mkdir()
    start = tmp_path / "start.safetensors"
    save_file({"x": torch.zeros(1)}, start)
    command = "train --data /machine/a/b"
    facts = publish.facts(split, None, command, Recipe("testnet_static", warm_start=str(start)))
    train(recipe, zoo.create_model(recipe.model), split, folder, facts=facts)
    return folder


@pytest.mark.parametrize("name", [checkpoint.FILE, "renamed.safetensors"])
def test_origin_of_a_run(run_dir: Path, name: str) -> None:
    found = publish.origin((run_dir / checkpoint.FILE).rename(run_dir / name))
    assert found["model"] == "testnet_static"
    assert found["recipe"] == checkpoint.read_progress(run_dir / name).recipe.to_dict()
    assert found["recipe"]["phases"] == [[16, 2], [32, 1]]
    assert found["command"] == "train --data .../a/b"
    assert found["device"] == publish.device()
    assert (found["epochs"], found["images_seen"]) == (3, 3 * 64)
    assert found["started_from"]["file"] == "start.safetensors"


def test_origin_of_published_weights(
    run_dir: Path, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path))
    publish.publish(run_dir, split)
    from_run = publish.origin(run_dir / checkpoint.FILE)
    weights = tmp_path / "testnet_static.safetensors"
    assert publish.origin(weights) == from_run
    copy = shutil.copy(weights, tmp_path / "copy.safetensors")
    assert publish.origin(copy) == publish.origin(weights)


def test_better_published_weights_stay(
    run_dir: Path, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path))
    accuracies = iter([61.0, 60.5, 60.5, 62.0, 60.5])
    monkeypatch.setattr(publish, "top1", lambda *_args, **_options: next(accuracies))
    assert publish.publish(run_dir, split)["top1_fp32"] == 61.0
    before = (tmp_path / pretrained.MANIFEST).read_text()
    refused = r"the published weights of testnet_static have 61\.00 % .* these 60\.50 %; nothing was replaced"
    with pytest.raises(ZooError, match=refused):
        publish.publish(run_dir, split)
    assert (tmp_path / pretrained.MANIFEST).read_text() == before
    assert publish.publish(run_dir, split, replace_better=True)["top1_fp32"] == 60.5
    assert publish.publish(run_dir, split)["top1_fp32"] == 62.0
    others = dataclasses.replace(split, sha256="of other images")
    with pytest.raises(ZooError, match=r"measured on other images \(made for a test\), so others cannot be"):
        publish.publish(run_dir, others)
    assert publish.publish(run_dir, others, replace_better=True)["top1_fp32"] == 60.5, "no comparison"


@pytest.mark.parametrize(("augmented", "worse"), [(61.0, False), (59.6, False), (59.4, True)])
def test_weights_that_warps_confuse_more_replace_none(
    augmented: float, worse: bool, run_dir: Path, split: Split, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By more than the draws of the warps differ from each other."""
    publish.publish(run_dir, split)
    known = pretrained.read_manifest()["testnet_static"]["figures"]
    figures = {**known, "top1_augmented": 60.0, "top1_augmented_std": 0.5}
    pretrained.publish(
        "testnet_static", zoo.create_model("testnet_static").state_dict(), {"figures": figures}
    )
    before = (weights / pretrained.MANIFEST).read_text()
    reached = {**known, "top1_augmented": augmented}
    monkeypatch.setattr(publish, "top1", lambda *_args, **_options: 99.0)
    monkeypatch.setattr(
        publish,
        "evaluate",
        lambda *_args, **_options: SimpleNamespace(figures=lambda: reached, answers=dict),
    )
    monkeypatch.setattr(answers, "record", lambda *_args: None)
    if worse:
        with pytest.raises(ZooError, match=r"have 60\.00 % of the augmented images right and these 59\.40 %"):
            publish.publish(run_dir, split)
        assert (weights / pretrained.MANIFEST).read_text() == before
        assert publish.publish(run_dir, split, replace_better=True)["top1_augmented"] == augmented
    else:
        assert publish.publish(run_dir, split)["top1_augmented"] == augmented


def test_origin_of_a_run_names_no_folder_of_this_machine(
    recipe: Recipe, split: Split, tmp_path: Path
) -> None:
    started = dataclasses.replace(recipe, warm_start="/machine/runs/base/start.safetensors")
    train(started, zoo.create_model(recipe.model), split, tmp_path)
    found = publish.origin(tmp_path / checkpoint.FILE)
    assert found["recipe"]["warm_start"] == ".../base/start.safetensors"
    assert not {"command", "epochs"} & found.keys(), "the run was told neither"


def test_origin_of_weights_whose_entry_tells_less(weights: Path) -> None:
    entry = {"images_seen": 5, "seconds": 7, "started_from": {"model": "testnet_static", "images_seen": 1}}
    path = pretrained.publish("testnet_static", {"x": torch.zeros(1)}, entry)
    assert publish.origin(path) == {"model": "testnet_static", **entry}


def test_the_device_is_the_processor_and_its_threads(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "on_cuda", lambda: False)
    monkeypatch.setattr(publish.machine, "cpu_model", lambda: "Abacus 3000")
    made = publish.facts(split, None, "train", Recipe("testnet_static", threads=3))
    assert made["device"] == "CPU Abacus 3000, 3 threads"
    assert publish.device() == "CPU Abacus 3000, 1 thread", "tests run with one"
    monkeypatch.setattr(publish.machine, "cpu_model", lambda: None)
    assert publish.device(2) == f"CPU {platform.machine()}, 2 threads"


def test_the_top1_of_the_unrounded_weights_is_kept_too(
    run_dir: Path, split: Split, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = checkpoint.read_ema(run_dir)
    # Class 7 whatever the image, by less than halves can tell: rounded, all classes are as likely.
    state["fc.weight"] = torch.zeros_like(state["fc.weight"])
    state["fc.bias"] = torch.ones(10)
    state["fc.bias"][7] += 1e-5
    monkeypatch.setattr(checkpoint, "read_ema", lambda folder: state)
    publish.publish(run_dir, split)
    figures = pretrained.read_manifest()["testnet_static"]["figures"]
    share = {label: 100 * float((split.labels == label).double().mean()) for label in (0, 7)}
    assert share[0] != share[7]
    assert figures["top1"] == round(share[0], 2)
    assert figures["top1_fp32"] == round(share[7], 2)


def test_publishing_the_same_weights_again_keeps_figures_of_more_draws(
    run_dir: Path, split: Split, weights: Path
) -> None:
    once = publish.publish(run_dir, split)
    fewer = {key: once[key] for key in once if key != "top1_augmented_std"} | {"top1_augmented": 100.0}
    pretrained.record_figures("testnet_static", fewer)
    assert publish.publish(run_dir, split, draws=2)["augmented_draws"] == 2, "not worse than itself"
    more = {**once, "top1_augmented": 12.5, "top1_augmented_std": 0.5, "augmented_draws": 3}
    pretrained.record_figures("testnet_static", {key: more[key] for key in more if key != "top1_fp32"})
    kept = Answers(torch.ones(4, len(split), dtype=torch.bool), split.sha256)
    answers.record("testnet_static", kept)
    assert publish.publish(run_dir, split) == more
    assert torch.equal(answers.read()["testnet_static"].right, kept.right), "the answers behind them too"
    assert pretrained.read_manifest()["testnet_static"]["figures"] == more
    other = zoo.create_model("testnet_static").state_dict()
    pretrained.publish("testnet_static", other, {"figures": more})
    again = publish.publish(run_dir, split, replace_better=True)
    assert again == once, "figures of other weights go with them"
    right = answers.read()["testnet_static"].right
    assert right.shape == (2, len(split))
    assert once["top1"] == round(100 * float(right[0].double().mean()), 2)
    pretrained.record_figures("testnet_static", more)
    (weights / "testnet_static.safetensors").write_bytes(b"half a file")
    again = publish.publish(run_dir, split, replace_better=True)
    assert again == once, "and so do those of a file that cannot be compared"


@pytest.mark.parametrize("name", sorted(pretrained.read_manifest(_CHECKOUT / "weights")))
def test_rounding_costs_the_published_weights_nothing(name: str) -> None:
    figures = pretrained.read_manifest(_CHECKOUT / "weights")[name]["figures"]
    assert figures["top1_fp32"] == pytest.approx(figures["top1"], abs=0.05 + 1e-9)


def test_origin_of_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path))
    path = tmp_path / checkpoint.FILE
    save_file({"x": torch.zeros(1)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert publish.origin(path) == {"file": path.name, "sha256": digest, "images_seen": 0, "seconds": 0}


def test_a_run_from_nothing(split: Split) -> None:
    assert publish.facts(split, None, "train", Recipe("testnet_static"))["started_from"] is None


def test_portable_paths() -> None:
    assert cli.portable("runs/a/b/c") == "runs/a/b/c"
    assert cli.portable(os.path.abspath("/a/b/c/d")) == ".../c/d"
    assert cli.portable("/d") == ".../d"


def test_the_weights_of_the_teacher_are_on_record(split: Split) -> None:
    name, entry = min(pretrained.read_manifest(_CHECKOUT / "weights").items())
    recipe = Recipe("testnet_static", teacher=name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_WEIGHTS", str(_CHECKOUT / "weights"))
        assert publish.facts(split, None, "train", recipe)["teacher_sha256"] == entry["sha256"]
    assert publish.facts(split, None, "train", Recipe("testnet_static"))["teacher_sha256"] is None


def test_the_device_counts_the_threads_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "on_cuda", lambda: False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert publish.device(1).endswith(", 1 thread")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert publish.device(1).endswith(", 2 threads")
    assert publish.device(3).endswith(", 6 threads")


def test_figures_of_more_draws_stay_only_where_they_are_of_the_same_images(
    run_dir: Path, split: Split, weights: Path
) -> None:
    first = publish.publish(run_dir, split, draws=3)
    assert publish.publish(run_dir, split, draws=1)["augmented_draws"] == first["augmented_draws"] == 3
    others = dataclasses.replace(split, sha256="of other images")
    found = publish.publish(run_dir, others, draws=1, replace_better=True)
    assert (found["augmented_draws"], found["data"]["sha256"]) == (1, others.sha256)
