"""Watching how far two cores are apart, and keeping the rounds of one distance from those of the other."""

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from export.benchmark import compare, handoff, render
from export.benchmark.handoff import FAR, NEAR
from export.benchmark.measure import Samples, interleave
from export.benchmark.plan import Candidate, Request, plan
from export.benchmark.results import read
from export.benchmark.run import Benchmark, Budget, apart
from export.report import benchmarks, results
from export.report.goals import goals
from zoo.errors import ZooError
from zoo.machine import usable_cores

KW = Candidate("resnet18_kw", batch=8, threads=2)
WHERE = {NEAR: 150, FAR: 350}

several = pytest.mark.skipif(usable_cores() != 2, reason="cores are watched where there are two")


@several
def test_the_way_from_core_to_core_and_back_is_measured():
    before = os.sched_getaffinity(0)
    with handoff.watching(2) as watch:
        assert all(20 < watch() < 1e6 for _ in range(3))
        assert os.sched_getaffinity(0) == before


@several
def test_who_answers_is_gone_afterwards(monkeypatch):
    started = []

    class Spy(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Spy)
    with contextlib.suppress(RuntimeError), handoff.watching(2):
        assert started[0].poll() is None
        raise RuntimeError
    assert started[0].poll() is not None


@several
def test_nobody_waits_for_an_answer_that_cannot_come(monkeypatch):
    monkeypatch.setattr(handoff, "_PATIENCE", 10)
    monkeypatch.setattr(handoff, "_ANSWER", "print(flush=True); input()")
    with handoff.watching(2) as watch, pytest.raises(ZooError, match=r"ended; run again\.$"):
        watch()


@several
def test_who_answered_before_and_is_gone_is_missed(monkeypatch):
    monkeypatch.setattr(handoff, "_ANSWER", "print(flush=True)")
    with handoff.watching(2) as watch:
        time.sleep(0.5)
        with pytest.raises(ZooError, match=r"ended; run again\.$"):
            watch()


@several
def test_who_answers_does_not_outlive_who_asks():
    """The one who asks is killed while the other waits for a flag that nobody will set."""
    asks = (
        "import os, sys; from export.benchmark import handoff; watching = handoff.watching(2);"
        "watching.__enter__(); other = watching.gen.gi_frame.f_locals['other'];"
        "print(9, file=other.stdin, flush=True); print(other.pid, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", asks]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        process.kill()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            break
        time.sleep(0.1)
    else:
        os.kill(pid, 9)
        pytest.fail("it runs on")


@several
def test_without_an_answer_there_is_no_watch(monkeypatch):
    monkeypatch.setattr(handoff, "_ANSWER", "")
    with handoff.watching(2) as watch:
        assert watch is None


@pytest.mark.parametrize("threads", [1, 3, 1000])
def test_which_cores_threads_run_on_is_not_always_known(threads):
    with handoff.watching(threads) as watch:
        assert watch is None


def test_the_watch_looks_before_each_pair():
    log = []
    calls = [lambda name=name: log.append(name) for name in "ab"]
    samples = interleave(calls, [1, 1], 5, [1, None], watch=lambda: log.append("?") or len(log))
    assert "".join(log).count("?") == 10
    first, second = (
        ["".join(log[place : place + 5]).split("?")[0] for place in each.seen] for each in samples
    )
    assert len(first) == len(second) == 5
    assert {*first} <= {"aabb", "bbaa"}, "what a has seen came right before its pair"
    assert {*second} == {"bb"}


def test_rounds_are_told_apart_with_those_of_the_partner():
    both = Samples([[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]], [150, 350, 140])
    assert apart(both) == {
        NEAR: Samples([[1.0], [3.0]], [[4.0], [6.0]], [150, 140]),
        FAR: Samples([[2.0]], [[5.0]], [350]),
    }
    alone = Samples([[1.0]], [], [350])
    assert apart(alone) == {FAR: alone}
    unwatched = Samples([[1.0]], [[2.0]])
    assert apart(unwatched) == {"": unwatched}


def test_a_distance_first_seen_without_the_twin_has_no_row(workshop, monkeypatch):
    prepare, made = workshop.prepare, []

    def fails_later(each):
        made.append(each.model)
        if each.is_static and made.count(each.model) > 1:
            raise ZooError("out of memory.")
        return prepare(each)

    monkeypatch.setattr(workshop, "prepare", fails_later)
    run = watched(workshop, monkeypatch, [*WHERE.values()], rounds=10, passes=2, by_pass=True)
    assert {(each.candidate.is_static, each.candidate.cores) for each in run.results} == {
        (True, NEAR),
        (False, NEAR),
    }


