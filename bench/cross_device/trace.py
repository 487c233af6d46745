"""What the time of one run went by, read from its events: every attempt as a span, the longest way through the graph,
and the way that really decided when the run ended, instant by instant.

Invariant: pure, and the parts of `Shares` add up to the run's own time: each instant of the deciding way is counted
once. It must not know how a case is played, nor what is made of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .chronicle import Attempt, Chronicle, End
from .way import Longest, Way


class Span(msgspec.Struct, frozen=True):
    """One attempt on its machine, in seconds since the run was submitted. `bring_s` before `start_s` it waited for
    `bytes_in` to be fetched. `won`: its outcome is that of the task."""

    task: str
    worker: str
    start_s: float
    end_s: float
    end: End = "succeeded"
    won: bool = True
    hedge: bool = False
    bring_s: float = 0.0
    bytes_in: int = 0


class Shares(msgspec.Struct, frozen=True):
    """What the deciding way through a run consists of. Together they are its time from submission to end.

    `work_s`: user code ran. `bring_s`: inputs were fetched. `link_s`: words were under way on links that are that slow.
    `planner_s`: nothing could go on before a planner had written. `person_s`: a person was asked. `again_s`: attempts
    that did not count, and what was waited before the next. `engine_s`: all the rest, and it is ours.
    """

    work_s: float = 0.0
    bring_s: float = 0.0
    link_s: float = 0.0
    planner_s: float = 0.0
    person_s: float = 0.0
    again_s: float = 0.0
    engine_s: float = 0.0

    @property
    def total_s(self) -> float:
        return math.fsum(msgspec.structs.astuple(self))


class Trace(msgspec.Struct, frozen=True):
    """`critical_path_s`: the longest way through the graph if every attempt took what it took and none ever waited.

    `way`: the tasks that decided when the run ended, in order.
    """

    spans: tuple[Span, ...] = ()
    critical_path_s: float = 0.0
    shares: Shares = Shares()
    way: tuple[str, ...] = ()
    bytes_moved: int = 0


def trace(
    rows: Iterable[Mapping[str, Any]],
    graph: Mapping[str, Any],
    latencies: Mapping[str, float],
    slots: Mapping[str, int] | None = None,
) -> Trace:
    """`rows` are all events of a run, `graph` is what `asterism graph -o json` says at its end; `latencies` are seconds
    one way to a machine, where its link is shaped or simulated; `slots` how many attempts it takes at once."""
    story = Chronicle(rows, graph, latencies, slots or {})
    parts, way = Way(story).walked()
    return Trace(
        tuple(_span(one, story.zero) for one in story.attempts),
        round(Longest(story).seconds, 6),
        Shares(**{name: round(seconds, 6) for name, seconds in parts.items()}),
        way,
        sum(one.bytes_in for one in story.attempts),
    )


def _span(one: Attempt, zero: float) -> Span:
    end = max(one.start, one.ended - one.latency) if one.ended else one.start
    return Span(
        one.task, one.worker, round(one.start - zero, 6), round(end - zero, 6), one.end, one.won, one.hedge,
        round(one.bring_s, 6), one.bytes_in,
    )  # fmt: skip
