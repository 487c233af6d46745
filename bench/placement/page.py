"""The answer of `bench schedule` as a page: one chart a figure, the bounds of the design marked in each.

Invariant: no number that the answer doesn't hold.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from statistics import geometric_mean

from ..chart import Bar, bars
from ..page import Section, write_page
from .answer import MOST, Answer, bounded
from .case import NOISE, POLICIES, Row


def write_schedule(answer: Answer, path: Path) -> None:
    """Raises: UsageError when the file can't be written."""
    about = f"{len(answer.rows)} cases, {answer.futures} futures each, Python {platform.python_version()}"
    write_page(path, "How good placement is", about, _sections(answer))


def _sections(answer: Answer) -> Iterator[Section]:
    figures = [(name, "-" if seen is None else f"{seen:.4f}", bounded(name)) for name, seen in answer.figures().items()]
    yield Section("Figures", "Each with its bound.", rows=[("", "measured", "bound"), *figures])
    real = answer.real
    if not real:
        return
    ends = {
        "best known": [row.known.best_s / row.lb2_s for row in real if row.known is not None],
        "online": [row.online_s / row.lb2_s for row in real],
        "heft": [row.heft_s / row.lb2_s for row in real],
        **{name: [row.policies[name] / row.lb2_s for row in real] for name in POLICIES},
    }
    yield Section(
        "Exact predictions",
        "Makespan over the bound, geometric mean and range over all cases.",
        (_chart("Makespan with exact predictions", ends, MOST["online_geomean_lb2"]),),
    )
    noise = {name: [ratio for row in real for ratio in row.noise[name]] for name in real[0].noise}
    yield Section(
        "Wrong predictions",
        f"Every run time off by a lognormal factor of deviation {NOISE}; over the bound of what really happened.",
        (_chart("Makespan with wrong predictions", noise, MOST["noise_geomean_lb"]),),
    )
    moved = {
        name: [row.bytes[name] / row.bytes["random"] for row in real if row.bytes["random"]]
        for name in ("frugal", "heft", "eft")
    }
    chart = bars(
        "Bytes moved", "of those of random placement", [
            Bar(name, sum(shares) / len(shares), min(shares), max(shares), own=name == "frugal")
            for name, shares in moved.items()
            if shares
        ], bound=MOST["bytes_against_random"],
    )  # fmt: skip
    yield Section("Bytes moved", "Mean and range over all cases.", (chart,))
    yield from _decisions(answer)
    yield from _hedging(answer)
    yield from _forecast(answer)
    yield Section("Cases", "Online makespan over the bound.", rows=[_HEAD, *map(_row, real)])


def _decisions(answer: Answer) -> Iterator[Section]:
    rows = [Bar(f"{one.devices:,} devices", one.median_us, own=True) for one in answer.core.decisions]
    if rows:
        chart = bars("A decision", "microseconds, median", rows, bound=MOST["decision_us"])
        yield Section("What a decision costs", "In the real core, with 100,000 tasks ready.", (chart,))


def _forecast(answer: Answer) -> Iterator[Section]:
    told = answer.core.forecast
    if told is not None:
        rows = [(shape, *(f"{seconds:.2f}" for seconds in rest)) for shape, *rest in told.cases]
        head = ("shape", "expected, s", "10th percentile", "90th", "fact")
        yield Section("Forecast and fact", "Runs of real processes, told before they began.", rows=[head, *rows])


def _hedging(answer: Answer) -> Iterator[Section]:
    core = answer.core
    played = [*(core.hedging.cases if core.hedging is not None else ()), core.hedging_live]
    rows = [
        Bar(f"{one.shape}{name}", seconds, own=own)
        for one in played
        if one is not None
        for name, seconds, own in ((", alone", one.alone_s, False), (", with copies", one.hedged_s, True))
    ]
    if rows:
        yield Section(
            "Second attempts",
            "One attempt in twenty takes 3 to 10 times as long; the same luck with copies of the late and without.",
            (bars("Makespan with stragglers", "seconds", rows),),
        )


_HEAD = ("instance", "fleet", "tasks", "best known", "online", "heft", "plan")


def _row(row: Row) -> tuple[str, ...]:
    best = f"{row.known.best_s / row.lb2_s:.3f}" if row.known is not None else ""
    return (row.instance, row.fleet, str(row.tasks), best, f"{row.online_s / row.lb2_s:.3f}",
            f"{row.heft_s / row.lb2_s:.3f}", row.plan)  # fmt: skip


def _chart(title: str, ratios: dict[str, list[float]], bound: float) -> str:
    rows = [
        Bar(name, geometric_mean(found), min(found), max(found), own=name == "online")
        for name, found in ratios.items()
        if found
    ]
    return bars(title, "times the bound", rows, bound=bound)
