"""Curves through what was measured, by least squares, each with how far it is off: a line, a power, a saturating curve.

The saturating one follows Khatri et al., "The Art of Scaling Reinforcement Learning Compute" (ScaleRL): it levels off
where a straight line would promise for ever. Invariant: pure and deterministic; what the points can't carry is refused
with the reason, never fitted. It must not know what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Final

import msgspec

Points = Sequence[tuple[float, float]]
UNKNOWNS: Final = 4
LEAST_PLACES: Final = UNKNOWNS + 1
"""With as many places as unknowns every curve goes through all points, and says nothing."""
_STEEPEST: Final = 6.0
_FLATTEST: Final = 0.2
_GRID: Final = 24
_ROUNDS: Final = 60
_NEXT: Final = 1e-4
"""Share by which a parameter is moved to see what the curve does."""


class Fit(msgspec.Struct, frozen=True):
    """`y = base + slope * x` by least squares with its R squared, and the exponent of `y = a * x ** exponent`."""

    slope: float
    base: float
    r2: float
    exponent: float


class Saturation(msgspec.Struct, frozen=True):
    """`y = start + (end - start) * x**steepness / (x**steepness + middle**steepness)`.

    `error`: standard deviation of what is left, in units of y. `end_error`: standard error of `end`, None where the
    points don't hold it fast. `ahead`: how far off, as a share, the curve through all places but the last is there,
    None where too few remain. `level`: the half way lies among what was seen, and `end` is held fast.
    """

    start: float
    end: float
    middle: float
    steepness: float
    error: float
    r2: float
    end_error: float | None = None
    ahead: float | None = None
    level: bool = False

    def at(self, x: float) -> float:
        return self.start + (self.end - self.start) * _share(x, self.middle, self.steepness)


def fit(points: Points) -> Fit:
    """Raises: ValueError for fewer than two different places, or a number that is not positive."""
    slope, base, r2 = _line(points)
    exponent, _, _ = _line([(math.log(x), math.log(y)) for x, y in points])
    return Fit(slope, base, r2, exponent)


def saturation(points: Points) -> Saturation:
    """Raises: ValueError, whose text says why no such curve can be claimed."""
    places = sorted({x for x, _ in points})
    if places and places[0] < 0:
        raise ValueError("a place below zero")
    if len(places) < LEAST_PLACES:
        raise ValueError(f"{len(places)} places; {UNKNOWNS} unknowns need {LEAST_PLACES} at least")
    if len({y for _, y in points}) == 1:
        raise ValueError("it is the same everywhere")
    made = _closest(points)
    rest = [point for point in points if point[0] != places[-1]]
    if len(places) > LEAST_PLACES and len({y for _, y in rest}) > 1:
        seen = fmean(y for x, y in points if x == places[-1])
        made = msgspec.structs.replace(made, ahead=abs(_closest(rest).at(places[-1]) / seen - 1) if seen else None)
    end_error = _end_error(points, made)
    held = end_error is not None and end_error < abs(made.end - made.start)
    return msgspec.structs.replace(made, end_error=end_error, level=held and made.middle <= places[-1])


def _closest(points: Points) -> Saturation:
    """Start and end follow from the other two by a straight line over the share; those by a grid, then by halving."""
    places = sorted({x for x, _ in points if x > 0})
    low, high = math.log(places[0] / 10), math.log(places[-1] * 10)
    flat, steep = math.log(_FLATTEST), math.log(_STEEPEST)

    def missed(at: tuple[float, float]) -> float:
        return _straight(points, math.exp(at[0]), math.exp(at[1]))[2]

    steps = ((high - low) / _GRID, (steep - flat) / _GRID)
    grid = [(low + i * steps[0], flat + j * steps[1]) for i in range(_GRID + 1) for j in range(_GRID + 1)]
    best = min(grid, key=missed)
    least = missed(best)
    for _ in range(_ROUNDS):
        for near in _around(best, steps):
            if low <= near[0] <= high and flat <= near[1] <= steep and (found := missed(near)) < least:
                best, least = near, found
                break
        else:
            steps = (steps[0] / 2, steps[1] / 2)
    middle, steepness = math.exp(best[0]), math.exp(best[1])
    start, end, left = _straight(points, middle, steepness)
    mean = fmean(y for _, y in points)
    total = sum((y - mean) ** 2 for _, y in points)
    error = math.sqrt(left / max(1, len(points) - UNKNOWNS))
    return Saturation(start, end, middle, steepness, error, 1.0 - left / total if total else 1.0)


def _around(at: tuple[float, float], steps: tuple[float, float]) -> Iterator[tuple[float, float]]:
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            if i or j:
                yield at[0] + i * steps[0], at[1] + j * steps[1]


def _straight(points: Points, middle: float, steepness: float) -> tuple[float, float, float]:
    """(start, end, sum of squares that are left) of the best curve with this middle and steepness."""
    shares = [(_share(x, middle, steepness), y) for x, y in points]
    try:
        slope, base, _ = _line(shares)
    except ValueError:  # every share is the same: no curve of this form, and no candidate
        return 0.0, 0.0, math.inf
    return base, base + slope, sum((y - base - slope * share) ** 2 for share, y in shares)


def _share(x: float, middle: float, steepness: float) -> float:
    return 1.0 / (1.0 + (middle / x) ** steepness) if x > 0 else 0.0


def _end_error(points: Points, made: Saturation) -> float | None:
    """By the curvature of the squares around the best curve; None if there is none in some direction."""
    names = ("start", "end", "middle", "steepness")
    moves = {name: _NEXT * (abs(getattr(made, name)) or 1.0) for name in names}
    nearby = {name: msgspec.structs.replace(made, **{name: getattr(made, name) + moves[name]}) for name in names}
    rows = [[(nearby[name].at(x) - made.at(x)) / moves[name] for name in names] for x, _ in points]
    normal = [[sum(row[i] * row[j] for row in rows) for j in range(UNKNOWNS)] for i in range(UNKNOWNS)]
    solved = _solve(normal, [0.0, 1.0, 0.0, 0.0])
    if solved is None or not solved[1] > 0:
        return None
    return made.error * math.sqrt(solved[1])


def _solve(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Gauss with pivots, rows scaled; None for a matrix without an inverse, as far as floats can tell."""
    size = len(right)
    scale = [math.sqrt(matrix[at][at]) for at in range(size)]
    if not all(scale):
        return None
    rows = [[matrix[i][j] / scale[i] / scale[j] for j in range(size)] + [right[i] / scale[i]] for i in range(size)]
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(rows[row][at]))
        if abs(rows[pivot][at]) < 1e-12:
            return None
        rows[at], rows[pivot] = rows[pivot], rows[at]
        for below in range(at + 1, size):
            factor = rows[below][at] / rows[at][at]
            rows[below] = [value - factor * above for value, above in zip(rows[below], rows[at])]
    found = [0.0] * size
    for at in reversed(range(size)):
        rest = sum(rows[at][other] * found[other] for other in range(at + 1, size))
        found[at] = (rows[at][size] - rest) / rows[at][at]
    return [value / scale[at] for at, value in enumerate(found)]


def _line(points: Points) -> tuple[float, float, float]:
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / max(1, count), sum(y for _, y in points) / max(1, count)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        raise ValueError("a line needs two different places")
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    base = mean_y - slope * mean_x
    total = sum((y - mean_y) ** 2 for _, y in points)
    missed = sum((y - base - slope * x) ** 2 for x, y in points)
    return slope, base, 1.0 - missed / total if total else 1.0
