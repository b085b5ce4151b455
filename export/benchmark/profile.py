"""A profile of calls, added up by origin and laid out as tables."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from export.benchmark.attribution import (
    BETWEEN,
    CONTEXT,
    CONVOLUTION,
    FACTORS,
    KINDS,
    STATIC_CONVOLUTION,
    Attribution,
    Origin,
)
from export.benchmark.clocks import Call
from export.benchmark.plan import Candidate
from export.benchmark.text import aligned, threads_of
from export.cost import Work

OTHERS = "(all else)"
"""What belongs to no convolution."""

_CONVOLUTIONS = (CONTEXT, FACTORS, CONVOLUTION, STATIC_CONVOLUTION)
_TOP = 10

FORMAT = "breakdown 2"


@dataclass(frozen=True)
class Part:
    """The share of one origin in the time of a call.

    Attributes:
        origin: where it comes from.
        op: the operator that runs.
        seconds: of a call.
        count: operators of a call.
    """

    origin: Origin
    op: str
    seconds: float
    count: int


@dataclass(frozen=True)
class Profile:
    """The time of one model's calls.

    Attributes:
        candidate: what ran.
        seconds: of a call, the mean over ``calls``.
        calls: how many; of those that a runtime clocks one by one, the faster half.
        slower: how many others there were.
        parts: their seconds add up to ``seconds``, together with :attr:`between`.
        work: of the dynamic layers in a call, in the units of :data:`export.cost.WORK`.
    """

    candidate: Candidate
    seconds: float
    calls: int
    parts: tuple[Part, ...]
    work: Work = field(default_factory=dict)
    slower: int = 0

    @property
    def between(self) -> float:
        """Seconds of a call outside all operators."""
        return self.seconds - sum(part.seconds for part in self.parts)

    def by_kind(self) -> dict[str, float]:
        """Return the seconds of each of :data:`KINDS`; they add up to the whole call."""
        found = dict.fromkeys(KINDS, 0.0) | {BETWEEN: self.between}
        for part in self.parts:
            found[part.origin.kind] += part.seconds
        return found

    def by_layer(self) -> dict[str, dict[str, float]]:
        """Return the seconds of each kind for every convolution, in the order in which they run.

        What is part of none is called :data:`OTHERS` and comes last.
        """
        named = [part.origin.layer for part in self.parts if part.origin.kind in _CONVOLUTIONS]
        found: dict[str, dict[str, float]] = {name: {} for name in (*named, OTHERS)}
        for part in self.parts:
            kinds = found[part.origin.layer if part.origin.layer in named else OTHERS]
            kinds[part.origin.kind] = kinds.get(part.origin.kind, 0.0) + part.seconds
        return found

    def by_op(self) -> list[tuple[str, str, int, float]]:
        """Return (operator, kind, count, seconds), the longest first."""
        found: dict[tuple[str, str], tuple[int, float]] = {}
        for part in self.parts:
            key = part.op, part.origin.kind
            count, seconds = found.get(key, (0, 0.0))
            found[key] = count + part.count, seconds + part.seconds
        rows = [(op, kind, count, seconds) for (op, kind), (count, seconds) in found.items()]
        return sorted(rows, key=lambda row: -row[-1])


def summarise(candidate: Candidate, calls: Sequence[Call], attribution: Attribution) -> Profile:
    """Add up the faster half of some calls."""
    chosen = sorted(calls, key=lambda call: call.seconds)[: (len(calls) + 1) // 2]
    sums: dict[tuple[Origin, str], tuple[float, int]] = {}
    for each in (operator for call in chosen for operator in call.operators):
        key = attribution.origin(each.name, each.onnx_op), each.op
        seconds, count = sums.get(key, (0.0, 0))
        sums[key] = seconds + each.seconds, count + 1
    parts = [
        Part(origin, op, seconds / len(chosen), count // len(chosen))
        for (origin, op), (seconds, count) in sums.items()
    ]
    whole = sum(call.seconds for call in chosen) / len(chosen)
    count = sum(call.count for call in chosen)
    return Profile(candidate, whole, count, tuple(parts), slower=len(calls) - len(chosen))


def to_text(profile: Profile, twin: Profile | None = None) -> str:
    """Lay a profile out for a terminal: by kind, by layer, and the operators that take longest.

    Args:
        profile: of a model.
        twin: of its static twin, to stand beside it.
    """
    candidate, whole = profile.candidate, profile.seconds
    kinds, others = profile.by_kind(), twin.by_kind() if twin else {}
    left_out = f", the fastest of {profile.calls + profile.slower}" if profile.slower else ""
    head = (
        f"{candidate.label}, {candidate.where}, batch {candidate.batch}, {threads_of(candidate.threads)}: "
        f"{whole * 1e3:.2f} ms a call while profiled (the mean of {profile.calls} calls{left_out})"
    )
    by_kind = [
        (kind, _ms(seconds), _share(seconds, whole), _ms(others.get(kind, 0.0)) if twin else "", meaning)
        for (kind, meaning), seconds in zip(KINDS.items(), kinds.values(), strict=True)
    ]
    shown = [kind for kind in KINDS if kind != BETWEEN and kinds[kind]]
    by_layer = [
        (layer, *(_ms(parts.get(kind, 0.0)) for kind in shown), _ms(sum(parts.values())))
        for layer, parts in profile.by_layer().items()
    ]
    by_op = [
        (op, kind, str(count), _ms(seconds), _share(seconds, whole))
        for op, kind, count, seconds in profile.by_op()[:_TOP]
    ]
    beside = twin.candidate.label if twin else ""
    return "\n\n".join(
        [
            head,
            aligned([("kind", "ms", "share", beside, ""), *by_kind], "lrrrl", "  "),
            aligned([("layer", *shown, "ms"), *by_layer], "l" + "r" * (len(shown) + 1), "  "),
            aligned([("operator", "kind", "count", "ms", "share"), *by_op], "llrrr", "  "),
        ]
    )


def to_json(
    profiles: Iterable[Profile],
    environment: dict[str, Any],
    ceilings: dict[int, dict[str, float]],
    command: str,
) -> str:
    """Return profiles as JSON: the seconds of each kind, and of the operators that take longest.

    Args:
        profiles: of every model.
        environment: what they ran on.
        ceilings: what that can do at most, by the number of threads.
        command: the command line that made them.
    """
    rows = [
        {
            **asdict(each.candidate),
            "seconds": each.seconds,
            "calls": each.calls,
            "kinds": each.by_kind(),
            "operators": each.by_op()[:_TOP],
            "work": dict(each.work),
        }
        for each in profiles
    ]
    record = {
        "format": FORMAT,
        "command": command,
        "environment": environment,
        "ceilings": ceilings,
        "profiles": rows,
    }
    return json.dumps(record, indent=1) + "\n"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}" if seconds else ""


def _share(seconds: float, whole: float) -> str:
    return f"{seconds / whole:.1%}" if seconds else ""
