import dataclasses

import pytest

from export.benchmark.engines import ENGINES
from export.benchmark.plan import Candidate, Request, plan
from zoo.errors import ZooError
from zoo.layers import FAMILIES, lowerings_of

KW = Candidate("benchnet_kw", "eager")


def planned(*models, **asked):
    return plan(Request(models, **{"runtimes": ["eager"], "batches": [1], "peers": False, **asked}))


def test_a_static_twin_stands_beside_every_dynamic_model():
    found = planned("benchnet_kw", "benchnet_dpk", batches=[1, 8], threads=[1, 2])
    assert len(found.candidates) == 3 * 4
    assert not found.notes
    for candidate in found.candidates:
        assert candidate.twin in found.candidates
    assert sum(candidate.is_static for candidate in found.candidates) == 4


def test_what_shares_threads_and_batch_stands_together():
    found = planned("benchnet_kw", batches=[8, 1], threads=[2, 1], runtimes=["torchscript", "eager"])
    groups = [(each.threads, each.batch) for each in found.candidates]
    assert groups == sorted(groups)
    assert len(set(groups)) == 4


def test_a_twin_runs_like_its_model_with_its_batch_free():
    candidate = Candidate("resnet18_kw", "onnx", "cuda", "fp32", "grouped", 8, 2)
    assert candidate.twin == Candidate("resnet18_static", "onnx", "cuda", "fp32", "auto", 8, 2)
    assert candidate.twin.twin == candidate.twin
    assert candidate.frozen
    assert not candidate.twin.frozen


@pytest.mark.parametrize(
    ("lowering", "frozen"),
    [
        ("auto", False),
        ("unfold", False),
        ("experts", False),
        ("grouped", True),
        ("single", True),
        ("timm", True),
    ],
)
def test_a_frozen_batch(lowering, frozen):
    assert dataclasses.replace(KW, lowering=lowering).frozen is frozen


def test_artifacts_for_one_batch_size_each():
    """Where there are artifacts; their twins are alike, as both would be deployed for that size."""
    found = planned("benchnet_kw", batches=[3], runtimes=["onnx", "eager"], peers=True, fixed=True).candidates
    assert {(each.where, each.frozen, each.twin.frozen) for each in found if each.lowering == "auto"} == {
        ("onnx fixed", True, True),
        ("eager", False, False),
    }
    assert not any(each.is_usual for each in found if each.runtime == "onnx")


def test_labels_say_what_is_unusual():
    assert (KW.label, KW.where) == ("benchnet_kw", "eager")
    other = Candidate("benchnet_condconv", "eager", "cuda", "bf16", "timm")
    assert (other.label, other.where) == ("benchnet_condconv (timm)", "eager cuda bf16")


def test_peers_are_what_people_run_today():
    found = planned("benchnet_kw", "benchnet_condconv", peers=True)
    assert {each.label for each in found.candidates} == {
        "benchnet_static",
        "benchnet_kw",
        "benchnet_kw (grouped)",
        "benchnet_condconv",
        "benchnet_condconv (timm)",
    }


def test_a_lowering_that_a_family_lacks_is_a_note():
    found = planned("benchnet_kw", "benchnet_condconv", lowerings=["experts", "auto"])
    assert {each.label for each in found.candidates if not each.is_static} == {
        "benchnet_kw",
        "benchnet_condconv",
        "benchnet_condconv (experts)",
    }
    assert found.notes == ("benchnet_kw has no lowering experts: skipped",)


def test_all_lowerings_are_those_of_the_family():
    found = planned("benchnet_kw", "benchnet_condconv", lowerings=["all"], batches=[1, 4])
    for family in ("kw", "condconv"):
        own = {"auto", *lowerings_of(FAMILIES[family])}
        for batch, expected in ((1, own), (4, own - {"single"})):
            lowerings = {
                each.lowering
                for each in found.candidates
                if each.model == f"benchnet_{family}" and each.batch == batch
            }
            assert lowerings == expected
    assert found.notes == ("lowering single is right at batch 1 only: skipped at others",)


def test_a_lowering_that_only_depthwise_layers_have_is_theirs():
    found = planned("mobilenetv2_100_kw", "resnet18_kw", lowerings=["scaled"])
    assert {each.label for each in found.candidates if not each.is_static} == {"mobilenetv2_100_kw (scaled)"}
    assert found.notes == ("resnet18_kw has no lowering scaled: skipped",)


def test_what_does_not_run_here_is_said_once(monkeypatch):
    for name in ("eager", "torchscript"):
        monkeypatch.setattr(
            type(ENGINES[name]), "available", lambda self, device: "no driver" if device == "cuda" else None
        )
    found = planned("benchnet_kw", "benchnet_dpk", runtimes=["eager", "torchscript"], devices=["cpu", "cuda"])
    assert {each.device for each in found.candidates} == {"cpu"}
    assert found.notes == ("skipped eager, torchscript on cuda: no driver",)
    with pytest.raises(ZooError, match="nothing to measure: skipped eager on cuda: no driver"):
        planned("benchnet_kw", devices=["cuda"])


def test_a_dtype_that_an_engine_lacks_is_said():
    found = planned("benchnet_kw", runtimes=["eager", "torchscript"], dtypes=["fp32", "bf16"])
    assert {each.dtype for each in found.candidates} == {"fp32"}
    assert found.notes == (
        "skipped eager on cpu: bf16 is measured on cuda alone",
        "skipped torchscript on cpu: there is no bf16 for it yet",
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"models": ["benchnet_kv"]}, "unknown model 'benchnet_kv'.*Did you mean .*benchnet_kw"),
        ({"runtimes": ["onxn"]}, "unknown runtime 'onxn'; there are eager, .*Did you mean onnx"),
        ({"lowerings": ["unfolded"]}, "unknown lowering 'unfolded'.*Did you mean unfold"),
        ({"devices": ["gpu0"]}, "unknown device 'gpu0'"),
        ({"dtypes": ["fp8"]}, "unknown dtype 'fp8'"),
        ({"batches": [1, 0]}, "0 is not a batch size"),
        ({"threads": [-1]}, "-1 is not a number of threads"),
    ],
)
def test_bad_input_is_named(asked, words):
    with pytest.raises(ZooError, match=words):
        planned(*asked.pop("models", ["benchnet_kw"]), **asked)


def test_an_attention_module_has_a_twin_and_no_lowerings():
    found = planned("resnet18_se", peers=True, lowerings=["all"])
    assert {each.label for each in found.candidates} == {"resnet18_se", "resnet18_static"}
    assert {each.label for each in found.candidates if each.is_static} == {"resnet18_static"}
