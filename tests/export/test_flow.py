"""The way from a model to files: what is written, what is not, and in whose name."""

import errno
import hashlib
import json
from dataclasses import replace

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


class Scaled(nn.Module):
    """A layer that multiplies by one number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


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


@pytest.mark.parametrize(("factor", "words"), [(1 + 2**-20, "as shipped"), (float("nan"), "not finite")])
def test_an_annotation_that_changes_the_numbers_leaves_nothing_behind(factor, words, model, tmp_path):
    """The certificate is of the file before it holds one; the file that is shipped must compute the same."""

    class Careless(TorchScript):
        def annotate(self, path, metadata):
            if "certificate" in metadata:
                other = nn.Sequential(model, Scaled(factor)).eval()
                self.export(prepared(other, "unfold"), path, SIZED)
            super().annotate(path, metadata)

    with pytest.raises(CertificateError, match=words):
        _flow.export(Careless(), model, tmp_path / "net.pt", SIZED)
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_one_sentence(model, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TorchScript, "annotate", full)
    with pytest.raises(ZooError, match=r"net\.pt: No space left on device; make room"):
        _flow.export(TorchScript(), model, tmp_path / "net.pt", SIZED)
    assert not any(tmp_path.iterdir())


def test_relaxed_checks_are_counted(model, tmp_path, monkeypatch):
    right = _flow.certify
    said: list[str] = []

    def relaxed(*args, **kwargs):
        certificate = right(*args, **kwargs)
        *checks, last = certificate.checks
        return replace(certificate, checks=(*checks, replace(last, allowed=0.01)))

    monkeypatch.setattr(_flow, "certify", relaxed)
    certificate = _flow.export(TorchScript(), model, tmp_path / "net.pt", SIZED, say=said.append)
    assert f", 1 of {len(certificate.checks)} checks relaxed; wrote " in said[-1]


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


def test_a_static_model_takes_any_lowering(tmp_path):
    static = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torchscript.export(static, tmp_path / "net.pt", input_size=SIZE, lowering="unfold")
    found = TorchScript().metadata(tmp_path / "net.pt")
    assert found["family"] == "static"
    assert found["lowerings"] == "{}"
