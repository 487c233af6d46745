"""The planner that asks a language model: tasks leave while it writes, one further question mends what was wrong.

prompt -> chat -> decoder -> compiler -> patch, then the critic. This is the choice of what a model is shown, and who
plans in its stead. Invariant: a model that has given an answer, be it no, is not gone round. It must not know HTTP,
runs or journals.
"""

from __future__ import annotations

from typing import Final

import anyio
import msgspec
from anyio.abc import ObjectSendStream

from protocol.chat import Chat
from protocol.patch import Patch
from protocol.skill import SkillSpec

from .asking import Asking
from .planner import Planner, PlanOutcome
from .shortlist import Shortlist
from .view import PlanView

SHORTLIST: Final = 24


class LlmPlanner:
    """A `Planner`. `fallback` plans what the model could not be asked for; `shortlist`: so many skills are shown;
    `prices`: of a million tokens in and out, to tell beforehand what a question may cost."""

    replans = True

    def __init__(
        self,
        chat: Chat,
        fallback: Planner | None = None,
        *,
        shortlist: int = SHORTLIST,
        pinned: tuple[str, ...] = (),
        prices: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self._chat = chat
        self._fallback = fallback
        self._most = shortlist
        self._pinned = pinned
        self._prices = prices

    @property
    def name(self) -> str:
        return f"llm:{self._chat.name}" if self._chat.name else "llm"

    async def plan(self, view: PlanView, patches: ObjectSendStream[Patch]) -> PlanOutcome:
        async with patches:
            call = Asking(self._chat, view, patches, self._skills(view), self._prices)
            with anyio.move_on_after(view.deadline_s):
                await call.ask()
            outcome = msgspec.structs.replace(call.outcome(), planner=self.name)
            if self._fallback is not None and call.helpless(outcome):
                return await self._instead(self._fallback, outcome, view, patches)
            return outcome

    async def _instead(
        self, fallback: Planner, failed: PlanOutcome, view: PlanView, patches: ObjectSendStream[Patch]
    ) -> PlanOutcome:
        """The other planner's plan, with a word on why; the model's failure where that one has none either."""
        other = await fallback.plan(view, patches)
        if other.kind == "abstained":
            return msgspec.structs.replace(failed, hint=failed.hint or other.hint, nearest=other.nearest)
        return msgspec.structs.replace(
            failed,
            kind=other.kind,
            message=f"{other.message}; {failed.planner} could not plan: {failed.message}",
            hint=other.hint,
            planner=other.planner,
            problems=other.problems,
        )

    def _skills(self, view: PlanView) -> tuple[SkillSpec, ...]:
        """Those that may be used without a person, that the graph uses, that are pinned, that fit; then others."""
        if len(view.skills) <= self._most:
            return view.skills
        by_name = {skill.name: skill for skill in view.skills}
        used = {task.skill for task in view.digest.tasks} if view.digest is not None else set()
        ranked = Shortlist(view.skills).rank(f"{view.request} {view.goal}", self._most)
        names = [
            *(name for name in (*view.envelope, *sorted(used), *self._pinned) if name in by_name),
            *(skill.name for _, skill in ranked),
            *by_name,
        ]
        chosen = set(list(dict.fromkeys(names))[: self._most])
        return tuple(skill for skill in view.skills if skill.name in chosen)
