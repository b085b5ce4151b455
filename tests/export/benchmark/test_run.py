"""Preparing and measuring, on networks of a few thousand parameters."""

import dataclasses
import getpass
import itertools
import json
import platform
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import _onnxruntime
from export.benchmark import memory, render
from export.benchmark.engine import Setting
from export.benchmark.engines import ENGINES
from export.benchmark.environment import FACTS, environment
from export.benchmark.plan import Candidate, Request, plan
from export.benchmark.prepare import Workshop, WrongResult
from export.benchmark.run import Benchmark, Budget
from zoo.errors import ZooError

KW = Candidate("benchnet_kw", "eager", batch=2)
FEW = Budget(rounds=5, seconds=0.1, memory=False)


def wrong(subjects, monkeypatch):
    """Have the kw network deployed with other weights than it is expected to have."""
    deployed = subjects.deployed

    def other(name, *way):
        model = deployed(name, *way)
        if name == "benchnet_kw":
            next(model.parameters()).data *= 1.1
        return model

    monkeypatch.setattr(subjects, "deployed", other)


def test_a_candidate_is_ready_when_it_is_right(workshop):
    ready = workshop.prepare(KW)
    assert ready.error < 1e-4
    assert ready.path is None
    assert ready.file_bytes is None
    assert ready.bound.fetch(ready.bound.call()).shape == (2, 10)


def test_a_candidate_that_computes_something_else_is_refused(workshop, monkeypatch):
    wrong(workshop.subjects, monkeypatch)
    with pytest.raises(WrongResult, match=r"off by \d\.\de-\d\d of the outputs"):
        workshop.prepare(KW)


def test_a_candidate_that_cannot_run_is_another_matter(workshop, monkeypatch):
    def fails(*_):
        raise RuntimeError("out of memory\nand so on")

    monkeypatch.setattr(type(ENGINES["eager"]), "network", lambda *_: fails)
    with pytest.raises(ZooError, match=r"^RuntimeError: out of memory$"):
        workshop.prepare(KW)


def test_the_peers_are_files_of_one_batch_size(workshop):
    peer = Candidate("benchnet_condconv", "onnx", lowering="timm", batch=3)
    workshop.export(peer)
    ready = workshop.prepare(peer)
    assert ready.error < 1e-4
    assert ready.file_bytes == ready.path.stat().st_size > 1_000
    assert workshop.artifact(dataclasses.replace(peer, batch=4)) != ready.path


def test_a_certified_artifact_keeps_its_size(subjects, tmp_path):
    candidate = Candidate("benchnet_kw", "torchscript")
    careful = Workshop(subjects, tmp_path, certify=True)
    careful.export(candidate)
    ready = careful.prepare(candidate)
    beside = [path.name for path in ready.path.parent.iterdir()]
    assert sorted(beside) == ["model.pt", "model.pt.certificate.json"]
    assert ready.file_bytes == ready.path.stat().st_size


def test_int8_sees_one_half_of_real_images_and_is_timed_on_the_other(subjects, tmp_path, monkeypatch):
    images = np.random.default_rng(0).normal(3, 0.1, (6, 3, 32, 32)).astype(np.float32)
    asked = []
    monkeypatch.setattr("export.benchmark.prepare.real_images", lambda *where: asked.append(where) or images)
    workshop = Workshop(subjects, tmp_path, data=tmp_path / "data")
    int8 = Candidate("benchnet_static", "onnx", dtype="int8", batch=5)
    ready = workshop.prepare(int8)
    assert np.array_equal(workshop.setting(int8).images, images[::2])
    assert np.array_equal(workshop.inputs(int8), images[[1, 3, 5, 1, 3]])
    assert asked == [(tmp_path / "data", 32)]
    inputs = [node.input for node in onnx.load(ready.path).graph.node if node.op_type == "QuantizeLinear"]
    constants = {each.name: numpy_helper.to_array(each) for each in onnx.load(ready.path).graph.initializer}
    (scale,) = [constants[names[1]] for names in inputs if names[0] == "input"]
    assert 255 * scale == pytest.approx(images[::2].max(), rel=0.01)  # of all values from 0 up, in 255 steps
    plain = dataclasses.replace(int8, dtype="fp32")
    assert workshop.setting(plain).images is None
    assert not np.array_equal(workshop.inputs(plain), workshop.inputs(int8))


