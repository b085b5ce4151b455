"""What a parity certificate says; :mod:`export.parity` does the measuring."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One comparison of the artifact with what it should say.

    Attributes:
        name: what was asked of the artifact.
        batch: batch size it ran at.
        images: how many images were compared.
        max_abs: largest absolute difference over all outputs.
        max_rel: largest error of a row of outputs, relative to the largest absolute value expected in it.
        allowed: the largest ``max_rel`` that passes.
        top1: share of images with the same top class, among those whose expected winner leads by more than
            ``allowed``.
        passed: whether both are as they should be; never so with a NaN.
        note: why it failed where numbers cannot say it.
    """

    name: str
    batch: int
    images: int
    max_abs: float
    max_rel: float
    allowed: float
    top1: float
    passed: bool
    note: str = ""


@dataclass(frozen=True)
class Certificate:
    """The record of every check of one artifact against the unlowered eager model.

    Attributes:
        runtime: library, version and provider that ran the artifact.
        reference: what it was compared with.
        tolerance: the largest relative error that passes, but for checks whose note says why it is another.
        seed: of the random inputs.
        input_size: (channels, height, width).
        batch: the fixed batch size, or None for a dynamic one.
        checks: in the order they ran.
    """

    runtime: str
    reference: str
    tolerance: float
    seed: int
    input_size: tuple[int, int, int]
    batch: int | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether there were checks and every one of them passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def max_rel(self) -> float:
        """Largest relative error of the checks that the tolerance holds for; NaN when one is."""
        errors = [check.max_rel for check in self.checks if check.allowed == self.tolerance]
        return math.nan if any(map(math.isnan, errors)) else max(errors, default=math.nan)

    @property
    def relaxed(self) -> tuple[Check, ...]:
        """The checks that were allowed more than the tolerance, which ``max_rel`` leaves out."""
        return tuple(check for check in self.checks if check.allowed > self.tolerance)

    @property
    def images(self) -> int:
        """How many images were compared in all."""
        return sum(check.images for check in self.checks)

    def to_json(self, **about: Any) -> str:
        """Return the certificate as strict JSON, with ``about`` as further top-level keys.

        Numbers that JSON cannot hold (NaN, infinity) become null; their checks have not passed.
        """
        record = {"passed": self.passed, **about, **dataclasses.asdict(self)}
        for check in record["checks"]:
            for key in ("max_abs", "max_rel", "top1"):
                check[key] = check[key] if math.isfinite(check[key]) else None
        return json.dumps(record, indent=2, allow_nan=False)

    def summary(self) -> str:
        """Return the checks as an aligned table, one a line."""
        return table(self.checks)


class CertificateError(RuntimeError):
    """The artifact does not compute what the model computes.

    Attributes:
        certificate: the whole record.
    """

    def __init__(self, certificate: Certificate, what: str):
        failures = certificate.failures
        super().__init__(
            f"{what} failed {len(failures)} of {len(certificate.checks)} parity checks and was not kept "
            f"(relative error allowed: {certificate.tolerance:.0e}):\n{table(failures)}"
        )
        self.certificate = certificate


def table(checks: tuple[Check, ...]) -> str:
    """Return ``checks`` as an aligned table with a heading."""
    width = max((len(check.name) for check in checks), default=0)
    lines = [f"  {'check':<{width}}  batch  images  max |d|  relative   top-1"]
    for check in checks:
        verdict = "ok" if check.passed else "FAILED"
        lines.append(
            f"  {check.name:<{width}}  {check.batch:>5}  {check.images:>6}  {check.max_abs:>7.1e}"
            f"   {check.max_rel:>7.1e}  {check.top1:>6.1%}  {verdict}{': ' if check.note else ''}{check.note}"
        )
    return "\n".join(lines)
