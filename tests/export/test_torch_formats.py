"""The formats that torch runs: right at every batch size, without this project's code."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export._torch import TorchRuntime, no_tf32
from export._trials import BATCHES
from export.base import RUNTIMES, ExportOptions, runtime
from export.parity import prepared
from zoo.layers import FAMILIES

SIZE = (3, 12, 10)
FORMATS = [name for name in RUNTIMES if isinstance(runtime(name), TorchRuntime)]


@pytest.fixture(
    scope="module", params=[(name, family) for name in FORMATS for family in FAMILIES], ids="-".join
)
def exported(request, small, tmp_path_factory):
    """Return (format, model, certificate, path) of a small model exported with a dynamic batch."""
    name, family = request.param
    model, path = small(family), tmp_path_factory.mktemp(name) / f"net{runtime(name).suffix}"
    return name, model, importlib.import_module(f"export.{name}").export(model, path, input_size=SIZE), path


def assert_agrees(name, path, model, batch):
    """Compare with the eager model in whatever lowering it has, on inputs the certificate did not see."""
    images = np.random.default_rng(3).standard_normal((batch, *SIZE), dtype=np.float32)
    with torch.inference_mode():
        want = model(torch.from_numpy(images)).numpy()
    got = runtime(name).load(path)(images)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def test_right_at_every_batch_size(exported):
    name, model, certificate, path = exported
    assert {check.batch for check in certificate.checks} >= set(BATCHES)
    for batch in (1, 2, 3, 5, 8, 13):
        assert_agrees(name, path, model, batch)


def test_the_metadata_says_what_it_is(exported):
    name, _, _, path = exported
    found = runtime(name).metadata(path)
    assert found["family"] in FAMILIES
    assert json.loads(found["certificate"])["tolerance"] == 1e-4
    assert json.loads(found["versions"]).keys() == {"zoo", "torch", "timm"}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("lowering", "batch"), [("grouped", 3), ("single", 1), ("unfold", 6)])
def test_a_fixed_batch(small, tmp_path, lowering, batch, name):
    model, path = small("dpk"), tmp_path / "net"
    export = importlib.import_module(f"export.{name}").export
    assert export(model, path, lowering=lowering, batch=batch, input_size=SIZE).batch == batch
    assert_agrees(name, path, model, batch)


@pytest.mark.parametrize("name", FORMATS)
def test_arrays_that_torch_cannot_share_are_copied(name, small, tmp_path):
    path = tmp_path / "net"
    importlib.import_module(f"export.{name}").export(small("kw"), path, input_size=SIZE)
    predict = runtime(name).load(path)
    images = np.random.default_rng(0).standard_normal((2, *SIZE), dtype=np.float32)
    mirrored = np.ascontiguousarray(images[..., ::-1])
    np.testing.assert_allclose(predict(images[..., ::-1]), predict(mirrored), rtol=1e-5)
    one = np.broadcast_to(images[:1], images.shape)
    np.testing.assert_allclose(predict(one)[1], predict(images[:1])[0], rtol=1e-4)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_does_not_abort_torch(name, small):
    with pytest.raises(OSError, match="No space left on device"):
        runtime(name).export(
            prepared(small("kw"), "unfold"), Path("/dev/full"), ExportOptions(input_size=SIZE)
        )


def test_tf32_is_off_only_while_an_artifact_runs():
    parts = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = [part.fp32_precision for part in parts]
    with no_tf32():
        assert [part.fp32_precision for part in parts] == ["ieee", "ieee"]
    assert [part.fp32_precision for part in parts] == before
