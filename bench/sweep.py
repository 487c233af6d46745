"""`asterism bench sweep`: a suite played at every point of a grid of settings, with several seeds at each, and a
saturating curve through each row of numbers. (Monte-Carlo sweeps over settings: PCF.)

Every point is played with the same seeds, so that points differ by their settings and not by their luck; the order is
drawn, so that what else the machine does falls on all alike. A play that fails is named and the rest goes on.
It must not know what a suite measures.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final, Protocol

import msgspec

from protocol.config import load
from protocol.errors import AsterismError, UsageError
from protocol.report import SCHEMA

from .curve import Saturation, saturation
from .metric import Spread, spread

Value = int | float | str
Say = Callable[[str], None]
QUICK_S: Final = 40.0
"""With --quick no play is begun after so much time."""
MOST_PLAYS: Final = 10_000
SILENT_S: Final = 0.5


class Param(msgspec.Struct, frozen=True):
    """One that a suite knows: a number of at least `least`, or one of `choices`."""

    name: str
    default: Value
    choices: tuple[str, ...] = ()
    least: float = 1

    def read(self, text: str) -> Value:
        """Raises: UsageError."""
        if self.choices:
            if text in self.choices:
                return text
            raise UsageError(f"{self.name}={text} is none of its values", hint=f"one of {', '.join(self.choices)}")
        kind = type(self.default)
        try:
            value: Value = kind(text)
        except ValueError:
            raise UsageError(f"{self.name}={text} is no number", hint=f"as in {self.name}={self.default}") from None
        if not isinstance(value, str) and not self.least <= value < float("inf"):
            raise UsageError(f"{self.name}={text} is out of range", hint=f"at least {self.least:g}")
        return value


class Suite(Protocol):
    """What can be swept. `figures`: what `play` measures, the one that matters most first. `configured`: a real server
    reads its settings, so that any of them may be swept as well, by its dotted name."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> tuple[Param, ...]: ...
    @property
    def figures(self) -> tuple[str, ...]: ...
    @property
    def configured(self) -> bool: ...

    async def play(self, point: Mapping[str, Value], environ: Mapping[str, str], seed: int) -> dict[str, float]:
        """One run of the suite with these params (defaults filled in) and settings. Raises: AsterismError."""
        ...


class Point(msgspec.Struct, frozen=True):
    """One of the grid. `values`: by figure, a number for each seed that was played. `problems`: why others were not."""

    settings: dict[str, Value]
    values: dict[str, tuple[float, ...]]
    problems: tuple[str, ...] = ()

    def spreads(self) -> dict[str, Spread]:
        return {name: spread(values) for name, values in self.values.items()}


class Row(msgspec.Struct, frozen=True):
    """One figure along one param of numbers, the others fixed; `curve` None: `why` says why none is claimed."""

    figure: str
    param: str
    fixed: dict[str, Value]
    points: tuple[tuple[float, float], ...]
    curve: Saturation | None = None
    why: str = ""


class Sweep(msgspec.Struct, frozen=True):
    """The answer. `left_out`: plays for which there was no time."""

    suite: str
    seed: int
    seeds: tuple[int, ...]
    grid: dict[str, tuple[Value, ...]]
    points: tuple[Point, ...]
    rows: tuple[Row, ...]
    left_out: int
    seconds: float

    @property
    def whole(self) -> bool:
        return not self.left_out and not any(point.problems for point in self.points)

    def document(self) -> dict[str, Any]:
        """What `-o json` prints."""
        body: dict[str, Any] = msgspec.to_builtins(self)
        for row, point in zip(body["points"], self.points, strict=True):
            row["figures"] = msgspec.to_builtins(point.spreads())
        return {"schema": SCHEMA, "bench": "sweep", "whole": self.whole, **body}


