"""The commands: exit codes, sentences, and what they leave in the folder."""

import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from safetensors.torch import save_file

import zoo
from export import onnx as onnx_command
from export import torchscript as torchscript_command
from export.__main__ import main as doctor
from export._inputs import real_images
from export.base import RUNTIMES, runtime
from zoo.cli import run
from zoo.errors import ZooError
from zoo.pretrained import CIFAR10_CLASSES, file_sha256, publish

MODEL = "resnet10_static"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_default_output_is_named_after_the_model(name, tmp_path, capsys):
    if reason := runtime(name).available():
        pytest.skip(reason)
    assert run(importlib.import_module(f"export.{name}").main, ["--model", MODEL, "--no-pretrained"]) == 0
    artifact = MODEL + runtime(name).suffix
    assert sorted(file.name for file in tmp_path.iterdir()) == [artifact, f"{artifact}.certificate.json"]
    first, second, *table, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{MODEL}: 4.90 M parameters, random weights")
    assert second.startswith("exported to ")
    assert "dynamic batch, lowering auto (no dynamic layer)" in second
    assert all(line.endswith("ok") for line in table[1:])
    assert last.startswith("certified: max relative error ")
    assert f"; wrote {artifact} (" in last


def test_options_reach_the_artifact(tmp_path, capsys):
    state = zoo.create_model("resnet10_dpk", num_classes=4).state_dict()
    checkpoint = tmp_path / "mine.safetensors"
    save_file(state, checkpoint)
    argv = ["--model", "resnet10_dpk", "--checkpoint", str(checkpoint), "--num-classes", "4", "--size", "24"]
    argv += ["--batch", "2", "--lowering", "grouped", "--output", "mine.pt"]
    assert run(torchscript_command.main, argv) == 0
    about = json.loads((tmp_path / "mine.pt.certificate.json").read_text())["about"]
    assert about["model"] == "resnet10_dpk"
    assert about["weights"] == "weights of mine.safetensors"
    assert about["weights_sha256"] == file_sha256(checkpoint)
    assert about["input_size"] == [3, 24, 24]
    assert about["batch"] == 2
    assert set(about["lowerings"].values()) == {"grouped"}
    assert "class_names" not in about
    assert "batch 2, lowering grouped (8 x grouped)" in capsys.readouterr().out


