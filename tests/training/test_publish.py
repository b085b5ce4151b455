"""Where the weights that a run starts from came from."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo import pretrained
from zoo.training import checkpoint, publish
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
    facts = publish.facts(split, None, "train", Recipe("testnet_static", warm_start=str(start)))
    train(recipe, zoo.create_model(recipe.model), split, folder, facts=facts)
    return folder


@pytest.mark.parametrize("name", [checkpoint.FILE, "renamed.safetensors"])
def test_origin_of_a_run(run_dir: Path, name: str) -> None:
    found = publish.origin((run_dir / checkpoint.FILE).rename(run_dir / name))
    assert found["model"] == "testnet_static"
    assert found["phases"] == ((16, 2), (32, 1))
    assert found["images_seen"] == 3 * 64
    assert found["augmentation"]["degrees"] == 180
    assert found["started_from"]["file"] == "start.safetensors"


def test_origin_of_published_weights(
    run_dir: Path, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path))
    publish.publish(run_dir, split)
    from_run = publish.origin(run_dir / checkpoint.FILE)
    weights = tmp_path / "testnet_static.safetensors"
    assert publish.origin(weights) == from_run | {"phases": [[16, 2], [32, 1]]}
    copy = shutil.copy(weights, tmp_path / "copy.safetensors")
    assert publish.origin(copy) == publish.origin(weights)


def test_origin_of_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path))
    path = tmp_path / checkpoint.FILE
    save_file({"x": torch.zeros(1)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert publish.origin(path) == {"file": path.name, "sha256": digest, "images_seen": 0, "seconds": 0}


def test_a_run_from_nothing(split: Split) -> None:
    assert publish.facts(split, None, "train", Recipe("testnet_static"))["started_from"] is None


def test_portable_paths() -> None:
    assert publish.portable("runs/a/b/c") == "runs/a/b/c"
    assert publish.portable(os.path.abspath("/a/b/c/d")) == ".../c/d"
    assert publish.portable("/d") == ".../d"


def test_the_weights_of_the_teacher_are_on_record(split: Split) -> None:
    name, entry = min(pretrained.read_manifest(_CHECKOUT / "weights").items())
    recipe = Recipe("testnet_static", teacher=name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_WEIGHTS", str(_CHECKOUT / "weights"))
        assert publish.facts(split, None, "train", recipe)["teacher_sha256"] == entry["sha256"]
    assert publish.facts(split, None, "train", Recipe("testnet_static"))["teacher_sha256"] is None
