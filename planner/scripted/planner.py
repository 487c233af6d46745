"""A planner played from a script: patch documents with delays before them, and how the call ends.

For tests, benchmarks and demonstrations: what it says is decided beforehand, when it says it is told by `sleep`, so
that a virtual clock can play it too. Invariant: it passes through the same parser and the same port as any planner.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import msgspec
from anyio.abc import ObjectSendStream

from protocol.errors import PlanRefused
from protocol.patch import Patch
from protocol.plan import parse_patch

from ..planner import PlanOutcome
from ..view import PlanView

Document = Mapping[str, Any] | str | bytes | Patch
Step = tuple[float, Document]
Sleep = Callable[[float], Awaitable[None]]


class Script(msgspec.Struct, frozen=True):
    """One call: (seconds to wait, patch document) in order, then the outcome. A `Patch` is sent as it is."""

    steps: tuple[Step, ...]
    outcome: PlanOutcome = PlanOutcome("complete")


class ScriptedPlanner:
    """A `Planner`. The n-th call plays the n-th script; a call beyond the last one abstains.

    `views` keeps what it was shown. A document that doesn't parse ends the call as `refused`, as a model's would. A
    re-plan whose document names no base gets the version it was asked about.
    """

    name = "scripted"
    replans = False

    def __init__(self, *scripts: Script | Sequence[Step], sleep: Sleep = anyio.sleep) -> None:
        self.scripts = [one if isinstance(one, Script) else Script(tuple(one)) for one in scripts]
        self.views: list[PlanView] = []
        self._sleep = sleep

    async def plan(self, view: PlanView, patches: ObjectSendStream[Patch]) -> PlanOutcome:
        self.views.append(view)
        call = len(self.views) - 1
        async with patches:
            if call >= len(self.scripts):
                return PlanOutcome("abstained", "the script has no further call", planner=self.name)
            script = self.scripts[call]
            with anyio.move_on_after(view.deadline_s):
                for delay, document in script.steps:
                    if delay > 0:
                        await self._sleep(delay)
                    try:
                        patch = _patch(document, view)
                    except PlanRefused as error:
                        return PlanOutcome("refused", error.message, planner=self.name, problems=error.problems)
                    await patches.send(patch)
                return msgspec.structs.replace(script.outcome, planner=script.outcome.planner or self.name)
            return PlanOutcome("failed", f"no answer within {view.deadline_s:g} s", planner=self.name)


def _patch(document: Document, view: PlanView) -> Patch:
    patch = document if isinstance(document, Patch) else parse_patch(document, author="planner")
    if view.digest is not None and patch.base < 0:
        return msgspec.structs.replace(patch, base=view.base)
    return patch
