"""Built-in skills that ask the worker's language model: llm.ask, llm.classify, llm.extract.

The question is an instruction to the model; the data is shown to it as data. They run in the host that has the
worker's key and runs nothing else. Must not know: which model it is, tools, other tasks.
"""

from __future__ import annotations

from typing import Any, Final, TypedDict

from protocol.builtin import BY_NAME
from protocol.chat import ChatMessage
from protocol.errors import UsageError
from workers.context import AsyncSkillContext
from workers.file import File
from workers.kind import schema_of
from workers.runner.data import RULE, marked
from workers.runner.llm import Llm
from workers.skill import skill

TYPES: Final = ("string", "integer", "number", "boolean")
MOST_CHOICES: Final = 200
MOST_FIELDS: Final = 100
_SYSTEM: Final = ChatMessage("system", RULE)


class Text(TypedDict):
    text: str


class Choice(TypedDict):
    choice: str


@skill(spec=BY_NAME["llm.ask"])
async def ask(ctx: AsyncSkillContext, prompt: str, data: File | str | list[Any] | dict[str, Any] | None = None) -> Text:
    question = prompt if data is None else f"{prompt}\n\n{marked(data)}"
    return {"text": await Llm(ctx).text((_SYSTEM, ChatMessage("user", question)))}


@skill(spec=BY_NAME["llm.classify"])
async def classify(
    ctx: AsyncSkillContext, question: str, data: File | str | list[Any] | dict[str, Any], choices: list[str]
) -> Choice:
    if not 2 <= len(set(choices)) == len(choices) <= MOST_CHOICES:
        raise UsageError(f"{len(choices)} choices", hint=f"give 2 to {MOST_CHOICES} that differ")
    schema = _record({"choice": {"type": "string", "enum": choices}})
    listed = "\n".join(f"- {choice}" for choice in choices)
    text = f'{question}\n\n{marked(data)}\n\nAnswer as JSON, {{"choice": ...}}, with exactly one of:\n{listed}'
    found = await Llm(ctx).value((_SYSTEM, ChatMessage("user", text)), schema, "choice", plain="choice")
    return {"choice": str(found["choice"])}


@skill(spec=BY_NAME["llm.extract"])
async def extract(
    ctx: AsyncSkillContext, data: File | str | list[Any] | dict[str, Any], fields: dict[str, Any]
) -> dict[str, Any]:
    if not 1 <= len(fields) <= MOST_FIELDS:
        raise UsageError(f"{len(fields)} fields", hint=f'give 1 to {MOST_FIELDS}, like {{"total": "number"}}')
    properties: dict[str, Any] = {}
    required = []
    for name, kind in fields.items():
        properties[name], optional = schema_of("fields", name, kind, TYPES)
        if not optional:
            required.append(name)
    listed = "\n".join(f"- {name}: {_said(kind)}" for name, kind in fields.items())
    text = f"Read these fields out of the data, as one JSON object:\n{listed}\n\n{marked(data)}"
    schema = {**_record(properties), "required": required}
    found = await Llm(ctx).value((_SYSTEM, ChatMessage("user", text)), schema, "fields")
    return {name: found.get(name) for name in fields}


def _record(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _said(kind: object) -> str:
    if isinstance(kind, list):
        return f"one of {', '.join(map(str, kind))}"
    text = str(kind)
    bare = text.removesuffix("?")
    many = f"a list of {bare[:-2]}" if bare.endswith("[]") else bare
    return f"{many}, or null where the data does not say" if text.endswith("?") else many
