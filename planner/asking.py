"""One call of a model's planner: a question, a second one where something was wrong with the answer, and how it ended.

Every end has its outcome and its deadline: a model that is silent, cut, refused, out of words or out of its mind.
Invariant: nothing that a model wrote goes on unchecked, nothing that went on is taken back, and a question that could
cost more than is left is not asked. It must not know HTTP, runs or journals.
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
from .planner import OutcomeKind, PlanOutcome
from .prompt import first_messages, repair_messages
from .reply import Reply
from .signature import quoted
from .view import PlanView
from .wire_form import plan_schema

MOST_PROBLEMS: Final = 20
"""Of a refused plan that a person is shown."""
LEAST_TOKENS: Final = 100
"""An answer that may only be shorter is not asked for."""
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
_NOT_ELSE: Final = frozenset(("refused", "filtered", "no_model"))
"""Ends that are an answer, or a person's to mend: nobody else is asked."""


class Asking:
    """See the module. `prices`: of a million tokens in and out."""

    def __init__(
        self,
        chat: Chat,
        view: PlanView,
        patches: ObjectSendStream[Patch],
        skills: tuple[SkillSpec, ...],
        prices: tuple[float, float],
    ) -> None:
        self._chat = chat
        self._prices = prices
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
        self._too_dear = ""
        self._open: tuple[int, list[str]] | None = None  # a question without its end: its tokens, what was heard

    def helpless(self, outcome: PlanOutcome) -> bool:
        """Whether a first plan has come to nothing, and not because the model said so."""
        came = (
            self._reply.accepted
            or self._view.digest is not None
            or outcome.kind not in ("failed", "refused", "unaffordable")
        )
        return not came and (self._end is None or self._end.kind not in _NOT_ELSE)

    async def ask(self) -> None:
        """Ask, mend once, send what is left."""
        asked = first_messages(self._view, self._skills)
        answer = await self._question(asked)
        if answer is None:
            return
        problems = self._reply.end()
        if any(map(_mendable, problems)) and answer.kind in _AGAIN and self._until - anyio.current_time() > LEAST_S:
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
        if self._open is not None:
            asking, heard = self._open
            self._pay(self._estimate(asking, "".join(heard)))
        return msgspec.structs.replace(self._spent, kind=kind, message=message, hint=hint, problems=problems)

    def _ended(self) -> tuple[OutcomeKind, str, str, tuple[Problem, ...]]:
        reply, end, count = self._reply, self._end, len(self._reply.accepted)
        sent = f"{count} task{'s' * (count != 1)}"
        if end is None and self._too_dear:
            return "unaffordable", self._too_dear, "raise the run's budget", ()
        if end is None or not self._over:
            said = f"the model was not done within {self._view.deadline_s:g} s"
            if not (count and reply.streamed):
                return "failed", said, _MORE, ()
            return "truncated", f"{sent}; {said}", _MORE, reply.close()[1][:MOST_PROBLEMS]
        if end.kind == "no_model":
            return "refused", end.message, end.hint, ()
        if end.kind in _NOT_ELSE and not count:
            said = end.message or end.text
            return "refused", f"the model refused: {quoted(said, 300)}", "ask in other words, or another model", ()
        problems = self._refused[:MOST_PROBLEMS]
        if not problems and reply.empty and self._view.digest is None:
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
        hint = "ask again, or in other words" if any(map(_mendable, problems)) else "split the request into several"
        return "refused", f"{sent}; {lost}" if count else lost, hint, problems

    async def _question(self, messages: tuple[ChatMessage, ...]) -> ChatReply | None:
        """Ask, if what is left of the budget allows for it."""
        request = ChatRequest(
            messages,
            plan_schema(self._skills, again=not self._reply.streamed),
            "plan",
            explained=True,
            deadline_s=max(0.1, (self._until - anyio.current_time()) * 0.98),
        )
        asking = tokens_in(request)
        room = self._room(asking)
        if room is not None and room < LEAST_TOKENS:
            return None
        request = msgspec.structs.replace(request, max_tokens=room or 0)
        self._spent = msgspec.structs.replace(self._spent, calls=self._spent.calls + 1)
        heard: list[str] = []
        self._open = asking, heard
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
            self._end = self._estimate(asking, "".join(heard))
        assert self._end is not None
        self._pay(self._end)
        return self._end

    def _pay(self, end: ChatReply) -> None:
        spent, self._open = self._spent, None
        self._spent = msgspec.structs.replace(
            spent,
            tokens_in=spent.tokens_in + end.tokens_in,
            tokens_out=spent.tokens_out + end.tokens_out,
            price=spent.price + end.price,
        )

    def _room(self, asking: int) -> int | None:
        """How many tokens an answer may have; None: any number. Sets `_too_dear` when it comes to nothing."""
        view, spent, (price_in, price_out) = self._view, self._spent, self._prices
        rooms: list[int] = []
        if view.tokens_left is not None:
            rooms.append(view.tokens_left - spent.tokens_in - spent.tokens_out - asking)
        if view.price_left is not None and (price_in or price_out):
            left = view.price_left - spent.price - asking * price_in / 1e6
            rooms.append(int(left * 1e6 / price_out) if price_out else LEAST_TOKENS * (left > 0))
        if view.calls_left is not None and spent.calls >= view.calls_left:
            rooms.append(0)
        room = min(rooms) if rooms else None
        if room is not None and room < LEAST_TOKENS:
            self._too_dear = f"a question of about {asking} tokens is more than what is left of the budget"
        return room

    def _estimate(self, asking: int, text: str) -> ChatReply:
        """What is known of an answer that was left before its end."""
        answered, (price_in, price_out) = tokens_of(text), self._prices
        price = (asking * price_in + answered * price_out) / 1e6
        return ChatReply("complete", text, tokens_in=asking, tokens_out=answered, price=price, estimated=True)


def _mendable(problem: Problem) -> bool:
    """Whether another answer may do better: one that is too large as a whole would be so again."""
    return not (problem.code == "PlanTooLarge" and problem.where == "document")