def read_grid(suite: Suite, texts: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """The values of each `NAME=VALUE,VALUE...`. Raises: UsageError, ConfigInvalid for a setting's wrong value."""
    grid: dict[str, tuple[Value, ...]] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        if not sign or not all(values.split(",")):
            raise UsageError(f"--param {text} has no values", hint="--param NAME=VALUE,VALUE")
        if name in grid:
            raise UsageError(f"--param {name} is given twice", hint="put all its values into one")
        grid[name] = tuple(dict.fromkeys(_read(suite, name, value) for value in values.split(",")))
    if not grid:
        raise UsageError("a sweep needs a --param", hint=_known(suite))
    return grid


def _read(suite: Suite, name: str, text: str) -> Value:
    for param in suite.params:
        if param.name == name:
            return param.read(text)
    if not suite.configured or "." not in name or name not in {key for key, _, _ in load(environ={}).leaves()}:
        raise UsageError(f"the suite {suite.name} knows no param {name}", hint=_known(suite))
    load(environ={_variable(name): text})
    try:
        return float(text)
    except ValueError:
        return text


def _known(suite: Suite) -> str:
    told = ", ".join(
        f"{one.name} ({'|'.join(one.choices)})" if one.choices else f"{one.name} (a number)" for one in suite.params
    )
    return f"it knows {told}" + (
        "; and settings by their dotted names (asterism config view)" if suite.configured else ""
    )


def _variable(key: str) -> str:
    return "ASTERISM_" + key.upper().replace(".", "__")


async def sweep(
    suite: Suite, grid: Mapping[str, tuple[Value, ...]], *, seed: int, repeat: int, say: Say, until_s: float = 0.0
) -> Sweep:
    """Play all of it; with `until_s`, what can be begun by then. Raises: UsageError for a grid without measure."""
    settings = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    plays = [(at, nth) for at in range(len(settings)) for nth in range(repeat)]
    if len(plays) > MOST_PLAYS:
        raise UsageError(f"{len(plays):,} plays are more than {MOST_PLAYS:,}", hint="fewer values or repeats")
    Random(seed).shuffle(plays)
    seeds = tuple(seed + nth for nth in range(repeat))
    found: list[dict[int, dict[str, float]]] = [{} for _ in settings]
    problems: list[list[str]] = [[] for _ in settings]
    began, left_out, silent_until = time.perf_counter(), 0, 0.0
    for count, (at, nth) in enumerate(plays, 1):
        now = time.perf_counter()
        if until_s and now - began > until_s:
            left_out += 1
            continue
        if now >= silent_until:
            silent_until = now + SILENT_S
            say(f"{count} of {len(plays)}: {told(settings[at])}, seed {seeds[nth]}")
        try:
            found[at][nth] = await _play(suite, settings[at], seeds[nth])
        except AsterismError as error:
            problems[at].append(f"seed {seeds[nth]}: {error.message}")
    points = tuple(
        Point(
            settings[at],
            {name: tuple(one[nth][name] for nth in sorted(one)) for name in _names(suite, one)},
            tuple(bad),
        )
        for at, (one, bad) in enumerate(zip(found, problems))
    )
    rows = tuple(_row(*one) for one in _lanes(suite, grid, points))
    return Sweep(suite.name, seed, seeds, dict(grid), points, rows, left_out, round(time.perf_counter() - began, 1))


async def _play(suite: Suite, settings: Mapping[str, Value], seed: int) -> dict[str, float]:
    own = {param.name: param.default for param in suite.params}
    environ = {_variable(name): f"{value:g}" if isinstance(value, float) else str(value)
               for name, value in settings.items() if name not in own}  # fmt: skip
    return await suite.play({**own, **{name: settings[name] for name in own if name in settings}}, environ, seed)


def _names(suite: Suite, plays: Mapping[int, Mapping[str, float]]) -> list[str]:
    return [name for name in suite.figures if plays and all(name in one for one in plays.values())]


_Lane = tuple[str, str, dict[str, Value], tuple[tuple[float, float], ...]]


def _lanes(suite: Suite, grid: Mapping[str, tuple[Value, ...]], points: Sequence[Point]) -> Iterator[_Lane]:
    """Every figure along every param whose values are numbers, for each choice of the others."""
    for param, values in grid.items():
        if len(values) < 2 or any(isinstance(value, str) for value in values):
            continue
        others = {name: row for name, row in grid.items() if name != param}
        for choice in itertools.product(*others.values()):
            fixed = dict(zip(others, choice))
            along = [point for point in points if fixed.items() <= point.settings.items()]
            for name in suite.figures:
                seen = ((point.settings[param], value) for point in along for value in point.values.get(name, ()))
                yield name, param, fixed, tuple(sorted((float(x), value) for x, value in seen))


def _row(figure: str, param: str, fixed: dict[str, Value], points: tuple[tuple[float, float], ...]) -> Row:
    try:
        return Row(figure, param, fixed, points, saturation(points))
    except ValueError as error:
        return Row(figure, param, fixed, points, why=str(error))


def told(settings: Mapping[str, Value]) -> str:
    """As a person would type them."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())