def test_a_run_measures_every_candidate_in_the_same_rounds(workshop):
    planned = plan(Request(["benchnet_kw"], ["eager", "torchscript"], batches=[1, 2], peers=False))
    lines = []
    run = Benchmark(planned, workshop, FEW, lines.append).run()
    assert {result.candidate for result in run.results} == set(planned.candidates)
    assert {len(result.rounds) for result in run.results} == {5}
    for result in run.results:
        assert min(min(calls) for calls in result.rounds) > 0
        assert (result.file_bytes is None) == (result.candidate.runtime == "eager")
        assert result.macs > 100_000
        assert not result.trained
        assert result.top1 is None
        assert sum(result.lowerings.values()) == (0 if result.candidate.is_static else 2)
    assert run.environment["load_at_the_end"] is not None
    assert run.environment["wall_seconds"] > 0
    assert f"The run took {run.environment['wall_seconds']:.0f} s, exports included" in render.legend(run)
    assert run.settings["rounds"] == 5
    assert len([line for line in lines if "exported" in line]) == 2
    assert len([line for line in lines if "measured batch" in line]) == 2


def test_passes_spread_the_rounds(workshop, monkeypatch):
    """Every batch size has its turn before any has another; what has no file is made once."""
    monkeypatch.setattr(type(ENGINES["eager"]), "slow", True)
    made = []
    prepare = workshop.prepare
    monkeypatch.setattr(workshop, "prepare", lambda each: made.append(each) or prepare(each))
    planned = plan(Request(["benchnet_kw"], ["eager", "torchscript"], batches=[1, 2], peers=False))
    lines = []
    budget = Budget(rounds=11, seconds=3600, memory=False, passes=2)
    run = Benchmark(planned, workshop, budget, lines.append).run()
    assert [result.candidate for result in run.results] == list(planned.candidates)
    assert {len(result.rounds) for result in run.results} == {11}
    assert {len(result.twin_ns) for result in run.results} == {0, 11}
    assert {made.count(each) for each in planned.candidates if each.runtime == "eager"} == {1}
    assert {made.count(each) for each in planned.candidates if each.runtime == "torchscript"} == {2}
    passes = [line.split(":")[0].split("measured ")[1] for line in lines if "measured batch" in line]
    wanted = [f"batch {batch} on 1 thread, pass {number} of 2" for number in (1, 2) for batch in (1, 2)]
    assert [sorted(passes[:2]), sorted(passes[2:])] == [wanted[:2], wanted[2:]]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_no_group_has_two_turns_in_a_row_or_always_the_same_before_it(count, workshop):
    planned = plan(Request(["benchnet_kw"], ["eager"], peers=False))
    budget = Budget(rounds=30, passes=6)
    turns = list(Benchmark(planned, workshop, budget)._turns([[each] for each in range(count)]))
    assert [number for number, _ in turns] == sorted([*range(6)] * count)
    assert all(
        sorted(group for number, (group,) in turns if number == one) == [*range(count)] for one in range(6)
    )
    order = [group for _, (group,) in turns]
    before = set(itertools.pairwise(order))
    assert count == 1 or all(a != b for a, b in before)
    assert count < 3 or all(len({a for a, b in before if b == each}) > 1 for each in range(count))


