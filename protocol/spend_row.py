"""What a run has used of language models, as people and programs read it: in all, by whom, and against which caps."""

from __future__ import annotations

import msgspec


class Used(msgspec.Struct, frozen=True):
    """`calls`: requests of planners; of skills, the attempts that reported a use."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    price: float = 0.0


class SpendRow(msgspec.Struct, frozen=True):
    """`budget` has the caps that are set, by name; `lent` is held by open planner calls and running attempts, and
    counts against them. `spent`: of what nothing is left, in words."""

    planner: Used = Used()
    skills: Used = Used()
    tokens: int = 0
    price: float = 0.0
    lent_tokens: int = 0
    lent_price: float = 0.0
    budget: dict[str, float] = {}
    spent: str = ""
