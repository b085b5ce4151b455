"""The way from a model to files: what is written, what is not, and in whose name."""

import hashlib
import json

import numpy as np
import pytest
import torch
from torch import nn

from export import _flow, torchscript
from export.base import ExportOptions
from export.certificate import CertificateError
from export.parity import prepared
from export.torchscript import TorchScript
from zoo.errors import ZooError

SIZE = (3, 12, 10)
SIZED = ExportOptions(input_size=SIZE)


@pytest.fixture(scope="module")
def model(small):
    return small("kw")


class Frozen(TorchScript):
    """An exporter that freezes the batch it traced."""

    def export(self, model, path, options):
        super().export(prepared(model, "grouped"), path, options)


class Forgetful(TorchScript):
    """An exporter that stores other weights."""

    def export(self, model, path, options):
        with torch.no_grad():
            model[-1].bias += 0.01
        super().export(model, path, options)


class Mixing(nn.Module):
    """A model whose outputs depend on the rest of the batch."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        y = self.inner(x)
        return y - 0.01 * y.mean(0, keepdim=True)


def test_the_certificate_lies_beside_the_artifact(model, tmp_path):
    path = tmp_path / "net.v1.pt"
    certificate = _flow.export(TorchScript(), model, path, SIZED)
    record = json.loads((tmp_path / "net.v1.pt.certificate.json").read_text())
    content = path.read_bytes()
    assert record["passed"] is True
    assert record["artifact"] == {
        "file": "net.v1.pt",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    assert record["tolerance"] == 1e-4
    assert record["about"]["family"] == "kw"
    assert len(record["checks"]) == len(certificate.checks)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.v1.pt", "net.v1.pt.certificate.json"]


@pytest.mark.parametrize("runtime", [Frozen(), Forgetful()], ids=["frozen batch", "other weights"])
def test_a_wrong_artifact_leaves_nothing_behind(runtime, model, tmp_path):
    with pytest.raises(CertificateError) as caught:
        _flow.export(runtime, model, tmp_path / "net.pt", SIZED)
    assert not caught.value.certificate.passed
    assert "FAILED" in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_model_that_mixes_samples_leaves_nothing_behind(model, tmp_path):
    with pytest.raises(CertificateError, match="mixed batch against single samples"):
        _flow.export(TorchScript(), Mixing(model), tmp_path / "net.pt", SIZED)
    assert not any(tmp_path.iterdir())


def test_an_older_artifact_survives_a_failure(model, tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(b"older")
    _flow.certificate_path(path).write_text("older certificate")
    with pytest.raises(CertificateError):
        _flow.export(Frozen(), model, path, SIZED)
    assert path.read_bytes() == b"older"
    assert _flow.certificate_path(path).read_text() == "older certificate"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_frozen_exporter_is_right_for_a_fixed_batch(model, tmp_path):
    options = ExportOptions(input_size=SIZE, batch=2)
    assert _flow.export(Frozen(), model, tmp_path / "net.pt", options).passed


def test_real_images_class_names_and_metadata_are_taken(model, tmp_path):
    path = tmp_path / "net.pt"
    images = np.random.default_rng(0).standard_normal((21, *SIZE), dtype=np.float32)
    names = list("abcdefg")
    certificate = torchscript.export(
        model, path, input_size=SIZE, images=images, class_names=names, metadata={"owner": "us"}
    )
    assert certificate.checks[-1].name == "real images"
    assert certificate.checks[-1].images == 21
    found = TorchScript().metadata(path)
    assert json.loads(found["class_names"]) == names
    assert found["owner"] == "us"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "does not say its input size"),
        ({"input_size": (4, 12, 10)}, "Sequential cannot take inputs of 4x12x10"),
        ({"input_size": SIZE, "class_names": ["cat"]}, "1 class names were given for a model with 7 outputs"),
        (
            {"input_size": SIZE, "images": np.zeros((2, 3, 9, 9), np.float32)},
            r"images of shape \(2, 3, 9, 9\)",
        ),
        ({"input_size": SIZE, "images": np.zeros((2, *SIZE))}, "float64, do not fit the model"),
        ({"input_size": SIZE, "images": np.zeros((0, *SIZE), np.float32)}, r"images of shape \(0, 3"),
        ({"input_size": SIZE, "lowering": "single"}, "right at batch 1 only"),
    ],
)
def test_bad_arguments_say_what_is_wrong(model, tmp_path, arguments, words):
    with pytest.raises(ZooError, match=words) as caught:
        torchscript.export(model, tmp_path / "net.pt", **arguments)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_model_with_two_outputs_is_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ZooError, match="Two must map one tensor"):
        torchscript.export(Two(), tmp_path / "net.pt", input_size=SIZE)


def test_places_that_cannot_be_written_are_refused_before_the_model_is_made(tmp_path):
    with pytest.raises(ZooError, match="it is a folder; give a file name"):
        torchscript.export("no such model", tmp_path)
    with pytest.raises(ZooError, match="does not exist; create it first"):
        torchscript.export("no such model", tmp_path / "missing" / "net.pt")


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_flow.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ZooError, match="is not writable; choose another"):
        torchscript.export("no such model", tmp_path / "net.pt")


def test_a_runtime_that_is_missing_is_said_before_the_model_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(TorchScript, "available", lambda self, provider="cpu": "torch is broken")
    with pytest.raises(ZooError, match="cannot certify TorchScript here: torch is broken"):
        torchscript.export("no such model", tmp_path / "net.pt")


def test_a_static_model_takes_any_lowering(tmp_path):
    static = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torchscript.export(static, tmp_path / "net.pt", input_size=SIZE, lowering="unfold")
    found = TorchScript().metadata(tmp_path / "net.pt")
    assert found["family"] == "static"
    assert found["lowerings"] == "{}"
