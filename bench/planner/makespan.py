"""A makespan held against gold, also while a planner still writes.

What gold means then. AsyncHow's gold is the longest way through the graph: unlimited helpers, nothing costs time, and
every task known from the start. A planner writes, so a task is known only when it is written: `streamed`, at its
closing brace; `whole`, when the document is complete. Gold here is the same longest way in which no task begins before
it is known. Both clocks start when the first task is known, so that time in which nothing could have been done by
anybody is on neither side. For `whole` that makes gold exactly the authors'; for `streamed` it is that, or more where
the way waits for the writer. `bare` is the other reading: from the request to the end, writing and all, against the
authors' gold.

Invariant: pure. It must not know how a plan was played.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from .asynchow import Case, bound_s

SHOWN = 3


class Played(msgspec.Struct, frozen=True):
    """How it went, in seconds since the request. `written_s`: when each closing brace had been written."""

    written_s: Mapping[str, float]
    document_s: float
    settled_s: float
    succeeded: bool


class Ratio(msgspec.Struct, frozen=True):
    """One plan. `to_gold`: makespan / gold; `bare`: from the request, against the authors' gold."""

    case: str
    to_gold: float
    bare: float


class Makespan(msgspec.Struct, frozen=True):
    """Many plans, streamed or not. `worst`: those with the largest ratio."""

    plans: int
    failed: tuple[str, ...]
    mean: float
    median: float
    max: float
    bare_mean: float
    worst: tuple[Ratio, ...]


def ratio(case: Case, scale: float, played: Played, *, streamed: bool) -> Ratio:
    """`scale`: what a second of the case lasted."""
    gold = bound_s(case, scale)
    if streamed:
        known = min(played.written_s.values())
        bound = bound_s(case, scale, played.written_s) - known
    else:
        known, bound = played.document_s, gold
    return Ratio(case.id, (played.settled_s - known) / bound, played.settled_s / gold)


def makespan(ratios: Sequence[Ratio], failed: Sequence[str] = ()) -> Makespan:
    """Raises: ValueError when nothing was measured."""
    found = [one.to_gold for one in ratios]
    if not found:
        raise ValueError("no plan came to its end")
    return Makespan(
        plans=len(found) + len(failed),
        failed=tuple(failed),
        mean=round(statistics.fmean(found), 4),
        median=round(statistics.median(found), 4),
        max=round(max(found), 4),
        bare_mean=round(statistics.fmean(one.bare for one in ratios), 4),
        worst=tuple(sorted(ratios, key=lambda one: -one.to_gold)[:SHOWN]),
    )
