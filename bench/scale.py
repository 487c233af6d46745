"""`asterism bench scale`: whether a task costs the same however many there are, and on however many workers.

From 1,000 to 100,000 tasks, and on 2 to 1,000 simulated workers: a whole server and all its workers in one process
(bench.scaling), or the orchestrator's own parts alone (bench.rehearsal). Each growth has its fit: CPU seconds against
tasks as a straight line, and the exponent of the power law through the same points, 1 where cost is linear. Against
workers it is the exponent that says how far from constant a task's cost is: 0.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from .chart import Series, lines
from .curve import Fit, fit
from .metric import fsync_ms
from .page import Section, write_page
from .rehearsal import Cost, Rehearsal
from .report import aligned
from .scaling import SHAPES, play_apart

TASKS: Final = (1_000, 3_000, 10_000, 30_000, 100_000)
QUICK_TASKS: Final = (1_000, 3_000, 10_000)
WORKERS: Final = (2, 10, 32, 100, 316, 1_000)
QUICK_WORKERS: Final = (2, 100, 1_000)
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
    """The answer of `-o json`, less its schema. `of`: what was played; `fsync_ms` in the folder of its journal."""

    of: Literal["server", "core"]
    growths: tuple[Growth, ...]
    cores: int
    fsync_p50_ms: float | None = None


Say = Callable[[str], None]
Play = Callable[[str, int, int], Cost]
"""(shape, tasks, workers)"""


def scale(quick: bool, say: Say, *, core: bool = False) -> Scale:
    """Measure all of it. Raises: RunFailed."""
    sizes, workers = (QUICK_TASKS, QUICK_WORKERS) if quick else (TASKS, WORKERS)
    play, repeats = (_rehearsed, _REPEATS) if core else (play_apart, 1 if quick else _REPEATS)
    found = [
        _growth(shape, "tasks", [(shape, tasks, _FEW) for tasks in sizes], play, repeats, say)
        for shape in ("fan-out", "layers of 100")
    ]
    wide = [("fan-out", _TASKS, count) for count in workers]
    found.append(_growth(f"fan-out of {_TASKS:,}", "workers", wide, play, repeats, say))
    disk = None if core else fsync_ms(Path(tempfile.gettempdir())).median
    return Scale("core" if core else "server", tuple(found), os.cpu_count() or 1, disk)


def _rehearsed(shape: str, tasks: int, workers: int) -> Cost:
    return Rehearsal(workers).play(SHAPES[shape](tasks))


def _growth(
    name: str, across: str, points: Sequence[tuple[str, int, int]], play: Play, repeats: int, say: Say
) -> Growth:
    costs = []
    for point in points:
        cost = min((play(*point) for _ in range(repeats)), key=lambda one: one.cpu_s)
        say(f"{name}: {cost.tasks:,} tasks, {cost.workers:,} workers, {cost.cpu_s / cost.tasks * 1e6:.1f} us a task")
        costs.append(cost)
    made = Growth(name, across, tuple(costs), Fit(0.0, 0.0, 0.0, 0.0))
    return msgspec.structs.replace(made, fit=fit(made.points()))


def table(answer: Scale) -> str:
    """For people: each point, then each fit."""
    rows = [_HEAD, *(_cells(growth.name, one) for growth in answer.growths for one in growth.costs)]
    if answer.of == "core":
        rows = [row[:5] for row in rows]
    return "\n".join([aligned(rows, numbers=range(1, len(_HEAD))), *map(_told, answer.growths)])


_HEAD: Final = ("", "tasks", "workers", "CPU s", "us a task", "tasks/s", "bytes kept")


def _cells(name: str, one: Cost) -> tuple[str, ...]:
    rest = ("", "")
    if one.wall_s and one.kept_bytes is not None:
        rest = (f"{one.tasks / one.wall_s:,.0f}", f"{one.kept_bytes / one.tasks:,.0f}")
    return (name, f"{one.tasks:,}", f"{one.workers:,}", f"{one.cpu_s:.3f}", f"{one.cpu_s / one.tasks * 1e6:.1f}", *rest)


def _told(growth: Growth) -> str:
    found = growth.fit
    if growth.across == "tasks":
        line = f"CPU = {found.slope * 1e6:.1f} us a task {found.base:+.3f} s (R2 {found.r2:.4f})"
        return f"{growth.name}: {line}, as tasks ^ {found.exponent:.3f}"
    return f"{growth.name}: CPU a task grows as workers ^ {found.exponent:.3f}"


def write_scale(answer: Scale, path: Path) -> None:
    """One chart a growth, with its fit. Raises: UsageError when the file can't be written."""
    what = "A whole server" if answer.of == "server" else "The orchestrator's own parts"
    write_page(path, "How cost grows", f"{what} with simulated workers, in one process.", _sections(answer))


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
        rows = [_HEAD, *(_cells("", one) for one in growth.costs)]
        yield Section(f"{growth.name}, by {growth.across}", _told(growth), (chart,), rows)
