"""Asking the worker's model from inside a skill: each call paid for, told to watchers, and ended in time.

A fault becomes an error that says whether another attempt may help; an answer that shall fit a schema is checked here,
whatever its server promises, and sent back once with what is wrong. It must not know tasks, tools or settings.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from protocol.chat import BYTES_PER_TOKEN, ChatMessage, ChatReply, ChatRequest, tokens_in
from protocol.errors import (
    AnswerInvalid,
    AsterismError,
    BudgetSpent,
    ContextExceeded,
    ModelRefused,
    ModelUnavailable,
    ModelUnusable,
    Problem,
    WireError,
)
from protocol.json_bytes import read_json
from protocol.schema import check
from protocol.strict_schema import loosen, strict
from workers.context import SkillContext

_EVERY_S: Final = 1.0
_TAIL: Final = 200
_MARGIN_S: Final = 1.0
_SHOWN: Final = 2000
_LEAST_TOKENS: Final = 64
_FENCED: Final = re.compile(r"```[a-z]*\s*\n(.*?)```", re.DOTALL)
_PERMANENT: Final[Mapping[str, type[AsterismError]]] = {
    "refused": ModelRefused,
    "filtered": ModelRefused,
    "length": AnswerInvalid,
    "unauthorized": ModelUnusable,
    "no_model": ModelUnusable,
    "bad_request": ModelUnusable,
}
_TOO_LONG: Final = re.compile(r"context.{0,20}(length|window|size)|maximum.{0,20}tokens|too (long|many tokens)", re.I)

Read = Callable[[Any], Sequence[Problem]]


class Llm:
    """The model for one attempt. `tokens` counts what its calls took so far."""

    def __init__(self, ctx: SkillContext) -> None:
        model = ctx.model
        if model is None:
            raise ModelUnusable("this host has no access to a model")
        self._ctx = ctx
        self._chat = model.open()
        self._settings = model.settings
        self._price = 0.0
        self.tokens = 0
        self.waited_s = 0.0
        """How long the attempt waited for others; its time stood still meanwhile."""

    @property
    def left_s(self) -> float:
        return self._ctx.deadline_s + self.waited_s - _MARGIN_S

    async def call(self, request: ChatRequest, tokens_left: int | None = None, **about: object) -> ChatReply:
        """One call that ended by itself; `about` goes with its progress. Raises: what its end means otherwise;
        BudgetSpent before a call that could exceed `tokens_left`, or what the run lends this attempt."""
        left_s = self.left_s
        if left_s <= 0:
            raise BudgetSpent("no time is left for another call of the model", hint="give the task a longer timeout")
        needed = tokens_in(request)
        room = self._room(needed, tokens_left)
        told = _Told(self._ctx, about)
        bounded = msgspec.structs.replace(request, deadline_s=left_s, max_tokens=room)
        try:
            reply = await self._chat.complete(bounded, told.hear)
        except BaseException:  # cancelled: what came until then is paid for all the same
            settings, heard = self._settings, -(-told.heard // BYTES_PER_TOKEN)
            self._pay(needed, heard, (needed * settings.price_in + heard * settings.price_out) / 1e6)
            raise
        self._pay(reply.tokens_in, reply.tokens_out, reply.price)
        if not reply.whole:
            raise fault(reply)
        return reply

    def _pay(self, tokens_in: int, tokens_out: int, price: float) -> None:
        self.tokens += tokens_in + tokens_out
        self._price += price
        self._ctx.spent(tokens_in=tokens_in, tokens_out=tokens_out, price=price)

    def _room(self, needed: int, tokens_left: int | None) -> int:
        """How many tokens an answer may have after a request of `needed`. Raises: BudgetSpent for too few."""
        lent_tokens, lent_price = self._ctx.lent
        left = [float("inf")]
        if tokens_left is not None:
            left.append(tokens_left - needed)
        if lent_tokens:
            left.append(lent_tokens - self.tokens - needed)
        if lent_price and self._settings.price_out:
            rest = lent_price - self._price - needed * self._settings.price_in / 1e6
            left.append(rest / self._settings.price_out * 1e6)
        if min(left) < _LEAST_TOKENS:
            raise BudgetSpent(
                f"another call of the model takes {needed + _LEAST_TOKENS} tokens at least, which is more than is left",
                hint="allow more tokens or a higher price, or give it less to read",
            )
        return int(min(*left, self._settings.max_tokens))

    async def text(self, messages: Sequence[ChatMessage]) -> str:
        """Raises: AnswerInvalid for an answer without text; as `call`."""
        reply = await self.call(ChatRequest(tuple(messages)))
        if not reply.text.strip():
            raise AnswerInvalid("the model gave no text")
        return reply.text.strip()

    async def value(
        self, messages: Sequence[ChatMessage], schema: Mapping[str, Any], name: str, plain: str = ""
    ) -> dict[str, Any]:
        """An object that fits `schema`. `plain`: the one property that a bare text may stand for.

        Raises: AnswerInvalid, with what is wrong, after one repair; as `call`.
        """
        said = list(messages)
        problems: Sequence[Problem] = ()
        for _ in range(2):
            request = ChatRequest(tuple(said), strict(schema), name, temperature=0.0)
            text = (await self.call(request)).text
            found = document(text)
            if not isinstance(found, dict) and plain:
                found = {plain: text.strip().strip("\"'`.")}
            value = loosen(schema, found)
            problems = check(schema, value)
            if not problems and isinstance(value, dict):
                return value
            wrong = "\n".join(f"- {problem}" for problem in problems[:20])
            said += [
                ChatMessage("assistant", text[:_SHOWN] or "(nothing)"),
                ChatMessage("user", f"This does not fit:\n{wrong}\nAnswer again, with the JSON object alone."),
            ]
        raise AnswerInvalid("the model's answer does not fit, also after it was told why", problems=problems[:20])


class _Told:
    """Tells watchers the end of what was written so far, at most once a second."""

    def __init__(self, ctx: SkillContext, about: Mapping[str, object]) -> None:
        self._ctx = ctx
        self._about = about
        self.heard = 0
        """Characters so far."""
        self._tail = ""
        self._at = float("-inf")

    async def hear(self, text: str) -> None:
        self.heard += len(text)
        self._tail = (self._tail + text)[-_TAIL:]
        if time.monotonic() - self._at >= _EVERY_S:
            self._at = time.monotonic()
            self._ctx.progress({**self._about, "text": self._tail})


def fault(reply: ChatReply) -> AsterismError:
    """What a reply that is not whole means for the attempt."""
    kind, message, hint = reply.kind, reply.message or reply.kind, reply.hint
    if kind == "bad_request" and _TOO_LONG.search(message):
        return ContextExceeded(f"the model's server takes less at once: {message}", hint="give it less data")
    if kind == "length":
        return AnswerInvalid(
            f"the answer was cut off after {reply.tokens_out} tokens",
            hint="raise llm.max_tokens on the worker, or ask for less",
        )
    found = _PERMANENT.get(kind, ModelUnavailable)
    wait = f"; it says to wait {reply.retry_after_s:g} s" if reply.retry_after_s else ""
    fix = f"; {hint}" if hint else ""  # a task's error keeps its message alone
    return found(f"the model: {message}{wait}{fix}", hint=hint)


def document(text: str) -> Any:
    """The JSON object in a text, with or without fences or words around it; None if there is none."""
    fenced = _FENCED.search(text)
    for candidate in (text, fenced[1] if fenced else "", text[text.find("{") : text.rfind("}") + 1]):
        try:
            found = read_json(candidate.strip().encode())
        except (WireError, UnicodeEncodeError):
            continue
        if isinstance(found, dict):
            return found
    return None
