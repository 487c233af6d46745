"""What `asterism bench cross-device` answers: the figures at the top, below them all that they were drawn from.

Invariant: a figure that was not measured is null, and what others published stands apart from what was measured here.
It must not know how anything was played.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import psutil

from protocol.report import SCHEMA

from .figure import LEAST, MOST, Blow, Figures, Row, blows, by_category, figures, is_wrong, missed, rows
from .play import Play
from .suite import Suite

UFO: Final = "UFO³ on NebulaBench (arXiv 2511.11332)"
PUBLISHED: Final = {
    "tasks": 55,
    "categories": 10,
    "machines": 5,
    "subtask_completion_rate": 0.833,
    "task_success_rate": 0.709,
    "mean_width": 1.72,
    "latency_reduction": 0.31,
}
APART: Final = (
    "Only the definitions are alike. NebulaBench's tasks were never released, so these are other tasks, on other "
    "machines, checked by other means. There a language model plans and agents do the work, and both fail at times; in "
    "gold mode each plan is given, so that only what runs it is measured, and its rates say nothing about planning. "
    "Closest are the widths and the latency beside the same graph one task after the other. In llm mode a model plans "
    "here, too."
)


class Answer(msgspec.Struct, frozen=True):
    """Of one call. `figures` and `categories` are of what was played without a fault."""

    suite: Suite
    figures: Figures
    categories: dict[str, Figures]
    blows: tuple[Blow, ...]
    rows: tuple[Row, ...]
    missed: dict[str, float]
    machine: dict[str, Any]

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be played or judged, a line each."""
        return tuple(" ".join(text.split()) for text in self.suite.problems)

    @property
    def wrong(self) -> tuple[str, ...]:
        """Who was called a success and is none, under a fault or without."""
        named = {
            f"{one.case} ({how})" if (how := one.fault or ("sequential" if one.sequential else "")) else one.case: None
            for one in self.suite.plays
            if is_wrong(one)
        }
        return tuple(named)

    @property
    def calm(self) -> tuple[Play, ...]:
        """The plays without a fault."""
        return tuple(one for one in self.suite.plays if not one.fault)


def answer(suite: Suite) -> Answer:
    calm = [one for one in suite.plays if not one.fault]
    found = figures(calm)
    bounded = missed(found) if suite.order.mode == "gold" else {}
    struck = blows(suite.plays, {case.name: case.needs for case in suite.cases})
    return Answer(suite, found, by_category(calm), struck, rows(calm), bounded, machine(suite.notes))


def machine(notes: Iterable[str] = ()) -> dict[str, Any]:
    """Where it was measured."""
    return {
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "site": list(notes),
    }


def machine_words(found: dict[str, Any]) -> str:
    own = f"{found['cores']} cores, {found['memory_gib']:g} GiB, {found['system']}, Python {found['python']}"
    return "; ".join([own, f"load {found['load']:g} at the end", *found["site"]])


def document(found: Answer) -> dict[str, Any]:
    """What `-o json` prints, and `--out` keeps."""
    suite = found.suite
    order = suite.order
    return {
        "schema": SCHEMA,
        "bench": "cross-device",
        "mode": order.mode,
        "seed": order.seed,
        "repeat": order.repeat,
        "quick": order.quick,
        **msgspec.to_builtins(found.figures),
        "wrong": list(found.wrong),
        "whole": suite.whole,
        "problems": list(found.problems),
        "missed": found.missed,
        "bounds": {"least": LEAST, "most": MOST} if order.mode == "gold" else {},
        "categories": msgspec.to_builtins(found.categories),
        "faults": {one.fault: msgspec.to_builtins(one) for one in found.blows},
        "cases": msgspec.to_builtins(found.rows),
        "published": {"what": UFO, **PUBLISHED, "comparable": APART},
        "machine": found.machine,
        "took_s": round(suite.took_s, 1),
    }
