"""The planner that looks for a saved template first: what a person has kept for a request is its plan.

Anything else goes to the planner it stands before, as does every re-plan. Invariant: a template's plan passes the
compiler like any other, and no model is asked for it. It must not know where templates are kept.
"""

from __future__ import annotations

import anyio.to_thread
from anyio.abc import ObjectSendStream

from protocol.patch import Patch

from .catalog_planner import CatalogPlanner
from .planner import Planner, PlanOutcome
from .view import PlanView


class SavedPlanner:
    """A `Planner` in front of `other`, whose name and manners it has."""

    def __init__(self, saved: CatalogPlanner, other: Planner) -> None:
        self._saved = saved
        self._other = other
        self.replans = other.replans

    @property
    def name(self) -> str:
        return self._other.name

    async def plan(self, view: PlanView, patches: ObjectSendStream[Patch]) -> PlanOutcome:
        async with patches:
            decided = await anyio.to_thread.run_sync(self._saved.saved, view)
            if decided is None:
                return await self._other.plan(view, patches)
            for patch in decided.patches:
                await patches.send(patch)
            return decided.outcome
