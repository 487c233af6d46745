"""The planner that asks a language model: tasks leave while it writes, one further question mends what was wrong.

prompt -> chat -> decoder -> compiler -> patch, then the critic. Every end has its outcome and its deadline: a model
that is silent, cut, refused, out of words or out of its mind. Invariant: nothing that a model wrote goes on unchecked;
nothing that went on is taken back. It must not know HTTP, runs or journals.
"""

from __future__ import annotations

from typing import Final

import anyio
import msgspec
from anyio.abc import ObjectSendStream

from protocol.chat import Chat, ChatMessage, ChatReply, ChatRequest, tokens_in, tokens_of
from protocol.errors import Problem
from protocol.patch import Patch
from protocol.skill import SkillSpec

from .catalog import Catalog
from .critic import criticise
from .planner import OutcomeKind, Planner, PlanOutcome
from .prompt import first_messages, repair_messages
from .reply import Reply
from .shortlist import Shortlist
from .signature import quoted
from .view import PlanView
from .wire_form import plan_schema

SHORTLIST: Final = 24
MOST_PROBLEMS: Final = 20
"""Of a refused plan that a person is shown."""
LEAST_S: Final = 1.0
"""With less time left the model is not asked again."""
REST_S: Final = 2.0
"""How long a model may go on after the end of the plan: its server's usage comes then."""
_AGAIN: Final = frozenset(("complete", "tool_calls", "length", "cut", "garbage"))
"""Ends after which a further question may help: the server is there and answers."""
_CUT: Final = frozenset(("CutOff", "NoPlan"))
_MORE: Final = "allow more time (planner.deadline), or use a faster model"
_SAID: Final = {
    "length": "the model's answer reached its limit (llm.max_tokens)",
    "complete": "the answer is not whole",
}
_NOT_ELSE: Final = frozenset(("refused", "filtered"))
"""Ends that are an answer: nobody else is asked."""


class LlmPlanner:
    """A `Planner`. `fallback` plans what the model could not be asked for; `shortlist`: so many skills are shown."""

    replans = True

    def __init__(self, chat: Chat, fallback: Planner | None = None, *, shortlist: int = SHORTLIST) -> None:
        self._chat = chat
        self._fallback = fallback
        self._most = shortlist

    @property
    def name(self) -> str:
        return f"llm:{self._chat.name}" if self._chat.name else "llm"

    async def plan(self, view: PlanView, patches: ObjectSendStream[Patch]) -> PlanOutcome:
        async with patches:
            call = _Call(self._chat, view, patches, self._skills(view))
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
        """Those that the request is about, those that the graph uses, then others, in the order of the catalog."""
        if len(view.skills) <= self._most:
            return view.skills
        by_name = {skill.name: skill for skill in view.skills}
        used = {task.skill for task in view.digest.tasks} if view.digest is not None else set()
        ranked = Shortlist(view.skills).rank(f"{view.request} {view.goal}", self._most)
        names = [*sorted(used & by_name.keys()), *(skill.name for _, skill in ranked), *by_name]
        chosen = set(list(dict.fromkeys(names))[: self._most])
        return tuple(skill for skill in view.skills if skill.name in chosen)


