"""Built-in skills that steer: flow.echo, flow.list, flow.check, flow.sleep, flow.fail, human.ask.

Those that are inline run on the worker's own event loop, so nothing here may block; flow.fail and human.ask run in a
host.
"""

from __future__ import annotations

import operator
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypedDict

import anyio

from protocol.builtin import BY_NAME
from protocol.errors import SkillFailed, TryAgain, UsageError
from workers.context import AsyncSkillContext, SkillContext
from workers.skill import skill

MAX_CHECKED: Final = 200


class Value(TypedDict):
    value: Any


class Items(TypedDict):
    items: list[Any]


class Checked(TypedDict):
    ok: bool


class Answer(TypedDict):
    answer: Any
    by: str


@skill(spec=BY_NAME["flow.echo"])
def echo(value: Any) -> Value:
    return {"value": value}


@skill(spec=BY_NAME["flow.list"])
def items(items: list[Any]) -> Items:
    return {"items": items}


_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda left, right: left in right,
}


@skill(spec=BY_NAME["flow.check"])
def check(left: Any, op: Literal["==", "!=", "<", "<=", ">", ">=", "in"], right: Any) -> Checked:
    """Fails when it doesn't hold, or when the two can't be compared."""
    try:
        holds = bool(_OPERATORS[op](left, right))
    except TypeError:
        raise UsageError(f"{_brief(left)} and {_brief(right)} can't be compared by {op}") from None
    if not holds:
        raise SkillFailed(f"{_brief(left)} {op} {_brief(right)} does not hold")
    return {"ok": True}


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_CHECKED else text[: MAX_CHECKED - 3] + "..."


@skill(spec=BY_NAME["flow.sleep"])
async def sleep(seconds: float, value: Any = None) -> Value:
    await anyio.sleep(max(seconds, 0.0))
    return {"value": value}


@skill(spec=BY_NAME["flow.fail"])
def fail(
    ctx: SkillContext, times: int = 1, how: Literal["error", "exit", "hang"] = "error", value: Any = None
) -> Value:
    """Fails attempts 1 to `times`: an error that may be tried again, a dead process, or one that never ends."""
    if ctx.number > times:
        return {"value": value}
    if how == "exit":
        os._exit(7)
    while how == "hang":
        signal.pause()  # until the attempt's timeout or a cancel ends this process
    raise TryAgain(f"{ctx.attempt} fails as asked, {times - ctx.number} more to go")


@skill(spec=BY_NAME["human.ask"])
async def ask(ctx: AsyncSkillContext, question: str, choices: Sequence[str] = ()) -> Answer:
    reply = await ctx._ask_async("ask", {"question": question, "choices": list(choices) or None})
    return {"answer": reply["answer"], "by": str(reply.get("by", ""))}
