import ctypes
import gc
import json
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import export.torchscript
from export._trials import BATCHES
from export.base import ExportOptions, runtime
from zoo.layers import FAMILIES

SIZE = (3, 12, 10)


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, small, tmp_path_factory):
    """Return (model, certificate, path) of a small model traced with a dynamic batch."""
    model, path = small(request.param), tmp_path_factory.mktemp("torchscript") / "net.pt"
    return model, export.torchscript.export(model, path, input_size=SIZE), path


def assert_agrees(path, model, batch):
    """Compare with the eager model in whatever lowering it has, on inputs the certificate did not see."""
    images = np.random.default_rng(3).standard_normal((batch, *SIZE), dtype=np.float32)
    with torch.inference_mode():
        want = model(torch.from_numpy(images)).numpy()
    got = runtime("torchscript").load(path)(images)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def test_right_at_every_batch_size(exported):
    model, certificate, path = exported
    assert certificate.passed
    assert {check.batch for check in certificate.checks} >= set(BATCHES)
    for batch in (1, 2, 3, 5, 8, 13):
        assert_agrees(path, model, batch)


def test_the_trace_is_frozen_and_needs_no_code_of_this_project(exported):
    module = torch.jit.load(str(exported[2]))
    assert not list(module.parameters())
    assert "zoo" not in module.code


def test_the_metadata_says_what_it_is(exported):
    found = runtime("torchscript").metadata(exported[2])
    assert found["family"] in FAMILIES
    assert json.loads(found["certificate"])["passed"] is True
    assert json.loads(found["versions"]).keys() == {"zoo", "torch", "timm"}


@pytest.mark.parametrize(("lowering", "batch"), [("grouped", 3), ("single", 1), ("unfold", 6)])
def test_a_fixed_batch(small, tmp_path, lowering, batch):
    model, path = small("dpk"), tmp_path / "net.pt"
    assert export.torchscript.export(model, path, lowering=lowering, batch=batch, input_size=SIZE).passed
    assert_agrees(path, model, batch)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident memory as Linux tells it")
def test_exported_models_are_let_go(tmp_path):
    """torch.jit.freeze keeps what it traced itself until the process ends."""
    kept = []
    for _ in range(6):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2048, bias=False)).eval()
        runtime("torchscript").export(model, tmp_path / "model.pt", ExportOptions(input_size=(3, 32, 32)))
        size = 4 * model[1].weight.numel()  # 25 MB
        del model
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        kept.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    assert kept[-1] - kept[1] < 2 * size, "four more exports"


def test_arrays_that_torch_cannot_share_are_copied(exported):
    predict = runtime("torchscript").load(exported[2])
    images = np.random.default_rng(0).standard_normal((2, *SIZE), dtype=np.float32)
    mirrored = np.ascontiguousarray(images[..., ::-1])
    np.testing.assert_allclose(predict(images[..., ::-1]), predict(mirrored), rtol=1e-5)
    one = np.broadcast_to(images[:1], images.shape)
    np.testing.assert_allclose(predict(one)[1], predict(images[:1])[0], rtol=1e-4)


def test_tf32_is_off_only_while_an_artifact_runs():
    parts = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = [part.fp32_precision for part in parts]
    with export.torchscript.no_tf32():
        assert [part.fp32_precision for part in parts] == ["ieee", "ieee"]
    assert [part.fp32_precision for part in parts] == before
