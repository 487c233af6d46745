"""Charts as inline SVG: bars with their range, lines with their fit, lanes of a timeline.

Invariant: pure, text in and text out; every label is escaped; colours come from the page (bench/page.py), so that a
chart is readable in light and dark. It must not know what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import Final

import msgspec

WIDTH: Final = 720
_LABEL: Final = 190
_ROW: Final = 26
_BAR: Final = 15
_THIN: Final = 15
_HEIGHT: Final = 300
_LEFT: Final = 64
_FOOT: Final = 40
_LINE: Final = 18
_CHARACTER: Final = 6.6
"""Width of one character of a label."""
_COLOURS: Final = 6


class Bar(msgspec.Struct, frozen=True):
    """One value; `low` and `high` are its range, None where it was seen once. `own`: it is ours."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    own: bool = False


class Series(msgspec.Struct, frozen=True):
    """Points to be joined by a line, or marked (`fit` False draws both)."""

    name: str
    points: tuple[tuple[float, float], ...]
    fit: bool = False
    """A fitted curve: dashed, without marks."""


class Span(msgspec.Struct, frozen=True):
    """One stretch of a lane, in seconds. `kind` picks its colour; `faint`: it came to nothing."""

    start_s: float
    end_s: float
    label: str
    kind: int = 0
    faint: bool = False


