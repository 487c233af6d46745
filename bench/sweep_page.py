"""A sweep shown: a table of every point, a line a curve, and both as a page with charts.

Invariant: no number that the answer doesn't hold; where no curve is claimed, the reason stands in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .chart import Bar, Series, bars, lines, short
from .page import Section, write_page
from .report import aligned
from .sweep import Row, Sweep, told

_STEPS: Final = 60
"""Points that draw a curve."""


def table(answer: Sweep) -> str:
    """For people: each point, what failed, each curve."""
    rows = _points(answer)
    text = [aligned(rows, numbers=range(len(answer.grid), len(rows[0])))]
    text += [f"{told(point.settings)}: {why}" for point in answer.points for why in point.problems]
    if answer.left_out:
        text.append(f"{answer.left_out} plays were left out: no time")
    return "\n".join([*text, *([""] if answer.rows else []), *map(_told, answer.rows)])


def _points(answer: Sweep) -> list[tuple[str, ...]]:
    figures = list(dict.fromkeys(name for point in answer.points for name in point.values))
    several = len(answer.seeds) > 1
    rows = [(*answer.grid, *(cell for name in figures for cell in ((name, "min .. max") if several else (name,))))]
    for point in answer.points:
        cells = [str(point.settings[name]) for name in answer.grid]
        spreads = point.spreads() if any(point.values.values()) else {}
        for name in figures:
            seen = spreads.get(name)
            cells.append(short(seen.median) if seen else "-")
            if several:
                cells.append(f"{short(seen.min)} .. {short(seen.max)}" if seen else "-")
        rows.append(tuple(cells))
    return rows


def _told(row: Row) -> str:
    head = f"{row.figure} by {row.param}" + (f" ({told(row.fixed)})" if row.fixed else "")
    curve = row.curve
    if curve is None:
        return f"{head}: no curve claimed: {row.why}"
    if curve.level and curve.end_error is not None:
        text = f"levels off at {short(curve.end)} +- {short(curve.end_error)}, half way at {short(curve.middle)}"
    else:
        text = "does not level off in what was seen"
    ahead = f", the last place foretold within {short(curve.ahead * 100)} %" if curve.ahead is not None else ""
    return f"{head}: {text}; off by {short(curve.error)} (R2 {curve.r2:.4f}){ahead}"


def write_sweep(answer: Sweep, path: Path) -> None:
    """Raises: UsageError when the file can't be written."""
    grid = "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in answer.grid.items())
    about = f"{grid}. {len(answer.seeds)} seeds a point, from {answer.seed} on; {answer.seconds:g} s."
    write_page(path, f"A sweep of {answer.suite}", about, _sections(answer))


def _sections(answer: Sweep) -> Iterator[Section]:
    yield Section("Every point", "Medians, and what they were seen between.", rows=_points(answer))
    for figure in dict.fromkeys(name for point in answer.points for name in point.values):
        along = [row for row in answer.rows if row.figure == figure and row.points]
        for param in dict.fromkeys(row.param for row in along):
            rows = [row for row in along if row.param == param]
            series = [one for row in rows for one in _series(row)]
            chart = lines(f"{figure} by {param}", param, figure, series)
            yield Section(f"{figure} by {param}", " ".join(f"{_told(row)}." for row in rows), (chart,))
        if not along:
            seen = [(point, point.spreads()[figure]) for point in answer.points if point.values.get(figure)]
            chart = bars(
                figure, figure, [Bar(told(point.settings), one.median, one.min, one.max) for point, one in seen]
            )
            yield Section(figure, charts=(chart,))


def _series(row: Row) -> Iterator[Series]:
    name = told(row.fixed) or "measured"
    yield Series(name, row.points)
    if row.curve is not None:
        low, high = row.points[0][0], row.points[-1][0]
        places = [low + (high - low) * step / _STEPS for step in range(_STEPS + 1)]
        yield Series(f"{name}, curve", tuple((x, row.curve.at(x)) for x in places), fit=True)
