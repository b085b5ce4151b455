"""``python -m zoo.train`` and ``python -m zoo.evaluate``, from the command line to the manifest."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo import cli, evaluate, pretrained, train
from zoo.training import checkpoint

from .helpers import WriteParquet

pytestmark = pytest.mark.usefixtures("tiny_models")

Command = Callable[..., int]


@pytest.fixture
def data(write_parquet: WriteParquet) -> Path:
    """A folder with four images of each split."""
    write_parquet("train.parquet")
    return write_parquet("test.parquet")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder, in use."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("ZOO_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "run"


@pytest.fixture
def zoo_train(data: Path, run_dir: Path, weights: Path) -> Command:
    """Return a function that runs the command with the data and the run folder given."""

    def run(*words: str) -> int:
        return cli.run(train.main, ["--data", str(data), "--run-dir", str(run_dir), *words])

    return run


SHORT = ("--model", "testnet_static", "--phases", "16:1", "32:1", "--batch-size", "2", "--data-note", "tiny")


def test_train_publish_evaluate(
    zoo_train: Command, run_dir: Path, weights: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    assert zoo_train(*SHORT, "--publish") == 0
    assert "published: top-1" in capsys.readouterr().out
    entry = json.loads((weights / "manifest.json").read_text())["testnet_static"]
    assert entry["epochs"] == 2
    assert entry["images_seen"] == 8
    assert entry["recipe"]["phases"] == [[16, 1], [32, 1]]
    assert entry["data"]["note"] == "tiny"
    assert entry["versions"].keys() == {"python", "torch", "torchvision", "timm", "zoo"}
    assert entry["figures"]["images"] == 4
    assert str(data) not in json.dumps(entry), "the manifest names no folder of this machine"
    published = pretrained.load_checkpoint(weights / entry["file"])
    ema = checkpoint.read_ema(run_dir)
    assert published["conv1.weight"].dtype is torch.float16
    assert torch.equal(published["conv1.weight"], ema["conv1.weight"].half())

    words = ["--model", "testnet_static", "--data", str(data), "--checkpoint", str(run_dir / checkpoint.FILE)]
    assert cli.run(evaluate.main, words) == 0
    assert "testnet_static" in capsys.readouterr().out


def test_evaluate_writes_figures(
    zoo_train: Command, weights: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo_train(*SHORT, "--publish")
    # timm knows of weights from the time of registration; here they came later.
    create = zoo.create_model
    path = weights / "testnet_static.safetensors"
    monkeypatch.setattr(zoo, "create_model", lambda name, pretrained: create(name, checkpoint=path))
    before = pretrained.manifest_entry("testnet_static")
    words = ["--model", "testnet_*", "--data", str(data), "--rotations"]

    assert cli.run(evaluate.main, [*words, "--no-write"]) == 0
    assert pretrained.manifest_entry("testnet_static") == before
    assert cli.run(evaluate.main, words) == 0
    after = pretrained.manifest_entry("testnet_static")
    assert before is not None
    assert after is not None
    assert after["figures"]["top1"] == before["figures"]["top1"]
    assert len(after["figures"]["top1_rotated"]) == 7


def test_warm_start_and_resume(zoo_train: Command, run_dir: Path, capsys: pytest.CaptureFixture) -> None:
    assert zoo_train(*SHORT) == 0
    static = run_dir / checkpoint.FILE
    twin = ["--model", "testnet_kw", "--epochs", "1", "--batch-size", "4", "--warm-start", str(static)]
    twin += ["--run-dir", str(run_dir / "twin")]
    assert zoo_train(*twin) == 0
    assert "8 dynamic layers, largest relative error of the kernels" in capsys.readouterr().out
    assert zoo_train(*twin, "--resume") == 0
    assert zoo_train("--run-dir", str(run_dir / "twin"), "--resume") == 0
    assert checkpoint.read_progress(run_dir / "twin").recipe.model == "testnet_kw"


def test_publish_only(zoo_train: Command, weights: Path) -> None:
    assert zoo_train(*SHORT) == 0
    assert not list(weights.iterdir())
    assert zoo_train("--publish-only") == 0
    assert (weights / "testnet_static.safetensors").exists()


def test_an_unfinished_run_is_not_published(
    zoo_train: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    save = checkpoint.save

    def stop_after(*args: object) -> None:
        save(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", stop_after)
    assert zoo_train(*SHORT) == 130
    assert zoo_train("--publish-only") == 2
    assert "has done 1 of 2 epochs; finish it with --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "testnet_statik"), "unknown model 'testnet_statik'. Did you mean testnet_static"),
        (("--model", "testnet_static", "--resume"), "there is no checkpoint in"),
        (("--publish-only",), "there is no checkpoint in"),
        ((), "give the --model to train"),
        (("--model", "testnet_static", "--phases", "16x4"), "'16x4' is not a phase; write SIZE:EPOCHS"),
        (("--model", "testnet_static", "--epochs", "0"), "phases is ((32, 0),); it must be"),
        (("--model", "testnet_static", "--lr", "-1"), "lr is -1.0; it must be above 0"),
        (("--model", "testnet_static", "--eval-every", "-1"), "--eval-every is -1"),
        (("--model", "testnet_static", "--data", "absent"), "there is no data folder absent"),
        (
            ("--model", "testnet_kw", "--warm-start", "absent.safetensors"),
            "no checkpoint at absent.safetensors",
        ),
        (("--model", "testnet_static", "--batch-size", "5"), "batch_size 5 exceeds the 4 images"),
    ],
)
def test_errors(
    zoo_train: Command, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert zoo_train(*words) == 2
    assert message in capsys.readouterr().err


def test_a_run_is_not_overwritten(zoo_train: Command, capsys: pytest.CaptureFixture) -> None:
    assert zoo_train(*SHORT) == 0
    assert zoo_train(*SHORT) == 2
    assert "already holds a run; add --resume" in capsys.readouterr().err


def test_resuming_with_other_settings(zoo_train: Command, capsys: pytest.CaptureFixture) -> None:
    assert zoo_train(*SHORT) == 0
    assert zoo_train(*SHORT, "--lr", "0.5", "--resume") == 2
    assert "has lr 0.002, not 0.5; resume with its own settings" in capsys.readouterr().err


def test_run_dir_that_cannot_be_made(
    zoo_train: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert zoo_train(*SHORT, "--run-dir", str(tmp_path / "file" / "run")) == 2
    assert "Not a directory; choose another --run-dir" in capsys.readouterr().err


def test_nothing_to_train(capsys: pytest.CaptureFixture) -> None:
    assert cli.run(train.main, []) == 2
    assert "nothing to train: give --model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "none_*"), "no model with trained weights matches 'none_*'"),
        (("--model", "testnet_statik"), "unknown model 'testnet_statik'"),
        (("--model", "testnet_static"), "testnet_static has no trained weights yet"),
        (
            ("--model", "testnet_static", "testnet_kw", "--checkpoint", "f"),
            "belongs to one model, but 2 were given",
        ),
        (("--model", "testnet_static", "--batch-size", "0"), "--batch-size is 0; it must be at least 1"),
        (("--model", "testnet_static", "--checkpoint", "absent"), "no checkpoint at absent"),
        (("--model", "testnet_static", "--checkpoint", "other"), "other does not fit the model: Missing key"),
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


def test_portable_paths() -> None:
    from zoo.training.publish import portable

    assert portable("runs/a/b/c") == "runs/a/b/c"
    assert portable(os.path.abspath("/a/b/c/d")) == ".../c/d"
    assert portable("/d") == ".../d"
