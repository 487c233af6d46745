"""A skill's schema as a model server may enforce it, and what a model wrote by it back in the skill's own form.

The subset that every server takes: objects with all properties required and no others, optionals as nullable, lists
with items, enum, anyOf; no references, no bounds, ten levels. What it can't spell (any value, an object of any names,
what nests deeper) is written as text: `{"json": "[1, 2]"}`. Invariant: `outside(strict(schema))` is empty for every
schema that a skill may announce. It must not know plans, tools or servers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from .errors import Problem

Schema = Mapping[str, Any]

MAX_LEVELS: Final = 10
MAX_PROPERTIES: Final = 5000
MAX_VALUES: Final = 1000
MAX_CHARACTERS: Final = 120_000
_KEYWORDS: Final = frozenset(
    ("type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "description")
)
_SCALARS: Final = ("string", "integer", "number", "boolean", "null")
_JSON: Final = "json"


def record(**properties: Schema) -> dict[str, Any]:
    """An object of exactly these properties."""
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


TEXT_OF_JSON: Final = record(json={"type": "string"})


def strict(schema: Schema, also: Sequence[Schema] = (), *, level: int = 1) -> dict[str, Any]:
    """The schema in the subset. `also`: what may stand in place of any value inside; `level`: how deep it will be."""
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    inner = {name: _place(child, also, level + 1, optional=name not in required) for name, child in properties.items()}
    return record(**inner)


def _place(schema: Schema, also: Sequence[Schema], level: int, *, optional: bool = False) -> dict[str, Any]:
    """What may be written at one place."""
    branches = [*_branches(schema, also, level), *(also if level < MAX_LEVELS else ())]
    if optional or schema.get("nullable"):
        branches.append({"type": "null"})
    unique = [one for i, one in enumerate(branches) if one not in branches[:i]]
    found = unique[0] if len(unique) == 1 else {"anyOf": unique}
    said = schema.get("description")
    return {**found, "description": said} if said else dict(found)


def _branches(schema: Schema, also: Sequence[Schema], level: int) -> list[Schema]:
    if "anyOf" in schema:
        return [branch for one in schema["anyOf"] for branch in _branches(one, also, level)]
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values and all(isinstance(one, str) for one in values):
        return [{"type": "string", "enum": list(values)}]
    kind = schema.get("type")
    if kind in ("string", "file"):
        return [{"type": "string"}]
    if kind in _SCALARS:
        return [{"type": kind}]
    if level > MAX_LEVELS - 2:
        return [TEXT_OF_JSON]
    if kind == "array":
        return [{"type": "array", "items": _place(schema.get("items", {}), also, level + 1)}]
    if kind == "object":
        closed = "properties" in schema and not isinstance(schema.get("additionalProperties"), Mapping)
        return [strict(schema, also, level=level) if closed else TEXT_OF_JSON]
    return [{"type": "string"}, {"type": "number"}, {"type": "boolean"}, TEXT_OF_JSON]


def loosen(schema: Schema, value: Any) -> Any:
    """What was written by `strict(schema)`, as the schema itself wants it: left out where null stands for that."""
    if isinstance(value, list):
        items = _branch(schema, "array").get("items", {})
        return [loosen(items, one) for one in value]
    if not isinstance(value, dict):
        return value
    own = _branch(schema, "object")
    properties, required = own.get("properties", {}), own.get("required", ())
    if len(value) == 1 and isinstance(value.get(_JSON), str) and _JSON not in properties:
        try:
            return msgspec.json.decode(value[_JSON])
        except ValueError:
            return value
    return {
        name: loosen(properties.get(name, {}), one)
        for name, one in value.items()
        if one is not None or name not in properties or name in required
    }


def _branch(schema: Schema, kind: str) -> Schema:
    """The part of the schema that a value of that type is about."""
    branches = schema.get("anyOf", (schema,))
    return next((one for one in branches if one.get("type") == kind), {})


def outside(schema: Any) -> list[Problem]:
    """Everything that keeps a schema from being taken by every server."""
    problems: list[Problem] = []
    names = values = characters = 0
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        return [Problem("NotStrict", "", "the root is no object")]
    for node, where, level in _nodes(schema):
        problems += [Problem("NotStrict", f"{where}/{said}", "is not in the subset") for said in _foreign(node, level)]
        properties, enum = node.get("properties", {}), node.get("enum", ())
        names += len(properties)
        values += len(enum)
        characters += sum(map(len, (*properties, *map(str, enum))))
    for count, limit, what in (
        (names, MAX_PROPERTIES, "properties"),
        (values, MAX_VALUES, "values"),
        (characters, MAX_CHARACTERS, "characters of names and values"),
    ):
        if count > limit:
            problems.append(Problem("NotStrict", "", f"{count} {what}, at most {limit}"))
    return problems


def _foreign(node: Schema, level: int) -> Iterator[str]:
    """What is wrong with one node, by the keyword."""
    yield from node.keys() - _KEYWORDS
    kind, properties = node.get("type"), node.get("properties", {})
    if "anyOf" in node:
        if not node["anyOf"] or node.keys() - {"anyOf", "description"}:
            yield "anyOf"
    elif kind == "object":
        if node.get("additionalProperties") is not False:
            yield "additionalProperties"
        if list(properties) != node.get("required"):
            yield "required"
    elif kind == "array":
        if not node.get("items"):
            yield "items"
    elif kind not in _SCALARS:
        yield "type"
    if level > MAX_LEVELS:
        yield "depth"


def _nodes(schema: Schema) -> Iterator[tuple[Schema, str, int]]:
    stack: list[tuple[Schema, str, int]] = [(schema, "", 1)]
    while stack:
        node, where, level = stack.pop()
        yield node, where, level
        stack += [(one, f"{where}/{name}", level + 1) for name, one in node.get("properties", {}).items()]
        stack += [(one, f"{where}/anyOf/{i}", level) for i, one in enumerate(node.get("anyOf", ()))]
        if isinstance(node.get("items"), Mapping):
            stack.append((node["items"], f"{where}/items", level + 1))
