"""One run against an earlier one: which taxes moved, and by more than noise?

Taxes and not latencies, because a tax is a ratio within one run: a machine that is slower today slows the
twin too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from export.benchmark.plan import Candidate
from export.benchmark.results import Run
from export.benchmark.statistics import Interval, Ratios, bootstrap_median, change
from export.benchmark.text import aligned
from zoo.errors import ZooError

_FACTS = ("cpu", "isa", "gpu", "usable_cores", "os", "python", "versions")


class Move(NamedTuple):
    """How the tax of one candidate changed.

    Attributes:
        candidate: which.
        then, now: its taxes.
        ratio: of the two, ``now`` over ``then``.
    """

    candidate: Candidate
    then: Interval
    now: Interval
    ratio: Interval

    @property
    def verdict(self) -> str:
        """``lower``, ``higher``, or ``same`` where the interval of the ratio holds 1."""
        if not self.ratio.excludes(1):
            return "same"
        return "lower" if self.ratio.value < 1 else "higher"


def moves(now: Run, then: Run) -> list[Move]:
    """Return the change of every candidate that both runs measured beside its twin.

    Raises:
        ZooError: there is none.
    """
    new, old = _taxes(now), _taxes(then)
    both = [candidate for candidate in new if candidate in old]
    if not both:
        raise ZooError("the two runs have no dynamic model in common that ran in the same way.")
    return [
        Move(
            candidate,
            bootstrap_median(old[candidate]),
            bootstrap_median(new[candidate]),
            change(new[candidate], old[candidate]),
        )
        for candidate in both
    ]


def to_text(found: Sequence[Move], now: Run, then: Run) -> str:
    """Lay the moves out for a terminal, with what else differs between the runs."""
    header = ("model", "runtime", "batch", "threads", "tax then", "now", "now / then", "")
    lines = [
        (
            move.candidate.label,
            move.candidate.where,
            str(move.candidate.batch),
            move.candidate.on,
            f"{move.then.value:.2f}",
            f"{move.now.value:.2f}",
            "{:.3f} [{:.3f}, {:.3f}]".format(*move.ratio),
            move.verdict,
        )
        for move in found
    ]
    lost = [each for each in _taxes(now) if each.cores and replace(each, cores="") in _taxes(then)]
    unwatched = f"not compared, as how far the cores were apart is not known of then: {len(lost)} rows"
    moved = sum(move.verdict != "same" for move in found)
    return "\n".join(
        [
            f"against {then.environment['date']}:",
            aligned([header, *lines], "llrrrrrl", "  "),
            f"  {moved} of {len(found)} moved beyond the noise within the runs; at 95 % confidence about "
            f"{0.05 * len(found):.1g} would by chance.",
            *([f"  {unwatched}"] if lost else []),
            *(f"  {fact}" for fact in (*relowered(now, then), *differences(now, then))),
        ]
    )


def relowered(now: Run, then: Run) -> list[str]:
    """Return which models' layers run by other lowerings in the later of two runs.

    Where they do, a tax that moved is another computation's.
    """
    old = {result.candidate: result.lowerings for result in then.results}
    found = [
        f"{result.candidate.label} on {result.candidate.where}: {_counted(old[result.candidate])} then, "
        f"{_counted(result.lowerings)} now"
        for result in now.results
        if result.candidate in old and old[result.candidate] != result.lowerings
    ]
    return list(dict.fromkeys(found))


def _counted(lowerings: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(lowerings.items())) or "no dynamic layer"


def differences(now: Run, then: Run) -> list[str]:
    """Return what differs between the machines and the software of two runs."""
    found = []
    for name in _FACTS:
        old, new = then.environment.get(name), now.environment.get(name)
        if name == "versions":
            old, new = old or {}, new or {}
            each = [key for key in (*old, *new) if old.get(key) != new.get(key)]
            found += [f"{key} {old.get(key)} then, {new.get(key)} now" for key in dict.fromkeys(each)]
        elif old != new:
            found.append(f"{name}: {old} then, {new} now")
    return found


def _taxes(run: Run) -> dict[Candidate, Ratios]:
    """Return the ratios to the twin of every dynamic candidate."""
    return {result.candidate: result.ratios for result in run.results if result.twin_ns}
