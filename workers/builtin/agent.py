"""The built-in skill agent.run: a model works towards a goal with some skills of its own worker.

Must not know: how a tool is run, which model it is.
"""

from __future__ import annotations

from typing import Any, Final, TypedDict

from protocol.builtin import BY_NAME
from protocol.chat import ChatMessage
from protocol.errors import ModelUnusable, UsageError
from workers.context import AsyncSkillContext
from workers.file import File
from workers.runner.agent import Agent
from workers.runner.data import RULE, marked
from workers.runner.llm import Llm
from workers.runner.toolbox import Toolbox
from workers.skill import skill

_SYSTEM: Final = (
    f"You work towards a goal with the tools that are offered, and no others. {RULE} Where a tool fails, read why. "
    "Once the goal is reached, or can't be, answer in plain text without calling a tool."
)


class Worked(TypedDict):
    text: str
    steps: int
    calls: int
    tokens: int


@skill(spec=BY_NAME["agent.run"])
async def run(
    ctx: AsyncSkillContext,
    goal: str,
    skills: list[str],
    data: File | str | list[Any] | dict[str, Any] | None = None,
    steps: int = 12,
    tokens: int = 200_000,
) -> Worked:
    if ctx.model is None:
        raise ModelUnusable("this host has no access to a model")
    if steps < 1 or tokens < 1:
        raise UsageError("an agent needs at least one step and some tokens")
    if ctx.elements > 1:
        raise UsageError("an agent works on one element at a time", hint="set the map's chunk to 1")
    box = Toolbox(skills, ctx.model.known, ctx.worker)
    agent = Agent(ctx, Llm(ctx), box, steps=steps, tokens=tokens)
    question = goal if data is None else f"{goal}\n\n{marked(data)}"
    roots = ", ".join(root.path for root in ctx.roots.given)
    where = f" Files lie below {roots}; a relative path starts at the first." if roots else ""
    answer = await agent.run((ChatMessage("system", _SYSTEM + where), ChatMessage("user", question)))
    return {"text": answer.text, "steps": answer.steps, "calls": answer.calls, "tokens": agent.tokens}