class _Call:
    """One call of the planner: one question, and a second one where something was wrong with the answer."""

    def __init__(
        self, chat: Chat, view: PlanView, patches: ObjectSendStream[Patch], skills: tuple[SkillSpec, ...]
    ) -> None:
        self._chat = chat
        self._view = view
        self._patches = patches
        self._skills = skills
        self._catalog = Catalog(view.skills)
        self._reply = Reply(view, self._catalog)
        self._until = anyio.current_time() + view.deadline_s
        self._end: ChatReply | None = None  # of the last question
        self._spent = PlanOutcome("failed")
        self._refused: tuple[Problem, ...] = ()
        self._mending = False  # a further question is asked, and not a word of the answer is here
        self._over = False

    def helpless(self, outcome: PlanOutcome) -> bool:
        """Whether a first plan has come to nothing, and not because the model said so."""
        came = self._reply.accepted or self._view.digest is not None or outcome.kind not in ("failed", "refused")
        return not came and (self._end is None or self._end.kind not in _NOT_ELSE)

    async def ask(self) -> None:
        """Ask, mend once, send what is left."""
        asked = first_messages(self._view, self._skills)
        answer = await self._question(asked)
        problems = self._reply.end()
        if problems and answer.kind in _AGAIN and self._until - anyio.current_time() > LEAST_S:
            streamed = self._reply.streamed
            self._mending = True
            await self._question(
                repair_messages(asked, answer.text, problems, self._reply.accepted, again=not streamed)
            )
            if self._mending:  # it said nothing to that
                self._end = answer
        last, self._refused = self._reply.close()
        if last is not None:
            await self._patches.send(last)
        self._over = True

    def outcome(self) -> PlanOutcome:
        """How it ended, as far as it came."""
        kind, message, hint, problems = self._ended()
        return msgspec.structs.replace(self._spent, kind=kind, message=message, hint=hint, problems=problems)

    def _ended(self) -> tuple[OutcomeKind, str, str, tuple[Problem, ...]]:
        reply, end, count = self._reply, self._end, len(self._reply.accepted)
        sent = f"{count} task{'s' * (count != 1)}"
        if end is None or not self._over:
            said = f"the model was not done within {self._view.deadline_s:g} s"
            if not (count and reply.streamed):
                return "failed", said, _MORE, ()
            return "truncated", f"{sent}; {said}", _MORE, reply.close()[1][:MOST_PROBLEMS]
        if end.kind in _NOT_ELSE and not count:
            said = end.message or end.text
            return "refused", f"the model refused: {quoted(said, 300)}", "ask in other words, or another model", ()
        problems = self._refused[:MOST_PROBLEMS]
        if not problems and reply.empty and reply.streamed:
            said = "the model sees no way to do this with the skills there are"
            return "abstained", said, "see asterism skills", ()
        if not problems:
            outputs = reply.outputs
            remarks = criticise(tuple(reply.accepted.values()), outputs, self._catalog) if reply.streamed else ()
            return "complete", sent, "", remarks
        if {problem.code for problem in problems} <= _CUT:
            said = end.message or _SAID.get(end.kind, "")
            if count and reply.streamed:
                return "truncated", f"{sent}; {said}", end.hint, ()
            wrote = f"the model wrote no whole plan: {quoted(end.text, 200)}" if end.text else "the model wrote nothing"
            return "failed", said or wrote, end.hint or "use another model", ()
        lost = f"{len(self._refused)} problem{'s' * (len(self._refused) != 1)} of the model's plan"
        return "refused", f"{sent}; {lost}" if count else lost, "ask again, or in other words", problems

    async def _question(self, messages: tuple[ChatMessage, ...]) -> ChatReply:
        request = ChatRequest(
            messages,
            plan_schema(self._skills, again=not self._reply.streamed),
            "plan",
            explained=True,
            deadline_s=max(0.1, (self._until - anyio.current_time()) * 0.98),
        )
        self._spent = msgspec.structs.replace(self._spent, calls=self._spent.calls + 1)
        heard: list[str] = []
        rest = anyio.CancelScope()

        async def hear(text: str) -> None:
            heard.append(text)
            if self._mending:
                self._reply.mend()
                self._mending = False
            patch = self._reply.feed(text)
            if patch is not None:
                await self._patches.send(patch)
            if self._reply.stopped:
                rest.cancel()
            elif self._reply.whole:
                rest.deadline = min(rest.deadline, anyio.current_time() + REST_S)

        with rest:
            self._end = await self._chat.complete(request, hear)
        if rest.cancelled_caught:
            text = "".join(heard)
            self._end = ChatReply(
                "complete", text, tokens_in=tokens_in(request), tokens_out=tokens_of(text), estimated=True
            )
        end, spent = self._end, self._spent
        assert end is not None
        self._spent = msgspec.structs.replace(
            spent,
            tokens_in=spent.tokens_in + end.tokens_in,
            tokens_out=spent.tokens_out + end.tokens_out,
            price=spent.price + end.price,
        )
        return end
