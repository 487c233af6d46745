"""Every kind of harm that a plan may come to, by name, with the truth beside the harmed text.

A kind is a pure function of a good plan and a seed. Used by `asterism bench planner` and by the tests of the decoder.
It must not know who reads plans.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random
from typing import Final

from . import task_damage, text_damage
from .sample import Document, good, text_of
from .text_damage import Damaged, cut
from .truth import Truth, below

KINDS: Final = (*task_damage.HARMS, *text_damage.HARMS)
HUGE: Final = ("huge text", "deep nesting")
"""What goes over a limit: a reader may stop there, so what follows may be lost."""
MENDED: Final = ("forward reference", "condition on a later task")
"""What is right when it is said again: by then, the task that it names is there."""


def damaged(kind: str, seed: int, plan: Document | None = None) -> Damaged:
    """A good plan (else one drawn from the seed) harmed in this way."""
    plan = plan if plan is not None else good(seed, 6 + seed % 7)
    luck = Random(f"{kind} {seed}")
    if kind in text_damage.HARMS:
        return text_damage.HARMS[kind](plan, luck)
    at = luck.randrange(1, len(plan["tasks"]) - 1)
    ids = [task["id"] for task in plan["tasks"]]
    rows = copy.deepcopy(plan["tasks"])
    task_damage.HARMS[kind](rows, at, luck)
    fallen = below(plan, ids[at], *([ids[at + 1]] if kind == "cycle" else ()))
    rest = frozenset(ids) - fallen
    text = text_of({**plan, "tasks": rows}, luck.randrange(3))
    if kind in HUGE:
        before = frozenset(ids[:at])
        return text, Truth(plan, before, rest - before)
    return text, Truth(plan, rest)


def truncations(seed: int, tasks: int = 4) -> Iterator[Damaged]:
    """A plan cut off after every byte of it; a character that was cut in the middle is lost, as decoders lose it."""
    plan = good(seed, tasks)
    text = text_of(plan, seed)
    raw = text.encode()
    for at in range(len(raw)):
        yield cut(plan, len(raw[:at].decode(errors="ignore")), seed)