def test_real_images_join_the_certificate(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    encoded = io.BytesIO()
    Image.effect_noise((32, 32), 60).convert("RGB").save(encoded, "png")
    rows = {"img": [{"bytes": encoded.getvalue()}] * 5, "label": [1, 2, 3, 4, 5]}
    (tmp_path / "data").mkdir()
    parquet.write_table(arrow.table(rows), tmp_path / "data" / "test.parquet")
    argv = ["--model", MODEL, "--no-pretrained", "--data", "data", "--size", "16"]
    assert run(torchscript_command.main, argv) == 0
    record = json.loads((tmp_path / f"{MODEL}.pt.certificate.json").read_text())
    assert record["checks"][-1]["name"] == "real images"
    assert record["checks"][-1]["images"] == 5
    assert record["input_size"] == [3, 16, 16]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--model resnet18_kv", "unknown model 'resnet18_kv'. Did you mean "),
        ("--model M --lowering unfolded", "unknown lowering 'unfolded'"),
        ("--model M --lowering grouped", "the lowering grouped freezes the batch size"),
        ("--model M --lowering single", "the lowering single is right at batch 1 only"),
        ("--model M --lowering single --batch 2", "the lowering single is right at batch 1 only"),
        ("--model M --batch many", "batch 'many' is not a batch size"),
        ("--model M --batch 2.5", "batch '2.5' is not a batch size"),
        ("--model M --batch 0", "batch 0 is not a batch size"),
        ("--model M --size 0", "input size (3, 0, 0)"),
        ("--model M --size 99999999", "input size (3, 99999999, 99999999) is too large"),
        ("--model M --size 99999999 --data nowhere", "input size (3, 99999999, 99999999) is too large"),
        ("--model M --output " + 300 * "x", "File name too long; give another name"),
        ("--model M --size -4", "input size (3, -4, -4)"),
        ("--model M --num-classes 0", "0 classes are too few"),
        ("--model M --num-classes 7", "the pretrained weights have 10 classes, not 7"),
        ("--model M --output no/where.pt", "the folder no does not exist; create it first"),
        ("--model M --output .", "it is a folder; give a file name"),
        ("--model M --no-pretrained --data nowhere", "there is no data folder nowhere"),
        ("--model M --checkpoint no.safetensors", "no checkpoint at no.safetensors"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(argv, words, tmp_path, capsys):
    assert run(torchscript_command.main, argv.replace(" M", f" {MODEL}").split()) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert not any(tmp_path.iterdir())


def test_real_images_that_memory_cannot_hold_are_one_sentence(monkeypatch):
    def huge(pixels, side):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("zoo.training.data.load_cifar10", lambda *args: SimpleNamespace(images=[0] * 300))
    monkeypatch.setattr("zoo.training.augment.normalise", huge)
    with pytest.raises(ZooError, match="256 images of 900 x 900 pixels do not fit in memory"):
        real_images(Path("data"), 900)


@pytest.mark.parametrize("opset", ["17", "99"])
def test_a_bad_opset_names_the_range(opset, capsys):
    assert run(onnx_command.main, ["--model", MODEL, "--opset", opset]) == 2
    assert f"opset {opset} cannot be written; give one from 18 to " in capsys.readouterr().err


def test_a_wrong_artifact_is_code_1_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    right = torchscript_command.TorchScript.export

    def wrong(self, model, path, options):
        model.fc.bias.fill_(3)
        right(self, model, path, options)

    monkeypatch.setattr(torchscript_command.TorchScript, "export", wrong)
    assert run(torchscript_command.main, ["--model", MODEL, "--no-pretrained"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {MODEL}.pt failed ")
    assert "fresh inputs" in printed.err
    assert "certified" not in printed.out
    assert not any(tmp_path.iterdir())


def test_the_command_as_a_process():
    """Bad input ends the process with code 2 and no traceback."""
    argv = [sys.executable, "-m", "export.onnx", "--model", "resnet18_kw", "--lowering", "grouped"]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, cwd=Path(zoo.__file__).parents[1]
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the lowering grouped freezes")
    assert "Traceback" not in done.stderr


def test_pretrained_weights_bring_their_names(tmp_path):
    """In a process of its own, because models learn of their weights when they are registered."""
    weights = tmp_path / "weights"
    weights.mkdir()
    publish(MODEL, zoo.create_model(MODEL).state_dict(), {}, weights)
    argv = [
        sys.executable,
        "-m",
        "export.torchscript",
        "--model",
        MODEL,
        "--output",
        str(tmp_path / "net.pt"),
    ]
    env = {**os.environ, "ZOO_WEIGHTS": str(weights)}
    subprocess.run(argv, check=True, env=env, cwd=Path(zoo.__file__).parents[1], stdout=subprocess.DEVNULL)
    about = json.loads((tmp_path / "net.pt.certificate.json").read_text())["about"]
    assert about["weights"] == "pretrained weights"
    assert about["weights_sha256"] == file_sha256(weights / f"{MODEL}.safetensors")
    assert about["class_names"] == list(CIFAR10_CLASSES)
    assert about["mean"] == about["std"] == [0.5, 0.5, 0.5]


def test_the_doctor_lists_formats_and_reasons(capsys):
    assert run(doctor, []) == 0
    printed = capsys.readouterr().out
    assert "python -m export.onnx --model NAME writes NAME.onnx" in printed
    assert "python -m export.torchscript --model NAME writes NAME.pt" in printed
    lines = [line.split(maxsplit=1) for line in printed.splitlines() if line.startswith("  ")]
    said = [rest for provider, rest in lines if provider in ("cpu", "cuda", "tensorrt")]
    assert len(said) == sum(len(runtime(name).providers) for name in RUNTIMES)
    assert all(rest == "runs" or rest.startswith("does not run: ") for rest in said)


def test_the_doctor_lists_models(capsys):
    assert run(doctor, ["--models"]) == 0
    assert capsys.readouterr().out.split() == zoo.list_models()