def short(value: float) -> str:
    """A number as a person reads it: three digits, no exponent between a thousandth and a billion."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = abs(value)
    if size >= 1e9 or size < 1e-3:
        return f"{value:.2e}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, some `count` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(part * power for part in (1, 2, 5, 10) if part * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(at * step, 12) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`; with two and five between them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    parts = (1,) if len(powers) > 3 else (1, 2, 5)
    return [
        part * 10.0**power for power in powers for part in parts if low * 0.999 <= part * 10.0**power <= high * 1.001
    ]


def bars(title: str, unit: str, rows: Sequence[Bar], *, bound: float | None = None, log: bool = False) -> str:
    """Horizontal bars from zero (`log`: from below the smallest), each with its value; `bound` is a dashed line."""
    highs = [one.high if one.high is not None else one.value for one in rows]
    top = max([*highs, bound or 0.0, 1e-12])
    span = WIDTH - _LABEL - 90
    if log:
        floor = 10 ** math.floor(math.log10(min([one.value for one in rows if one.value > 0] or [1.0])) - 0.001)
        scale = _log_scale(floor, top, _LABEL, span)
        marks = decades(floor, top)
    else:
        scale = _linear_scale(0.0, top, _LABEL, span)
        marks = ticks(0.0, top)
    height = len(rows) * _ROW + _FOOT
    body = [*_columns(marks, scale, height)]
    words: list[str] = []
    for at, one in enumerate(rows):
        y = at * _ROW + (_ROW - _BAR) / 2
        end = scale(one.value)
        words.append(_text(_LABEL - 8, y + _BAR - 3, one.label, "end", limit=_LABEL - 12))
        colour, width = "own" if one.own else "other", max(1.0, end - _LABEL)
        body.append(f'<rect class="{colour}" x="{_LABEL}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}" rx="2"/>')
        if one.low is not None and one.high is not None and one.high > one.low:
            middle = y + _BAR / 2
            body.append(f'<path class="range" d="M{scale(one.low):.1f} {middle:.1f}H{scale(one.high):.1f}"/>')
            end = max(end, scale(one.high))
        words.append(_text(end + 6, y + _BAR - 3, short(one.value), "start"))
    if bound is not None:
        body.append(f'<path class="bound" d="M{scale(bound):.1f} 0V{height - _FOOT}"/>')
    words.append(
        _text(_LABEL + span, height - 4, unit + (f"; dashed: {short(bound)}" if bound is not None else ""), "end")
    )
    return _svg(title, height, [*body, *words])


def lines(
    title: str, across: str, up: str, series: Sequence[Series], *, log_x: bool = False, log_y: bool = False
) -> str:
    """Series over one pair of axes; a legend where there is more than one. Raises: ValueError without a point."""
    points = [point for one in series for point in one.points]
    if not points:
        raise ValueError("a chart needs a point")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    floor = min(ys) if log_y else min(0.0, *ys)
    low_x = min(xs)
    scale_x = (_log_scale if log_x else _linear_scale)(low_x, max(xs), _LEFT, WIDTH - _LEFT - 24)
    plot = _HEIGHT - _FOOT
    raw_y = (_log_scale if log_y else _linear_scale)(floor, max(ys), 0.0, plot - 14)

    def scale_y(value: float) -> float:
        return plot - raw_y(value)

    marks_x = decades(low_x, max(xs)) if log_x else ticks(low_x, max(xs))
    marks_y = decades(floor, max(ys)) if log_y else ticks(floor, max(ys))
    body = [*_columns(marks_x, scale_x, _HEIGHT)]
    for mark in marks_y:
        body.append(f'<path class="grid" d="M{_LEFT} {scale_y(mark):.1f}H{WIDTH - 24}"/>')
        body.append(_text(_LEFT - 6, scale_y(mark) + 4, short(mark), "end"))
    for at, one in enumerate(series):
        line = " ".join(f"{scale_x(x):.1f},{scale_y(y):.1f}" for x, y in one.points)
        body.append(f'<polyline class="line c{at % _COLOURS}{" fit" if one.fit else ""}" points="{line}"/>')
        if not one.fit:
            for x, y in one.points:
                body.append(f'<circle class="c{at % _COLOURS}" cx="{scale_x(x):.1f}" cy="{scale_y(y):.1f}" r="3.5"/>')
    body.append(_text(WIDTH - 24, _HEIGHT - 4, across, "end"))
    head, legend = _legend([one.name for one in series] if len(series) > 1 else [])
    plot_group = f'<g transform="translate(0 {head})">{"".join(body)}</g>'
    return _svg(title, _HEIGHT + head, [_text(4, 12, up, "start"), *legend, plot_group])


def lanes(title: str, rows: Sequence[tuple[str, Sequence[Span]]]) -> str:
    """A timeline: one lane a device or task, its spans from zero to the last end."""
    end = max((span.end_s for _, spans in rows for span in spans), default=0.0) or 1.0
    scale = _linear_scale(0.0, end, _LABEL, WIDTH - _LABEL - 24)
    height = len(rows) * _ROW + _FOOT
    body = [*_columns(ticks(0.0, end), scale, height)]
    for at, (label, spans) in enumerate(rows):
        y = at * _ROW + (_ROW - _BAR) / 2
        body.append(_text(_LABEL - 8, y + _BAR - 3, label, "end", limit=_LABEL - 12))
        for span in spans:
            x, width = scale(span.start_s), max(1.0, scale(span.end_s) - scale(span.start_s))
            told = f"{span.label}: {short(span.start_s)} to {short(span.end_s)} s"
            body.append(
                f'<rect class="c{span.kind % _COLOURS}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}">'
                f"<title>{escape(told)}</title></rect>"
            )
    body.append(_text(WIDTH - 24, height - 4, "seconds", "end"))
    return _svg(title, height, body)


def gantt(title: str, rows: Sequence[tuple[str, Sequence[Span]]], end_s: float) -> str:
    """Lanes whose spans may overlap: each lane is as high as it has spans at once. From zero to `end_s`, so that two of
    them can stand over each other; a span that is long enough bears its label."""
    scale = _linear_scale(0.0, end_s or 1.0, _LABEL, WIDTH - _LABEL - 24)
    body: list[str] = []
    y = 0.0
    for label, spans in rows:
        busy: list[float] = []
        top = y
        for span in sorted(spans, key=lambda one: (one.start_s, one.end_s)):
            row = next((at for at, free in enumerate(busy) if free <= span.start_s), len(busy))
            busy[row : row + 1] = [span.end_s]
            body.append(_block(span, scale, top + 3 + row * _THIN))
        y += max(1, len(busy)) * _THIN + 6
        body.append(_text(_LABEL - 8, (top + y) / 2 + 4, label, "end", limit=_LABEL - 12))
        body.append(f'<path class="grid" d="M0 {y:.1f}H{WIDTH - 24}"/>')
    height = y + _FOOT
    body.append(_text(WIDTH - 24, height - 4, f"seconds, {title}", "end"))
    return _svg(title, height, [*_columns(ticks(0.0, end_s), scale, height), *body])


def _block(span: Span, scale: Callable[[float], float], y: float) -> str:
    x, width = scale(span.start_s), max(1.0, scale(span.end_s) - scale(span.start_s))
    told = f"{span.label}: {short(span.start_s)} to {short(span.end_s)} s"
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_THIN - 2}"'
    colour = f"c{span.kind % _COLOURS}{' faint' if span.faint else ''}"
    found = f'<rect class="{colour}" {place} rx="2"><title>{escape(told)}</title></rect>'
    if len(span.label) * _CHARACTER < width - 6:
        found += f'<text class="on" x="{x + 4:.1f}" y="{y + _THIN - 5:.1f}">{escape(span.label)}</text>'
    return found


def _legend(names: Sequence[str]) -> tuple[int, list[str]]:
    """Above a plot, where it covers nothing, below the unit: how high both are, and what is drawn."""
    found: list[str] = []
    x, y = _LEFT, 12
    for at, name in enumerate(names):
        width = 36 + int(len(name) * _CHARACTER)
        if not at or x + width > WIDTH - 24:
            x, y = _LEFT, y + _LINE
        found.append(f'<rect class="c{at % _COLOURS}" x="{x}" y="{y - 6}" width="12" height="4"/>')
        found.append(_text(x + 18, y, name, "start"))
        x += width
    return y + 8, found


def _linear_scale(low: float, high: float, start: float, length: float) -> Callable[[float], float]:
    width = (high - low) or 1.0
    return lambda value: start + (value - low) / width * length


def _log_scale(low: float, high: float, start: float, length: float) -> Callable[[float], float]:
    least, width = math.log10(low), (math.log10(high) - math.log10(low)) or 1.0
    return lambda value: start + (math.log10(max(value, low)) - least) / width * length


def _columns(marks: Iterable[float], scale: Callable[[float], float], height: float) -> Iterator[str]:
    for mark in marks:
        yield f'<path class="grid" d="M{scale(mark):.1f} 0V{height - _FOOT}"/>'
        yield _text(scale(mark), height - _FOOT + 15, short(mark), "middle")


def _text(x: float, y: float, text: str, anchor: str, *, limit: float = math.inf) -> str:
    most = limit / _CHARACTER
    cut = text if len(text) <= most else text[: int(most) - 1] + "…"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(cut)}</text>'


def _svg(title: str, height: float, body: Iterable[str]) -> str:
    inside = "".join(body)
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height:.0f}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>{inside}</svg>"
    )