def watched(workshop, monkeypatch, seen, by_pass=False, **budget):
    """Return a run of two threads whose rounds, or passes, see one of ``seen`` each or a nanosecond more."""
    passes = iter(seen)

    @contextlib.contextmanager
    def watching(threads):
        assert threads == 2
        rounds = [next(passes)] * 10 if by_pass else seen
        turns = iter([each + more for each in rounds for more in (0, 1)])
        yield lambda: next(turns)

    monkeypatch.setattr(handoff, "watching", watching)
    planned = plan(Request(["benchnet_kw"], ["torchscript"], batches=[2], threads=[2], peers=False))
    budget = {"rounds": len(seen), "seconds": 3600, "memory": False} | budget
    return Benchmark(planned, workshop, Budget(**budget)).run()


def test_a_run_has_a_row_for_each_distance(workshop, monkeypatch, tmp_path):
    near, far = WHERE.values()
    run = watched(workshop, monkeypatch, [near] * 4 + [far] * 6, rounds=20, passes=2)
    found = {(each.candidate.is_static, each.candidate.cores): each for each in run.results}
    assert found.keys() == {(static, cores) for static in (True, False) for cores in (NEAR, FAR)}
    for (static, cores), result in found.items():
        count = {NEAR: 4, FAR: 6}[cores]
        assert list(result.passes) == [count, count]
        assert {*result.handoff_ns} <= {WHERE[cores], WHERE[cores] + 1}
        assert len(result.rounds) == len(result.handoff_ns) == 2 * count
        assert len(result.twin_ns) == (0 if static else 2 * count)
    path = tmp_path / "run.json"
    path.write_text(run.to_json())
    assert read(path).results == tuple(
        replace(each, rounds_ns=each.rounds_ns, twin_ns=each.twin_ns) for each in run.results
    )
    assert run.notes == ()


def test_a_distance_seen_too_seldom_has_no_row(workshop, monkeypatch):
    near, far = WHERE.values()
    run = watched(workshop, monkeypatch, [far] * 3 + [near] * 7)
    assert {result.candidate.cores for result in run.results} == {NEAR}
    assert run.notes == ("left out 2 of fewer than 5 rounds: torchscript, batch 2, 2 threads, cores far",)
    run = watched(workshop, monkeypatch, [far] * 3 + [near] * 2)
    assert {result.candidate.cores for result in run.results} == {FAR}, "the most rounds stay"


@pytest.fixture
def told_apart(make_run, tmp_path):
    """A folder with results of one model, at two distances and with one thread."""
    taxes = {replace(KW, threads=1): 1.5} | {
        replace(KW, cores=cores): tax for cores, tax in ((FAR, 2.5), (NEAR, 1.25))
    }
    run = make_run(taxes)
    seen = [
        replace(each, handoff_ns=[WHERE[each.candidate.cores]] * 12) if each.candidate.cores else each
        for each in run.results
    ]
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/cpu.json").write_text(replace(run, results=tuple(seen)).to_json())
    return tmp_path


def test_tables_have_near_cores_first(told_apart):
    run = read(told_apart / "benchmarks/cpu.json")
    table = render.rows(run)
    assert [row.result.candidate.cores for row in table] == ["", "", NEAR, NEAR, FAR, FAR]
    header, _, *lines = render.to_markdown(table).splitlines()
    assert "| threads | cores |" in header
    assert "| 2 | far |" in lines[-1]
    assert render.to_csv(table).splitlines()[-1].split(",")[6:9] == ["2", "far", "8"]
    ways = "median (9 of 10): near, 150 ns (150 to 150); far, 350 ns (350 to 350)."
    assert f"cores: a cache line from one core to the other and back, {ways}" in render.legend(run)


def test_pages_tell_the_distances_apart(told_apart):
    table, origin = benchmarks.taxes(told_apart).split("\n\n")
    header, _, _, line = table.splitlines()
    assert header == "| model | onnx, batch 8 |"
    assert line.split("|")[2].strip()[:3] in ("1.2", "1.3"), "the near ones"
    assert "2 threads, cores near, 2026-11-21" in origin
    text = goals(told_apart)
    assert "| batch 8, 1 thread | batch 8, 2 threads, cores near | batch 8, 2 threads, cores far |" in text
    assert text.endswith(
        "met are 0 of 1 with 1 thread; 1 of 1 with 2 threads, cores near; 0 of 1 with 2 threads, cores far."
    )


def test_a_model_costs_what_it_takes_on_near_cores(told_apart, monkeypatch):
    monkeypatch.setattr(results, "BATCH", KW.batch)
    found, _ = results._latency(told_apart)["resnet18_kw"]
    assert found.result.candidate.cores == NEAR


def test_what_was_not_watched_then_is_not_compared(make_run):
    then = make_run({KW: 1.5, replace(KW, threads=1): 1.5})
    now = make_run({replace(KW, cores=NEAR): 1.5, replace(KW, threads=1): 1.5})
    text = compare.to_text(compare.moves(now, then), now, then)
    assert "not compared, as how far the cores were apart is not known of then: 1 rows" in text
    text = compare.to_text(compare.moves(now, now), now, now)
    assert "not compared" not in text
    assert " 2 near " in text
