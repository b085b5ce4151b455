"""One run from plan to results: everything exported, then rounds over all that share a batch size.

What a shared machine does can last longer than the rounds of one batch size. So a run may go through all
batch sizes several times, with a part of the rounds each time.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from export._metadata import lowerings_of
from export.base import FP32
from export.benchmark import environment, handoff, memory
from export.benchmark.engines import ENGINES
from export.benchmark.measure import LEAST_ROUNDS, Samples, calls_per_turn, interleave
from export.benchmark.plan import Candidate, Plan
from export.benchmark.prepare import Ready, Workshop, WrongResult, pinned
from export.benchmark.results import Result, Run, in_nanoseconds
from export.benchmark.text import threads_of
from zoo.errors import ZooError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """How long to measure.

    Attributes:
        rounds: of every group of candidates that share threads and batch size, at most.
        seconds: after which a group begins no further round, once it has the least of each pass.
        seed: of the orders within rounds.
        memory: whether to measure memory too.
        passes: how many times the run goes through all groups; rounds and seconds are spread over them.
    """

    rounds: int = 40
    seconds: float = 60.0
    seed: int = 0
    memory: bool = True
    passes: int = 1

    def __post_init__(self) -> None:
        if self.rounds < LEAST_ROUNDS:
            raise ZooError(f"{self.rounds} rounds say nothing about noise; give at least {LEAST_ROUNDS}.")
        if not 0 < self.seconds < math.inf:
            raise ZooError(f"{self.seconds:g} seconds are no time to measure in; give a number above 0.")
        if not 1 <= self.passes <= self.rounds // LEAST_ROUNDS:
            most = self.rounds // LEAST_ROUNDS
            raise ZooError(
                f"{self.rounds} rounds cannot be spread over {self.passes} passes; give 1 to {most}."
            )

    def rounds_of(self, number: int) -> int:
        """Return how many rounds the pass of a number, counted from 0, has at most."""
        return self.rounds // self.passes + (number < self.rounds % self.passes)


class Benchmark:
    """A run in progress.

    Args:
        plan: the candidates.
        workshop: where they are made.
        budget: how long to measure.
        say: takes a line of progress.

    Attributes:
        wrong: whether a candidate was refused because of its results.
        notes: what was left out, and why.
    """

    def __init__(self, plan: Plan, workshop: Workshop, budget: Budget, say: Say = lambda line: None):
        self.plan = plan
        self.workshop = workshop
        self.budget = budget
        self.say = say
        self.wrong = False
        self.notes = list(plan.notes)
        self._failed: set[Path] = set()
        self._left_out: set[Candidate] = set()
        self._kept: dict[Candidate, Ready] = {}
        self._memory: dict[Candidate, int | None] = {}
        self._few: Counter[str] = Counter()

    def run(self) -> Run:
        """Export, measure, and return the results.

        Raises:
            ZooError: not one candidate could be measured.
        """
        facts = environment.environment()
        began = time.monotonic()
        self._export()
        groups = [
            list(group) for _, group in groupby(self.plan.candidates, lambda each: (each.threads, each.batch))
        ]
        found: dict[Candidate, dict[str, Result]] = {}
        for number, group in self._turns(groups):
            with pinned(group[0].threads):
                for ready, samples in self._measure(group, number):
                    results = found.setdefault(ready.candidate, {})
                    for cores, part in apart(samples).items():
                        before = results.get(cores)
                        if results and bool(part.partner) != any(each.twin_ns for each in results.values()):
                            continue  # the twin has failed meanwhile
                        results[cores] = before.longer(*part) if before else self._result(ready, part, cores)
        if not found:
            raise ZooError(f"nothing could be measured: {self.notes[-1]}")
        measured = [
            result
            for candidate in self.plan.candidates
            if candidate in found
            for result in self._told_apart(found[candidate])
        ]
        self.notes += [
            f"left out {count} of fewer than {LEAST_ROUNDS} rounds: {how}" for how, count in self._few.items()
        ]
        facts |= {
            "load_at_the_end": environment.load_average(),
            "wall_seconds": round(time.monotonic() - began, 1),
        }
        settings = {**vars(self.budget), "cuda_graphs": self.workshop.cuda_graphs}
        return Run(tuple(measured), facts, settings, tuple(dict.fromkeys(self.notes)))

    def _turns(self, groups: list[list[Candidate]]) -> Iterator[tuple[int, list[Candidate]]]:
        """Yield the number of each pass with each of its groups, in an order drawn anew, none twice in a row.

        What a group leaves behind, such as cores that have drawn near each other while they were busy, is
        then not always there for the same others.
        """
        random, last = np.random.default_rng(self.budget.seed), -1
        for number in range(self.budget.passes):
            order = random.permutation(len(groups))
            if order[0] == last:
                order = np.roll(order, 1)
            last = order[-1]
            for index in order:
                yield number, groups[index]

    def _export(self) -> None:
        """Write every artifact."""
        needed: dict[Path, Candidate] = {}
        for candidate in self.plan.candidates:
            if path := self.workshop.artifact(candidate):
                needed.setdefault(path, candidate)
        for number, (path, candidate) in enumerate(needed.items(), 1):
            fixed = f", batch {candidate.batch}" if candidate.frozen else ""
            what = f"{candidate.label} to {candidate.runtime}{fixed}"
            start = time.perf_counter()
            try:
                self.workshop.export(candidate)
            except (ZooError, WrongResult) as error:
                self._failed.add(path)
                self._leave_out(what, error)
            else:
                seconds = time.perf_counter() - start
                self.say(f"  exported {number}/{len(needed)}  {what}  {seconds:.1f} s")

    def _measure(self, group: list[Candidate], number: int) -> Iterator[tuple[Ready, Samples]]:
        """Prepare the candidates of one batch size, time them in turn, and yield what was seen."""
        ready = [each for each in map(self._prepare, group) if each is not None]
        if not ready:
            return
        calls = [each.bound.call for each in ready]
        turns = [calls_per_turn(call) for call in calls]
        start = time.perf_counter()
        places = {each.candidate: place for place, each in enumerate(ready)}
        partners = [None if each.candidate.is_static else places.get(each.candidate.twin) for each in ready]
        budget = self.budget
        rounds, seconds = budget.rounds_of(number), budget.seconds / budget.passes
        with handoff.watching(group[0].threads) as watch:
            samples = interleave(calls, turns, rounds, partners, seconds, budget.seed + number, watch=watch)
        turn = f", pass {number + 1} of {budget.passes}" if budget.passes > 1 else ""
        self.say(
            f"  measured batch {group[0].batch} on {threads_of(group[0].threads)}{turn}: "
            f"{len(ready)} candidates, {len(samples[0].own)} rounds, {time.perf_counter() - start:.0f} s"
        )
        yield from zip(ready, samples, strict=True)

    def _prepare(self, candidate: Candidate) -> Ready | None:
        if candidate in self._kept:
            return self._kept[candidate]
        if candidate in self._left_out or self.workshop.artifact(candidate) in self._failed:
            return None  # and the reason was said
        try:
            ready = self.workshop.prepare(candidate)
            if ready.path is None and ENGINES[candidate.runtime].slow:
                self._kept[candidate] = ready  # for the next pass: what compiles takes minutes
            return ready
        except (ZooError, WrongResult) as error:
            self._left_out.add(candidate)
            self._leave_out(f"{candidate.label} on {candidate.where}, batch {candidate.batch}", error)
            return None

    def _leave_out(self, what: str, error: Exception) -> None:
        self.wrong |= isinstance(error, WrongResult)
        verb = "refused" if isinstance(error, WrongResult) else "skipped"
        self.notes.append(f"{verb} {what}: {error}")
        self.say(f"  {self.notes[-1]}")

    def _told_apart(self, results: Mapping[str, Result]) -> Iterator[Result]:
        """Yield a candidate's results, that of the most rounds first, without those of too few."""
        most, *others = sorted(results, key=lambda cores: -len(results[cores].rounds_ns))
        yield results[most]
        for cores in others:
            if len(results[cores].rounds_ns) >= LEAST_ROUNDS:
                yield results[cores]
            else:
                self._few[results[cores].candidate.how] += 1

    def _result(self, ready: Ready, samples: Samples, cores: str) -> Result:
        candidate, subjects = ready.candidate, self.workshop.subjects
        params, macs = self.workshop.cost(candidate)
        deployed = self.workshop.deployed(candidate)
        if self.budget.memory and ready.path is not None and candidate not in self._memory:
            self._memory[candidate] = memory.peak_memory(
                candidate.runtime, ready.path, self.workshop.setting(candidate)
            )
        return Result(
            replace(candidate, cores=cores),
            rounds_ns=in_nanoseconds(samples.own),
            twin_ns=in_nanoseconds(samples.partner),
            passes=(len(samples.own),),
            lowerings=dict(Counter(lowerings_of(deployed).values())),
            params=params,
            macs=macs,
            top1=subjects.top1(candidate.model) if candidate.dtype == FP32 else None,
            trained=subjects.is_trained(candidate.model),
            file_bytes=ready.file_bytes,
            memory_bytes=self._memory.get(candidate),
            handoff_ns=tuple(samples.seen),
            error=ready.error,
        )


def apart(samples: Samples) -> dict[str, Samples]:
    """Return the rounds by how far the cores were apart, all under an empty name where nobody watched."""
    if not samples.seen:
        return {"": samples}
    kinds = [handoff.cores(each) for each in samples.seen]

    def where(kind: str, rounds: Sequence[Any]) -> list[Any]:
        return [each for each, found in zip(rounds, kinds, strict=True) if found == kind] if rounds else []

    return {kind: Samples(*(where(kind, rounds) for rounds in samples)) for kind in dict.fromkeys(kinds)}
