"""A template made of a request and its plan: values that a person names become parameters, of the plan and the request.

Invariant: what leaves here loads, is asked for by the very request it was made of, and fills to the very plan; a
parameter that can't be a slot of the sentence is only a default. Pure. It must not know folders or servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from protocol.builtin import BUILTINS
from protocol.errors import PlanRefused, UsageError
from protocol.plan import parse_plan, plan_document
from protocol.task import INPUT, FirstOf, Ref, reference_in, references

from .phrase import plain
from .slot import Kind, Slot, slot_of
from .template import SCHEMA, Template, read_template

_TYPES: Final[dict[Kind, str]] = {
    "word": "string",
    "pattern": "string",
    "prose": "text",
    "path": "path",
    "file": "file",
    "glob": "glob",
    "url": "url",
    "choice": "choice",
}
_QUOTES: Final = ('"{}"', "'{}'", "`{}`", "{}")
_SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    skill.name: skill.params.get("properties", {}) for skill in BUILTINS
}
"""Of other skills the name of the argument tells its kind."""


class Draft(msgspec.Struct, frozen=True):
    """The template's document as it is saved, itself read back, and where each parameter stands: (in the plan, in the
    sentence)."""

    document: dict[str, Any]
    template: Template
    places: Mapping[str, tuple[int, bool]]


def draft_template(
    name: str,
    request: str,
    plan: Mapping[str, Any],
    params: Mapping[str, str],
    inputs: Mapping[str, Any],
    doc: str = "",
) -> Draft:
    """A plan document (its `tasks` and `outputs` count) as a template.

    `params`: name -> the value, as typed, that it takes the place of. `inputs`: what the plan was made with; those it
    reads become parameters, too.

    Raises: UsageError for a value that is nowhere, or twice in the request; PlanRefused for what is no template.
    """
    whole = {key: plan[key] for key in ("tasks", "outputs") if plan.get(key)}
    parsed = parse_plan(whole, inputs=tuple(inputs))
    tasks = plan_document(parsed)["tasks"]
    read = {ref.path[0] for task in tasks for ref in _inputs(task)}
    parameters: list[dict[str, Any]] = [
        {"name": one, "type": _type_of(value, None), "default": value} for one, value in inputs.items() if one in read
    ]
    expected = read_template(_encoded(name, [request], parameters, whole)).fill({}, {})
    places: dict[str, tuple[int, bool]] = {one["name"]: (1, False) for one in parameters}
    sentence = plain(request)
    for one, typed in params.items():
        value, found = _cut(tasks, one, typed)
        if one in places or not found:
            why = "is an input already" if one in places else f"{typed!r} is no value in the plan"
            raise UsageError(f"the parameter {one}: {why}", hint="asterism plan shows the arguments of every task")
        slotted = _slotted(sentence, one, typed)
        sentence = slotted or sentence
        slot = found[0]
        choices = {"choices": list(slot.choices)} if slot.choices else {}
        parameters.append({"name": one, "type": _type_of(value, slot), "default": value, **choices})
        places[one] = (len(found), slotted is not None)
    requests = [sentence if any(inside for _, inside in places.values()) else request]
    for kind in ("", "string", "text"):  # a slot that is too narrow for its own value is widened
        for parameter in parameters:
            if kind and isinstance(parameter["default"], str) and "choices" not in parameter:
                parameter["type"] = kind
        encoded = _encoded(name, requests, parameters, {**whole, "tasks": tasks}, doc)
        template = read_template(encoded)
        asked = template.matches(request)
        if asked is not None and template.fill(asked[1], {}) == expected:
            return Draft(msgspec.json.decode(encoded), template, places)
    raise PlanRefused(
        "its own request would not ask for this template",
        hint="in the request, put values of several words in quotes; or name fewer parameters",
    )


def _encoded(
    name: str, requests: list[str], parameters: list[dict[str, Any]], plan: Mapping[str, Any], doc: str = ""
) -> bytes:
    said = {"doc": doc} if doc else {}
    return msgspec.json.encode(
        {"schema": SCHEMA, "name": name, **said, "requests": requests, "parameters": parameters, "plan": plan}
    )


def _cut(tasks: list[dict[str, Any]], name: str, typed: str) -> tuple[Any, list[Slot]]:
    """Put a reference to the parameter in the place of every equal value; the value, and where it was.

    `3` is the number where there is one in the plan, else the text.
    """
    candidates: list[Any] = [typed]
    with suppress(ValueError):
        candidates.insert(0, msgspec.json.decode(typed))
    for value in candidates:
        found: list[Slot] = []
        changed = [_without(task, value, name, found) for task in tasks]
        if found:
            tasks[:] = changed
            return value, found
    return typed, []


def _without(task: dict[str, Any], value: Any, name: str, found: list[Slot]) -> dict[str, Any]:
    args = {}
    for argument, node in task.get("args", {}).items():
        before = len(found)
        slot = slot_of(argument, _SCHEMAS.get(task["skill"], {}).get(argument, {"type": "string"}))
        args[argument] = _replaced(node, value, name, slot, found)
        if args[argument] != node and len(found) > before and node != value:
            found[before:] = [Slot(argument, "word")] * (len(found) - before)  # deeper inside: the schema is another
    return {**task, "args": args} if args else task


def _replaced(node: Any, value: Any, name: str, slot: Slot, found: list[Slot]) -> Any:
    """Parsed plans are at most 64 levels deep, so recursion is safe."""
    if type(node) is type(value) and node == value:
        found.append(slot)
        return {"ref": f"{INPUT}/{name}"}
    if isinstance(node, list):
        return [_replaced(item, value, name, slot, found) for item in node]
    if isinstance(node, dict) and set(node) != {"literal"} and reference_in(node) is None:
        return {key: _replaced(item, value, name, slot, found) for key, item in node.items()}
    return node


def _inputs(task: dict[str, Any]) -> Iterator[Ref]:
    for found in references(task.get("args", {})):
        for ref in found.refs if isinstance(found, FirstOf) else (found,):
            if ref.source == INPUT:
                yield ref


def _slotted(sentence: str, name: str, typed: str) -> str | None:
    """The sentence with a slot where the value stands, quotes and all; None if it doesn't. Raises: UsageError."""
    for quotes in _QUOTES:
        said = re.escape(quotes.format(typed))
        found = list(re.finditer(rf"(?<!\S){said}(?=[,;:]*(?:\s|\Z))", sentence))
        if len(found) > 1:
            raise UsageError(f"{typed!r} stands {len(found)} times in the request", hint="say it once, then save that")
        if found:
            return sentence[: found[0].start()] + f"{{{name}}}" + sentence[found[0].end() :]
    return None


def _type_of(value: Any, slot: Slot | None) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) else "number"
    if isinstance(value, list | dict):
        return "array" if isinstance(value, list) else "object"
    return _TYPES.get(slot.kind, "string") if slot is not None else "string"
