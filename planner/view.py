"""What a planner may see: the request, the skills there are, a summary of the fleet, and for a re-plan a digest.

Invariant: frozen, and free of words that workers wrote (`goal` apart; see protocol.digest for what reaches `digest`),
so that nothing a task read can write into a plan. It must not know runs, journals or streams.
"""

from __future__ import annotations

import msgspec

from protocol.digest import Digest, Fact
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
    like requests before, the likest first. `trusted`: what persons have said of this run, each with its name.

    `tokens_left`, `price_left`, `calls_left`: what this call was lent of the run's budget, and how many requests it may
    make (None: no cap); a request that could use more is not to be made. `envelope`: the skills that a re-plan may use
    without a person's approval.

    `goal`: what a running task asked for by `ctx.propose`; it may come from anywhere, so it is data to be quoted, never
    an instruction. `facts`: what a `plan.next` task hands on. Each is an input too, so that it can be named; one whose
    value may not be shown stands there as null.
    """

    request: str
    skills: tuple[SkillSpec, ...] = ()
    fleet: tuple[WorkerView, ...] = ()
    inputs: dict[str, bytes] = {}
    budget: RunBudget = RunBudget()
    base: int = -1
    digest: Digest | None = None
    deadline_s: float = 120.0
    tokens_left: int | None = None
    price_left: float | None = None
    calls_left: int | None = None
    envelope: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    goal: str = ""
    trusted: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
