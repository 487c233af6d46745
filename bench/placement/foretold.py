"""How well runs are foretold: real server, real workers of unlike speed, simulated loads that hold a core and sleep.

Each shape runs once or twice to be measured, then again and again; a run's own report says what was expected of it when
it began and how far the fact was from it. The loads of a shape differ by a seeded lognormal factor, as tasks of one
skill do. It must not know how a forecast is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from orchestrator.client.client import AsyncClient
from protocol.errors import RunFailed
from protocol.plan_form import SCHEMA

from ..metric import at_rank
from ..scenario import Machine, Scenario

_WORKERS: Final = (("quick", 2, ""), ("middle", 2, "speed=0.5"), ("slow", 1, "speed=0.25"))
_SKILLS: Final = '''
import time
from asterism import skill


def _made(name: str, seconds: float):
    @skill(name=name, effect="pure")
    def load(factor: float = 1.0, after: list[float] = []) -> float:
        """A simulated load."""
        time.sleep(seconds * factor)
        return factor
    return load


short, middle, long = (_made(f"load.{name}", s) for name, s in (("short", 0.05), ("middle", 0.15), ("long", 0.4)))
'''


class Foretold(msgspec.Struct, frozen=True):
    """Of all runs: the middle error of the makespan and its 95th percentile, both by nearest rank, and how often the
    fact was between the 10th and the 90th percentile. `cases`: (shape, expected, low, high, fact), seconds."""

    runs: int
    median_error: float
    p95_error: float
    covered: float
    cases: tuple[tuple[str, float, float, float, float], ...]


Shape = Callable[[Random], list[dict[str, Any]]]


def _task(luck: Random, name: str, skill: str, after: list[str], spread: float = 0.1) -> dict[str, Any]:
    args: dict[str, Any] = {"factor": round(luck.lognormvariate(0.0, spread), 3)}
    if after:
        args["after"] = [{"ref": up} for up in after]
    return {"id": name, "skill": f"load.{skill}", "args": args}


def _wide(luck: Random) -> list[dict[str, Any]]:
    rows = [_task(luck, f"w{n}", "middle", []) for n in range(40)]
    return [*rows, _task(luck, "end", "short", [row["id"] for row in rows])]


def _chain(luck: Random) -> list[dict[str, Any]]:
    return [_task(luck, f"c{n}", "short" if n % 2 else "middle", [f"c{n - 1}"] if n else []) for n in range(14)]


def _layers(luck: Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for layer in range(4):
        for n in range(8):
            after = [f"l{layer - 1}-{(n + step) % 8}" for step in (0, 3)] if layer else []
            rows.append(_task(luck, f"l{layer}-{n}", "middle", after))
    return rows


def _fork(luck: Random) -> list[dict[str, Any]]:
    rows = [_task(luck, "in", "short", [])]
    for n in range(6):
        rows.append(_task(luck, f"a{n}", "middle", ["in"]))
        rows.append(_task(luck, f"b{n}", "long" if n % 2 else "short", [f"a{n}"]))
    return [*rows, _task(luck, "out", "long", [f"b{n}" for n in range(6)])]


SHAPES: Final[dict[str, Shape]] = {"wide": _wide, "layers": _layers, "fork": _fork, "chain": _chain}


async def foretold(repeats: int = 10, warm: int = 2, say: Callable[[str], None] = lambda text: None) -> Foretold:
    """Run every shape `warm` times to be measured and `repeats` times to be told: of 40 runs the two worst are beyond
    the 95th percentile. Raises: RunFailed."""
    async with Scenario() as fleet, fleet.client() as client:
        path = Path(fleet.folder) / "loads.py"
        path.write_text(_SKILLS)
        for name, slots, simulate in _WORKERS:
            await fleet.start_worker(client, Machine(name, slots=slots, skills=(str(path),), simulate=simulate))
        await fleet.joined(client, *(name for name, _, _ in _WORKERS))
        cases = []
        for name, shape in SHAPES.items():
            for n in range(warm + repeats):
                found = await _told(client, shape(Random(f"{name}{n}")))
                if n >= warm and found is not None:
                    cases.append((name, *found))
            say(f"{name}: {json.dumps([case[1:] for case in cases if case[0] == name])}")
    errors = sorted(abs(fact / expected - 1.0) for _, expected, _, _, fact in cases)
    if not errors:
        raise RunFailed("nothing was foretold", hint="see asterism predictor stats")
    return Foretold(
        runs=len(errors),
        median_error=at_rank(errors, 0.5),
        p95_error=at_rank(errors, 0.95),
        covered=sum(low <= fact <= high for _, _, low, high, fact in cases) / len(cases),
        cases=tuple(cases),
    )


async def _told(client: AsyncClient, tasks: list[dict[str, Any]]) -> tuple[float, float, float, float] | None:
    """(expected, low, high, fact) of one run; None if nothing was expected of it."""
    live = await client.submit({"schema": SCHEMA, "tasks": tasks})
    if await live.wait() != "succeeded":
        raise RunFailed(f"{live.name} did not succeed", hint="the numbers of a failed run mean nothing")
    report = await client.ask("result", live.run)
    found = report.get("forecast")
    if found is None:
        return None
    return found["makespan_s"], found["low_s"], found["high_s"], report["makespan_s"]
