"""What `asterism bench planner` answers: the promised figures at the top, below them all that they were drawn from.

Invariant: a figure that was not measured is null, and a bound is shown beside what it bounds. It must not know how
anything was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from protocol.report import SCHEMA

from ..report import aligned
from .abstention import Abstention
from .call import GRACE_S
from .decoding import Decoding
from .live import Try
from .makespan import Makespan
from .matrix import Matrix
from .pace import Lag, Pace, Speedup
from .reading import Reading

LEAST: Final = {"streamed_speedup": 1.30, "abstention_rate": 0.95, "patterns_exact": 1.0}
MOST: Final = {
    "asynchow_makespan_ratio": 1.03, "false_accepts": 0, "lost": 0, "hangs": 0,
    "decoder_200_ms": 10.0, "decoder_2000_ms": 100.0,
}  # fmt: skip
HEADLINE: Final = "layers"
"""The shape whose speedup stands at the top."""
_SHOWN: Final = 10


class Virtual(msgspec.Struct, frozen=True):
    """AsyncHow on a virtual clock: the real decoder, core and worker, a simulated model, network and disk."""

    plan_s: float
    streamed: Makespan
    whole: Makespan


class Answer(msgspec.Struct, frozen=True):
    """Of one call of the bench."""

    speedups: tuple[Speedup, ...]
    lag: Lag
    decoding: tuple[Decoding, ...]
    reading: Reading
    matrix: Matrix
    abstention: Abstention
    asynchow: Pace | None
    asynchow_virtual: Virtual | None
    cores: int
    seconds: float

    def figures(self) -> dict[str, float | None]:
        """The promised ones; None where nothing was measured."""
        top = next(one for one in self.speedups if one.shape == HEADLINE)
        pace = self.asynchow
        return {
            "streamed_speedup": top.speedup.median,
            "dispatch_lag_s": self.lag.mean_s.median,
            "asynchow_makespan_ratio": max(pace.streamed.mean, pace.whole.mean) if pace is not None else None,
            "false_accepts": self.reading.false_accepts,
            "hangs": self.matrix.hangs,
            "abstention_rate": self.abstention.rate,
            "patterns_exact": self.abstention.exact,
            "lost": self.reading.lost,
            "overlap": top.overlap.median,
            **{f"decoder_{one.tasks}_ms": one.cpu_ms.median for one in self.decoding},
        }

    def missed(self) -> dict[str, float]:
        """What is over, or under, its bound."""
        seen = {name: value for name, value in self.figures().items() if value is not None}
        most = {**MOST, "dispatch_lag_s": self.lag.allowed_s}
        return {
            name: value
            for name, value in seen.items()
            if value > most.get(name, value) or value < LEAST.get(name, value)
        }

    @property
    def sound(self) -> bool:
        """Nothing wrong was accepted, nothing good lost, nothing hung or ended as it may not."""
        return not (self.reading.wrong or self.reading.silent or self.matrix.hangs or self.matrix.wrong)

    def document(self) -> dict[str, Any]:
        """What `-o json` prints."""
        head = {"schema": SCHEMA, "bench": "planner", **self.figures(), "sound": self.sound, "missed": self.missed()}
        return {**head, **msgspec.to_builtins(self)}


def table(answer: Answer) -> str:
    """A line a figure, its bound beside it; then what was missed and read wrongly."""
    missed = answer.missed()
    rows = [("", "", "bound", ""), *_figures(answer, missed), *_details(answer)]
    notes = [f"read wrongly: {one.kind}, seed {one.seed}: {', '.join((*one.false_accepts, *one.lost))}"
             for one in answer.reading.wrong[:_SHOWN]]  # fmt: skip
    notes += [f"{cell.profile}, {cell.fault}: {cell.wrong}" for cell in answer.matrix.cells if cell.wrong][:_SHOWN]
    notes += [f"planned, though no skill serves it: {one}" for one in answer.abstention.planned[:_SHOWN]]
    return "\n".join([aligned(rows, numbers=(1,)), *notes])


def _figures(answer: Answer, missed: Mapping[str, float]) -> Iterator[tuple[str, str, str, str]]:
    most = {**MOST, "dispatch_lag_s": answer.lag.allowed_s}
    for name, value in answer.figures().items():
        bound = f">= {LEAST[name]:g}" if name in LEAST else f"<= {most[name]:g}" if name in most else ""
        yield name, "-" if value is None else f"{value:.4g}", bound, "missed" if name in missed else ""


def _details(answer: Answer) -> Iterator[tuple[str, str, str, str]]:
    for one in answer.speedups:
        yield f"{one.shape}: streamed against whole", f"{one.speedup.median:.3g}", "", f"at no cost {one.ideal:.3g}"
    if answer.asynchow is not None:
        yield from _makespans("processes", answer.asynchow.streamed, answer.asynchow.whole)
    if answer.asynchow_virtual is not None:
        yield from _makespans("virtual time", answer.asynchow_virtual.streamed, answer.asynchow_virtual.whole)
    reading, matrix = answer.reading, answer.matrix
    yield f"harmed plans of {reading.kinds} kinds", str(reading.texts), "", ""
    yield "plans cut off at every byte", str(reading.truncations), "", ""
    yield "calls with a fault", str(matrix.cases), "", ""
    yield "  the slowest took, s", f"{matrix.slowest_s:.3g}", f"<= {matrix.deadline_s + GRACE_S:g}", ""
    yield "requests that no skill serves", str(answer.abstention.requests), "", ""
    yield "documented patterns", str(answer.abstention.patterns), "", ""
    yield "cores", str(answer.cores), "", ""


def _makespans(where: str, streamed: Makespan, whole: Makespan) -> Iterator[tuple[str, str, str, str]]:
    for how, one in (("streamed", streamed), ("whole", whole)):
        yield f"AsyncHow, {where}, {how}: mean of {one.plans}", f"{one.mean:.4g}", "", f"max {one.max:.4g}"


def live_document(rows: Sequence[Try]) -> dict[str, Any]:
    """What `--live -o json` prints."""
    return {"schema": SCHEMA, "bench": "planner", "live": msgspec.to_builtins(rows)}


def live_table(rows: Sequence[Try]) -> str:
    """A line a request."""
    head = ("state", "tasks", "first s", "planned s", "settled s", "overlap", "tokens", "calls", "request")
    shown = [
        (one.state, str(one.tasks), _short(one.first_dispatch_s), _short(one.planning_s), _short(one.settled_s),
         _short(one.overlap), str(one.tokens_out), str(one.calls), one.request[:60])
        for one in rows
    ]  # fmt: skip
    return aligned([head, *shown], numbers=range(1, 8))


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
