"""The loop of an agent: the model asks for tools, each is a task of its own, their results go back as data.

A tool runs as a child of the agent's task on the agent's own worker: journaled, judged by every policy, approved by
people, held in its own sandbox, its effect begun by its own attempt. What the model wanted is checkpointed before
anything of it happens and children are named by their place in it, so that another attempt goes on with the same
children instead of acting twice. Invariants: no call of a tool outside the toolbox, no more calls of the model than
`steps`, none that could take more than `tokens`. It must not know which skills there are.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import Any, Final

import msgspec

from protocol.chat import ChatMessage, ChatReply, ChatRequest, ToolCall
from protocol.errors import AgentStuck, AnswerInvalid, AsterismError, BudgetSpent, Conflict, ModelUnavailable
from workers.context import AsyncSkillContext, Handle

from .llm import Llm
from .toolbox import Toolbox, Use

AT_ONCE: Final = 8
"""Calls of tools that one answer of the model may make."""
SAME: Final = 3
"""As often as this the same call is one too many."""
RESULT_CHARACTERS: Final = 12_000
_LITTLE_S: Final = 1.0
_TEXT_CHARACTERS: Final = 8_000
_LAST: Final = "This is your last answer: no tool can be used any more. Say what you found, or why you can't."


class Turn(msgspec.Struct, frozen=True):
    """An answer of the model that asks for tools, and on which worker they run."""

    text: str
    calls: tuple[ToolCall, ...]
    worker: str


class Memory(msgspec.Struct):
    """What an agent's next attempt has to know: everything else follows from it and from the children."""

    turns: list[Turn] = []
    tokens: int = 0


class Answer(msgspec.Struct, frozen=True):
    text: str
    steps: int
    calls: int


