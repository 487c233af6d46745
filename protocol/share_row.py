"""What a run's user has of the fleet, as people and programs read it."""

from __future__ import annotations

import msgspec


class ShareRow(msgspec.Struct, frozen=True):
    """`holds`: the largest part of any one resource (`resource`) that the user's attempts have now, of 1. `lately`: the
    same with what was used before, while several runs wait, else None. `ready`: tasks of the run that wait for room;
    `first`: who goes before them and why, in words."""

    user: str
    sla: str
    weight: float
    resource: str
    holds: float
    lately: float | None = None
    ready: int = 0
    first: str = ""
