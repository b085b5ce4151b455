import copy

import numpy as np
import pytest
import torch
from torch import nn

from export._trials import BATCHES
from export.base import TRACE_BATCH
from export.certificate import CertificateError
from export.parity import certify, prepared, reference
from zoo.layers import FAMILIES, DynamicConv2d

SIZE = (3, 12, 10)


def failing(certificate):
    return {check.name for check in certificate.failures}


@pytest.fixture(scope="module")
def model(small):
    return small("kw")


@pytest.fixture(scope="module")
def expected(model):
    return reference(model)


def test_the_trace_batch_is_no_certified_one():
    assert TRACE_BATCH > 1
    assert TRACE_BATCH not in BATCHES


def test_a_right_artifact_passes_every_check(model, expected):
    certificate = certify(reference(model), expected, SIZE)
    assert certificate.passed
    assert certificate.max_rel < 1e-6
    assert {check.batch for check in certificate.checks if check.name == "fresh inputs"} == set(BATCHES)
    assert certificate.images == sum(check.images for check in certificate.checks) > sum(BATCHES)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lowering", ["unfold", "contract"])
def test_lowerings_agree_with_the_reference(small, family, lowering):
    model = small(family)
    lowered = prepared(model, lowering)
    assert {module.lowering for module in lowered.modules() if isinstance(module, DynamicConv2d)} == {
        lowering
    }
    certificate = certify(reference_of(lowered), reference(model), SIZE)
    assert certificate.passed, certificate.summary()


def reference_of(lowered):
    """Run a lowered model as it is."""
    with torch.no_grad():
        return lambda images: lowered(torch.from_numpy(images.copy())).detach().numpy()


def test_the_reference_leaves_the_model_as_it_was(small):
    model = small("kw").train()
    lowerings = [module.lowering for module in model.modules() if isinstance(module, DynamicConv2d)]
    before = copy.deepcopy(model.state_dict())
    reference(model)(np.ones((2, *SIZE), np.float32))
    assert model.training
    assert [module.lowering for module in model.modules() if isinstance(module, DynamicConv2d)] == lowerings
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_weights_fail(small, expected):
    certificate = certify(reference(small("kw", seed=1)), expected, SIZE)
    assert failing(certificate) == {check.name for check in certificate.checks} - {
        "mixed batch against single samples",
        "batch in another order",
    }


def test_an_error_just_above_the_tolerance_fails(expected):
    def off(images, by):
        outputs = expected(images)
        outputs[0, 0] += by * np.abs(outputs[0]).max()
        return outputs

    assert certify(lambda images: off(images, 0.5e-4), expected, SIZE).passed
    assert not certify(lambda images: off(images, 2e-4), expected, SIZE).passed


@pytest.mark.parametrize(
    "family", [name for name, layer in FAMILIES.items() if layer.sample_factor != "none"]
)
def test_a_context_shared_by_the_batch_fails(small, family, monkeypatch):
    """One sample's context in another one's kernels: the leak that dynamic kernels invite."""
    model = small(family)
    expected = reference(model)
    clean = {size: expected(np.ones((size, *SIZE), np.float32)) for size in (1, 3)}
    monkeypatch.setattr(DynamicConv2d, "context", lambda self, x: x.mean((0, 2, 3))[None].expand(len(x), -1))
    leaky = reference_of(prepared(model, "unfold"))
    for size, outputs in clean.items():
        np.testing.assert_allclose(leaky(np.ones((size, *SIZE), np.float32)), outputs, rtol=1e-3, atol=1e-4)
    assert "mixed batch against single samples" in failing(certify(leaky, leaky, SIZE))


def test_a_model_that_mixes_samples_fails_although_its_artifact_agrees(expected):
    def mixing(images):
        outputs = expected(images)
        return outputs - 0.01 * outputs.mean(axis=0)

    assert failing(certify(mixing, mixing, SIZE)) == {"mixed batch against single samples"}


def test_a_model_that_depends_on_the_place_in_the_batch_fails(expected):
    def placed(images):
        outputs = expected(images)
        return outputs * (1 + np.arange(len(outputs))[:, None])

    assert "batch in another order" in failing(certify(placed, placed, SIZE))


def test_a_frozen_batch_fails_with_the_shapes(expected):
    certificate = certify(lambda images: expected(images)[:2], expected, SIZE)
    check = certificate.checks[BATCHES.index(5)]
    assert not check.passed
    assert check.note == "output shape (2, 7), expected (5, 7)"


def test_an_artifact_that_raises_fails_with_its_words(expected):
    def picky(images):
        if len(images) != 4:
            raise RuntimeError("batch must be 4\nand a long story")
        return expected(images)

    certificate = certify(picky, expected, SIZE)
    assert certificate.checks[0].note == "RuntimeError: batch must be 4"
    assert not certificate.passed


def test_nan_never_passes(expected):
    def broken(images):
        return np.full_like(expected(images), np.nan)

    certificate = certify(broken, broken, SIZE)
    assert len(certificate.failures) == len(certificate.checks)
    assert np.isnan(certificate.max_rel)
    assert certificate.checks[0].note == "outputs are not finite"


def test_an_artifact_that_reads_memory_without_its_strides_fails(expected):
    def flat(images):
        memory = images.transpose(0, 2, 3, 1)
        return expected(memory.reshape(images.shape) if memory.flags.c_contiguous else images)

    assert failing(certify(flat, expected, SIZE)) == {"memory order NHWC"}


def test_a_wrong_winner_counts_only_where_the_winner_is_clear():
    def tied(images):
        return np.tile(np.array([1, 1, 0], np.float32), (len(images), 1))

    def nudged(images):
        return tied(images) + np.array([0, 1e-6, 0], np.float32)

    assert certify(nudged, tied, SIZE).passed


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_a_fixed_batch_is_certified_at_that_batch_alone(expected, batch):
    seen = set()

    def fixed(images):
        seen.add(len(images))
        return expected(images)

    images = np.random.default_rng(1).standard_normal((7, *SIZE), dtype=np.float32)
    certificate = certify(fixed, expected, SIZE, batch=batch, images=images)
    assert certificate.passed
    assert seen == {batch}
    assert {check.batch for check in certificate.checks} == {batch}
    leaks = {"mixed batch against single samples", "batch in another order"}
    assert leaks.issubset({check.name for check in certificate.checks}) == (batch > 1)
    assert certificate.checks[-1].name == "real images"
    assert certificate.checks[-1].images == 7


def test_one_output_and_no_samples_in_common_still_compare():
    one = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
    assert certify(reference(one), reference(one), SIZE).passed


def test_the_error_lists_the_failing_checks_only(small, expected):
    certificate = certify(lambda images: expected(images)[:1], expected, SIZE)
    text = str(CertificateError(certificate, "net.onnx"))
    assert text.startswith(
        f"net.onnx failed {len(certificate.failures)} of {len(certificate.checks)} parity checks"
    )
    assert text.count("FAILED") == len(certificate.failures) < len(certificate.checks)