@pytest.mark.parametrize("failing", ["benchnet_kw", "benchnet_static"])
def test_what_fails_in_a_later_pass_keeps_what_was_measured(workshop, monkeypatch, failing):
    calls = Counter()
    prepare = workshop.prepare

    def fails_later(each):
        calls[each.model] += 1
        if each.model == failing and calls[each.model] > 1:
            raise ZooError("out of memory.")
        return prepare(each)

    monkeypatch.setattr(workshop, "prepare", fails_later)
    planned = plan(Request(["benchnet_kw"], ["torchscript"], batches=[2], peers=False))
    run = Benchmark(planned, workshop, Budget(15, 3600, memory=False, passes=3)).run()
    rounds = {result.candidate.model: (len(result.rounds), len(result.twin_ns)) for result in run.results}
    static, kw = (15, 0), (5, 5)
    assert rounds == {
        "benchnet_static": (5, 0) if failing == "benchnet_static" else static,
        "benchnet_kw": kw,
    }
    assert calls[failing] == 2, "it is not tried again"
    assert run.notes == (f"skipped {failing} on torchscript, batch 2: out of memory.",)


def test_what_is_wrong_is_left_out_and_remembered(workshop, monkeypatch):
    wrong(workshop.subjects, monkeypatch)
    benchmark = Benchmark(plan(Request(["benchnet_kw"], ["eager"], batches=[2], peers=False)), workshop, FEW)
    run = benchmark.run()
    assert benchmark.wrong
    assert [result.candidate.model for result in run.results] == ["benchnet_static"]
    assert run.notes[0].startswith("refused benchnet_kw on eager, batch 2: off by")


def test_what_cannot_be_exported_is_left_out_once(workshop, monkeypatch):
    def fails(*_):
        raise ZooError("no such operator.")

    monkeypatch.setattr(type(ENGINES["torchscript"]), "export", fails)
    benchmark = Benchmark(
        plan(Request(["benchnet_kw"], ["eager", "torchscript"], batches=[1, 2], peers=False)), workshop, FEW
    )
    run = benchmark.run()
    assert not benchmark.wrong
    assert {result.candidate.runtime for result in run.results} == {"eager"}
    assert run.notes == tuple(
        f"skipped benchnet_{family} to torchscript: no such operator." for family in ("static", "kw")
    )


def test_nothing_measured_is_an_error(workshop, monkeypatch):
    monkeypatch.setattr(type(ENGINES["eager"]), "network", lambda *_: None)
    planned = plan(Request(["benchnet_static"], ["eager"], batches=[1]))
    with pytest.raises(ZooError, match=r"nothing could be measured: skipped benchnet_static on eager"):
        Benchmark(planned, workshop, FEW).run()


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"rounds": 4}, "4 rounds say nothing about noise; give at least 5"),
        ({"seconds": 0.0}, "0 seconds"),
        ({"rounds": 14, "passes": 3}, "14 rounds cannot be spread over 3 passes; give 1 to 2"),
        ({"passes": 0}, "over 0 passes"),
    ],
)
def test_too_small_a_budget_is_refused(budget, words):
    with pytest.raises(ZooError, match=words):
        Budget(**budget)


def heavy(folder):
    """Write a model of 48 MB of weights, which a runtime may copy, and hardly anything else."""
    weight = numpy_helper.from_array(np.ones((3, 4_000_000), np.float32), "weight")
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4_000_000])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["logits"])], "heavy", [given], [result], [weight]
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "heavy.onnx")
    return folder / "heavy.onnx"


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_memory_holds_the_weights(tmp_path):
    taken = memory.peak_memory("onnx", heavy(tmp_path), Setting((3,)))
    assert 48e6 < taken < 250e6


@pytest.mark.cuda
def test_memory_of_the_device_holds_the_weights(tmp_path):
    if reason := _onnxruntime.available("cuda"):
        pytest.skip(f"cuda: {reason}")
    taken = memory.peak_memory("onnx", heavy(tmp_path), Setting((3,), device="cuda"))
    assert 48e6 < taken < 2e9  # with the runtime's own workspaces


def test_memory_of_what_does_not_load_is_unknown(tmp_path):
    assert memory.peak_memory("onnx", tmp_path / "missing.onnx", Setting((3, 32, 32))) is None


def test_the_environment_is_complete_and_names_nobody():
    facts = environment()
    assert facts.keys() == FACTS
    assert facts["versions"]["torch"]
    text = json.dumps(facts)
    assert platform.node() not in text or len(platform.node()) < 4
    assert f"/{getpass.getuser()}/" not in text
