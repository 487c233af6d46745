"""What `asterism bench faults` answers: every case, what was skipped and why, as JSON and as a table.

Invariant: no number that a case doesn't hold; a bound is shown beside what it bounds. It must not know how anything was
measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from protocol.report import SCHEMA

from ..metric import Quantiles
from ..report import aligned
from .case import SPANS, Case

_HEAD: Final = ("", "times", "lost", "twice", "again", "", "p50", "p99", "max", "bound")


class Skipped(msgspec.Struct, frozen=True):
    """A case that this machine can't show, and why."""

    case: str
    why: str


class Answer(msgspec.Struct, frozen=True):
    """Of one call of the bench. `network`: what partitions were made of."""

    cases: tuple[Case, ...]
    skipped: tuple[Skipped, ...]
    cores: int
    seconds: float
    network: str = ""

    @property
    def sound(self) -> bool:
        return all(case.sound for case in self.cases)

    def document(self) -> dict[str, Any]:
        """What `-o json` prints."""
        return {
            "schema": SCHEMA,
            "bench": "faults",
            "sound": self.sound,
            "cases": [case.document() for case in self.cases],
            "skipped": msgspec.to_builtins(self.skipped),
            "network": self.network,
            "cores": self.cores,
            "seconds": self.seconds,
        }


def table(answer: Answer) -> str:
    """A line a span, its case's counts before the first; then figures, what went wrong and what was skipped."""
    rows = [_HEAD, *(row for case in answer.cases for row in _rows(case))]
    notes = [f"{case.fault}: {why}" for case in answer.cases for why in case.why]
    notes += [f"partitions: {answer.network}"] if any(case.case.startswith("cut") for case in answer.cases) else []
    notes += [f"skipped: {one.case}: {one.why}" for one in answer.skipped]
    return "\n".join([aligned(rows, numbers=(1, 2, 3, 4, 6, 7, 8, 9)), *notes])


def _rows(case: Case) -> Iterator[tuple[str, ...]]:
    counts = (case.times, case.results_lost, case.results_applied_twice, case.re_executed)
    front = (case.fault, *map(str, counts))
    for name in SPANS:
        span: Quantiles | None = getattr(case, name)
        if span is not None:
            bound = case.bounds.get(name)
            shown = f"{bound:g} s" if bound is not None else ""
            late = " missed" if name in case.missed() else ""
            times = (f"{value:.3f}" for value in (span.p50, span.p99, span.max))
            yield (*front, name.removesuffix("_s"), *times, shown + late)
            front = ("",) * 5
    for name, value in case.figures.items():
        bound = case.bounds.get(name)
        shown = f"{bound:g}" if bound is not None else ""
        yield (*front, name, "", "", f"{value:g}", shown + (" missed" if name in case.missed() else ""))
        front = ("",) * 5
    if front[0]:
        yield (*front, "", "", "", "", "")