class Agent:
    """One attempt of one agent."""

    def __init__(self, ctx: AsyncSkillContext, llm: Llm, box: Toolbox, *, steps: int, tokens: int) -> None:
        self._ctx = ctx
        self._llm = llm
        self._box = box
        self._steps = steps
        self._tokens = tokens
        self._made: Counter[str] = Counter()
        self._calls = 0
        self._memory = Memory()

    @property
    def tokens(self) -> int:
        """What its calls of the model took, those of earlier attempts too."""
        return self._memory.tokens

    async def run(self, messages: tuple[ChatMessage, ...]) -> Answer:
        """Raises: BudgetSpent, AgentStuck, AnswerInvalid; what a call of the model ended with."""
        said = list(messages)
        memory = self._memory = await self._remembered()
        for number, turn in enumerate(memory.turns, 1):
            said += await self._play(number, turn, told=number < len(memory.turns))
        while True:
            step = len(memory.turns) + 1
            reply = await self._ask(step, said)
            if reply.kind == "complete" or not reply.tool_calls:
                if not reply.text.strip():
                    raise AnswerInvalid("the model ended without an answer")
                return Answer(reply.text.strip(), step, self._calls)
            if step >= self._steps:
                raise BudgetSpent(f"no answer after {self._steps} calls of the model", hint="allow more steps")
            turn = Turn(reply.text[:_TEXT_CHARACTERS], _distinct(reply.tool_calls, step), self._ctx.worker)
            memory.turns.append(turn)
            await self._ctx.checkpoint(msgspec.to_builtins(memory))
            said += await self._play(step, turn)

    async def _remembered(self) -> Memory:
        kept = await self._ctx.restored()
        return msgspec.convert(kept, Memory) if kept else Memory()

    async def _ask(self, step: int, said: list[ChatMessage]) -> ChatReply:
        last = step >= self._steps
        asked = (*said, ChatMessage("user", _LAST)) if last else tuple(said)
        request = ChatRequest(asked, tools=self._box.tools, tool_choice="none" if last else "auto")
        before = self._llm.tokens
        try:
            return await self._llm.call(request, self._tokens - self._memory.tokens, step=step)
        except ModelUnavailable as error:
            if self._llm.left_s > _LITTLE_S:
                raise
            raise BudgetSpent(f"its time is over: {error.message}", hint="give the task a longer timeout") from None
        finally:
            self._memory.tokens += self._llm.tokens - before

    async def _play(self, number: int, turn: Turn, *, told: bool = False) -> list[ChatMessage]:
        """Make the calls of one turn, all at once; its messages. `told`: an earlier attempt has told of them."""
        began = time.monotonic()
        uses = [self._allowed(call, place) for place, call in enumerate(turn.calls)]
        children: dict[int, Handle] = {}
        results: dict[int, tuple[bool, Any]] = {}
        for place, use in enumerate(uses):
            if isinstance(use, str):
                results[place] = (False, use)
                continue
            try:
                children[place] = await self._spawn(f"s{number}-{place}", turn.worker, use)
            except Conflict:
                raise  # what stands there is not what is remembered: nothing of it can be believed
            except AsterismError as error:
                results[place] = (False, str(error))
        results |= await self._joined(children)
        messages = [ChatMessage("assistant", turn.text, tuple(turn.calls))]
        for place, call in enumerate(turn.calls):
            ok, value = results[place]
            messages.append(ChatMessage("tool", _rendered(ok, value), answers=call.id))
            if not told:
                await self._tell(number, call, uses[place], ok, time.monotonic() - began)
        return messages

    def _allowed(self, call: ToolCall, place: int) -> Use | str:
        """Raises: AgentStuck."""
        use = self._box.read(call)
        same = digest(use) if isinstance(use, Use) else f"{call.name}({call.arguments})"
        self._made[same] += 1
        if self._made[same] >= SAME:
            raise AgentStuck(
                f"it makes the same call of {call.name[:64]!r} for the {self._made[same]}th time",
                hint="say more about the goal, or give it another skill",
            )
        if place >= AT_ONCE:
            return f"not made: at most {AT_ONCE} calls at once"
        return use

    async def _spawn(self, key: str, worker: str, use: Use) -> Handle:
        self._calls += 1
        body = {"skill": use.skill.name, "key": key, "on": [worker], "args": use.args}
        return Handle(str((await self._ctx._ask_async("spawn", body))["id"]))

    async def _joined(self, children: dict[int, Handle]) -> dict[int, tuple[bool, Any]]:
        """What came of each. One that failed is an answer like any other. Its own time stands still meanwhile."""
        if not children:
            return {}
        began = time.monotonic()
        try:
            return await self._results(children)
        finally:
            self._llm.waited_s += time.monotonic() - began

    async def _results(self, children: dict[int, Handle]) -> dict[int, tuple[bool, Any]]:
        try:
            values = await self._ctx.join(*children.values())
            return {place: (True, value) for place, value in zip(children, values, strict=True)}
        except AsterismError:
            pass  # one of them; by now all have ended
        found: dict[int, tuple[bool, Any]] = {}
        for place, handle in children.items():
            try:
                found[place] = (True, (await self._ctx.join(handle))[0])
            except AsterismError as error:
                found[place] = (False, error.message)
        return found

    async def _tell(self, number: int, call: ToolCall, use: Use | str, ok: bool, seconds: float) -> None:
        name = use.skill.name if isinstance(use, Use) else call.name[:64]
        await self._ctx.emit(
            "tool",
            step=number,
            tool=name,
            args=digest(use) if isinstance(use, Use) else "",
            ok=ok,
            seconds=round(seconds, 3),
        )
        self._ctx.log(f"step {number}: {name} {'ok' if ok else 'failed'} after {seconds:.2f} s")


def _distinct(calls: tuple[ToolCall, ...], step: int) -> tuple[ToolCall, ...]:
    """The calls with ids that tell them apart: not every server gives such."""
    if len({call.id for call in calls} - {""}) == len(calls):
        return calls
    return tuple(msgspec.structs.replace(call, id=f"call{step}x{place}") for place, call in enumerate(calls))


def digest(use: Use) -> str:
    """Names the call without showing it."""
    data = msgspec.json.encode([use.skill.name, use.args], order="deterministic")
    return hashlib.sha256(data).hexdigest()[:16]


def _rendered(ok: bool, value: Any) -> str:
    text = msgspec.json.encode({"ok": ok, "result" if ok else "error": value}).decode()
    if len(text) <= RESULT_CHARACTERS:
        return text
    return f"{text[:RESULT_CHARACTERS]} ... [cut here, {len(text)} characters in all]"
