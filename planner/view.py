"""What a planner may see: the request, the skills there are, a summary of the fleet, and for a re-plan a digest.

Invariant: frozen, and free of values that workers produced (only their types, sizes and states reach `digest`), so
that nothing a task read can write into a plan. It must not know runs, journals or streams.
"""

from __future__ import annotations

from typing import Any

import msgspec

from protocol.skill import SkillSpec
from protocol.task import RunBudget

from .example import Example


class WorkerView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One worker in the eyes of a planner. `free`: slots without an attempt."""

    name: str
    devices: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    slots: int = 1
    free: int = 0
    here: bool = False
    connected: bool = True


class PlanView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything one call of a planner gets.

    `inputs` are JSON by name. `base` is the graph's version for a re-plan, whose `digest` says what happened (None: a
    first plan). `deadline_s` is the planner's own; it returns `failed` rather than overrun it. `examples`: what served
    like requests before, the likest first.
    """

    request: str
    skills: tuple[SkillSpec, ...] = ()
    fleet: tuple[WorkerView, ...] = ()
    inputs: dict[str, bytes] = {}
    budget: RunBudget = RunBudget()
    base: int = -1
    digest: dict[str, Any] | None = None
    deadline_s: float = 120.0
    examples: tuple[Example, ...] = ()
