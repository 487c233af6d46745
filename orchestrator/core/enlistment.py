"""The roster of a kind of task: worked out once, and kept while the fleet doesn't change."""

from __future__ import annotations

from typing import Final

from protocol.skill import SkillSpec

from .eligibility import eligible, policy_of
from .queue import Kind
from .roster import Roster
from .turn import Turn

_KEPT: Final = 1024
"""Rosters; a fleet of many workers is a kind of its own for each (`on: all`)."""


def roster_of(turn: Turn, kind: Kind, spec: SkillSpec) -> Roster:
    """Who may run these, and who of them asks, in the fleet as it is."""
    era, rosters, sessions = turn.fleet.changes, turn.queue.rosters, turn.fleet.sessions
    roster = rosters.get(kind)
    if roster is None or roster.era != era:
        if len(rosters) >= _KEPT:
            rosters.clear()
        found = eligible(turn.state, turn.fleet, kind, spec)
        asks = turn.ruling(spec.name) == "ask"
        asking = frozenset(worker for worker, _, _ in found if asks or policy_of(sessions[worker], spec) == "ask")
        roster = rosters[kind] = Roster(
            ((sessions[worker], device, needs) for worker, device, needs in found), asking, era
        )
    return roster
