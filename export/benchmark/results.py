"""What a run measured, and its file: everything raw, so that tables and pictures can be made anew."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from export.benchmark.environment import FACTS
from export.benchmark.plan import Candidate
from export.benchmark.statistics import Ratios, Rounds, by_pass, paired_ratios
from zoo.errors import ZooError

FORMAT = 1
"""Counts the changes of the file that older readers cannot follow."""


@dataclass(frozen=True)
class Result:
    """One candidate, measured.

    Attributes:
        candidate: which.
        rounds_ns: for every round the nanoseconds of each call.
        twin_ns: the same of its static twin, timed right before or after; empty where there is none.
        lowerings: how many dynamic layers run by which lowering.
        params: numbers that the model learns.
        macs: multiply-accumulates for one image, as it is deployed.
        top1: clean, in percent, of these weights; None where it was not measured.
        trained: whether the weights are trained ones.
        file_bytes: of the artifact; None where there is none.
        memory_bytes: see :mod:`export.benchmark.memory`; None where it was not measured.
        error: relative, against the unlowered eager model.
        passes: how many of the rounds each pass had; empty where the file does not say.
        handoff_ns: for every round the nanoseconds from core to core and back, where they were watched.
    """

    candidate: Candidate
    rounds_ns: Sequence[Sequence[int]]
    twin_ns: Sequence[Sequence[int]] = ()
    lowerings: dict[str, int] = field(default_factory=dict)
    params: int = 0
    macs: int = 0
    top1: float | None = None
    trained: bool = False
    file_bytes: int | None = None
    memory_bytes: int | None = None
    error: float = 0.0
    passes: Sequence[int] = ()
    handoff_ns: Sequence[int] = ()

    def longer(self, own: Rounds, partner: Rounds, handoff: Sequence[int] = ()) -> "Result":
        """Return the same with another pass: rounds of its own and of its twin, in seconds.

        Without rounds of the twin, which may have failed meanwhile, there is nothing to compare with: they
        are left out.
        """
        if bool(partner) != bool(self.twin_ns):
            return self
        return replace(
            self,
            rounds_ns=[*self.rounds_ns, *in_nanoseconds(own)],
            twin_ns=[*self.twin_ns, *in_nanoseconds(partner)],
            passes=(*self.passes, len(own)),
            handoff_ns=(*self.handoff_ns, *handoff),
        )

    @cached_property
    def rounds(self) -> Rounds:
        """For every round the seconds of each call."""
        return _in_seconds(self.rounds_ns)

    @cached_property
    def twin_rounds(self) -> Rounds:
        """The same of its static twin."""
        return _in_seconds(self.twin_ns)

    @cached_property
    def ratios(self) -> Ratios:
        """For every pass its rounds' ratios to the static twin."""
        return by_pass(paired_ratios(self.rounds, self.twin_rounds), self.passes)


@dataclass(frozen=True)
class Run:
    """All that one command measured.

    Attributes:
        results: one for each candidate, or for each distance of the cores that it saw.
        environment: the machine and the software, see :mod:`export.benchmark.environment`.
        settings: what was asked for.
        notes: what was left out, and why.
        command: the command line, where a command made it.
    """

    results: tuple[Result, ...]
    environment: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    command: str = ""

    def to_json(self) -> str:
        """Return the run as JSON, a result a line, so that a committed file shows what changed."""
        results = ({**row.pop("candidate"), **row} for row in map(asdict, self.results))
        head = {
            "format": FORMAT,
            **({"command": self.command} if self.command else {}),
            "environment": self.environment,
            "settings": self.settings,
            "notes": self.notes,
        }
        text = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}")
        lines = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in results)
        return f'{text},\n "results": [\n{lines}\n ]\n}}\n'


def read(path: Path) -> Run:
    """Return the run that ``path`` holds.

    Raises:
        ZooError: there is no such file, or it was not written by :meth:`Run.to_json`.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ZooError(f"cannot read {path}: {error.strerror}; give a results.json.") from None
    except ValueError as error:
        raise ZooError(f"{path} is not JSON ({error}); give a results.json.") from None
    form = record.get("format") if isinstance(record, dict) else None
    if form != FORMAT:
        raise ZooError(
            f"{path} is not a results.json of this version (its format is {form!r}, not {FORMAT}); "
            "give a file that --json or --output wrote without --breakdown, or measure anew."
        )
    try:
        results = tuple(map(_result, record["results"]))
        notes = tuple(record["notes"])
        run = Run(results, record["environment"], record["settings"], notes, record.get("command", ""))
        if not results:
            raise ValueError("no results")
        for result in results:
            if not result.rounds_ns or not all(map(len, (*result.rounds_ns, *result.twin_ns))):
                raise ValueError("a round without calls")
            if result.twin_ns and len(result.twin_ns) != len(result.rounds_ns):
                raise ValueError("a twin of other rounds")
            if result.passes and sum(result.passes) != len(result.rounds_ns):
                raise ValueError("passes of other rounds")
            if result.handoff_ns and len(result.handoff_ns) != len(result.rounds_ns):
                raise ValueError("ways between cores of other rounds")
        if missing := FACTS - run.environment.keys():
            raise ValueError(f"no {sorted(missing)[0]} in the environment")
        if not isinstance(run.environment["versions"], dict):
            raise TypeError("versions that are no table")
        if not isinstance(run.command, str):
            raise TypeError("a command that is no text")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ZooError(f"{path} is damaged ({type(error).__name__}: {error}); measure anew.") from None
    return run


def in_nanoseconds(rounds: Rounds) -> list[list[int]]:
    """Return rounds in seconds as the file has them."""
    return [[round(call * 1e9) for call in calls] for calls in rounds]


def _in_seconds(rounds_ns: Sequence[Sequence[int]]) -> Rounds:
    return [[call / 1e9 for call in calls] for calls in rounds_ns]


def _result(row: dict[str, Any]) -> Result:
    row = {"fixed": False, "cores": "", **row}  # which older files do not say
    row |= {name: tuple(row.get(name, ())) for name in ("passes", "handoff_ns")}
    own = {entry.name: row[entry.name] for entry in fields(Candidate)}
    rest = {entry.name: row[entry.name] for entry in fields(Result) if entry.name != "candidate"}
    return Result(Candidate(**own), **rest)
