"""`asterism bench overhead --scale`: whether a task costs the orchestrator the same however many there are.

From 1,000 to 100,000 tasks, and on 2 to 1,000 simulated workers (bench.rehearsal), with the fit: CPU seconds against
tasks as a straight line, and the exponent of the power law through the same points, 1 where cost is linear. Against
workers it is the exponent that says how far from constant a task's cost is: 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from .chart import Series, lines, short
from .curve import Fit, fit
from .page import Section, write_page
from .rehearsal import Cost, Rehearsal
from .report import aligned
from .workload import fan_out, layered

TASKS: Final = (1_000, 3_000, 10_000, 30_000, 100_000)
QUICK_TASKS: Final = (1_000, 3_000, 10_000, 30_000)
WORKERS: Final = (2, 10, 100, 1_000)
_TASKS: Final = 10_000
_FEW: Final = 2
_REPEATS: Final = 3
"""The least of so many runs of the same size counts: whatever else the machine does only adds to it."""


class Growth(msgspec.Struct, frozen=True):
    """One shape of graph in growing sizes; `fit` is of CPU seconds against tasks (or workers, a task)."""

    name: str
    across: str
    costs: tuple[Cost, ...]
    fit: Fit

    def points(self) -> tuple[tuple[float, float], ...]:
        """(tasks, CPU seconds), or (workers, CPU microseconds a task)."""
        if self.across == "tasks":
            return tuple((float(one.tasks), one.cpu_s) for one in self.costs)
        return tuple((float(one.workers), one.cpu_s / one.tasks * 1e6) for one in self.costs)


class Scale(msgspec.Struct, frozen=True):
    """The answer of `--scale -o json`, less its schema."""

    growths: tuple[Growth, ...]


def scale(quick: bool, say: Callable[[str], None]) -> Scale:
    """Measure all of it. Raises: RunFailed."""
    sizes = QUICK_TASKS if quick else TASKS
    found = [
        _growth("fan-out", "tasks", [(_FEW, fan_out(tasks)) for tasks in sizes], say),
        _growth("layers of 100", "tasks", [(_FEW, layered(tasks // 100, 100)) for tasks in sizes], say),
        _growth(f"fan-out of {_TASKS:,}", "workers", [(workers, fan_out(_TASKS)) for workers in WORKERS], say),
    ]
    return Scale(tuple(found))


def _growth(
    name: str, across: str, runs: Sequence[tuple[int, dict[str, object]]], say: Callable[[str], None]
) -> Growth:
    costs = []
    for workers, plan in runs:
        rehearsal = Rehearsal(workers)
        cost = min((rehearsal.play(plan) for _ in range(_REPEATS)), key=lambda one: one.cpu_s)
        say(f"{name}: {cost.tasks:,} tasks, {workers:,} workers, {cost.cpu_s / cost.tasks * 1e6:.1f} us a task")
        costs.append(cost)
    made = Growth(name, across, tuple(costs), Fit(0.0, 0.0, 0.0, 0.0))
    return msgspec.structs.replace(made, fit=fit(made.points()))


def table(answer: Scale) -> str:
    """For people: each point, then each fit."""
    rows = [("", "tasks", "workers", "CPU s", "us a task")]
    for growth in answer.growths:
        for one in growth.costs:
            us = f"{one.cpu_s / one.tasks * 1e6:.1f}"
            rows.append((growth.name, f"{one.tasks:,}", f"{one.workers:,}", f"{one.cpu_s:.3f}", us))
    return "\n".join([aligned(rows, numbers=(1, 2, 3, 4)), *map(_told, answer.growths)])


def _told(growth: Growth) -> str:
    found = growth.fit
    if growth.across == "tasks":
        line = f"CPU = {found.slope * 1e6:.1f} us a task {found.base:+.3f} s (R2 {found.r2:.4f})"
        return f"{growth.name}: {line}, as tasks ^ {found.exponent:.3f}"
    return f"{growth.name}: CPU a task grows as workers ^ {found.exponent:.3f}"


def write_scale(answer: Scale, path: Path) -> None:
    """One chart a growth, with its fit. Raises: UsageError when the file can't be written."""
    about = "The orchestrator's own parts with simulated workers, in one process: CPU of one thread."
    write_page(path, "How cost grows", about, _sections(answer))


def _sections(answer: Scale) -> Iterator[Section]:
    for growth in answer.growths:
        points = growth.points()
        series = [Series("measured", points)]
        by_tasks = growth.across == "tasks"
        if by_tasks:
            fitted = tuple((x, growth.fit.base + growth.fit.slope * x) for x, _ in points)
            series.append(Series("straight line", fitted, fit=True))
        unit = "CPU seconds" if by_tasks else "CPU us a task"
        chart = lines(growth.name, growth.across, unit, series, log_x=not by_tasks)
        rows = [(growth.across, unit), *((short(x), short(y)) for x, y in points)]
        yield Section(f"{growth.name}, by {growth.across}", _told(growth), (chart,), rows)
