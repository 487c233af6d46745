"""JSON Schema as a model server sees it: what OpenAI's strict mode refuses, what obeys a schema, a value that does.

The limits are those of OpenAI's guide to structured outputs of 2026. Invariant: pure; a schema of any shape gets an
answer. It is no validator for the rest of the program: protocol/schema is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

_TAKEN: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref", "$defs"}
    | {"definitions", "description", "title", "$schema", "pattern", "format", "multipleOf", "minimum", "maximum"}
    | {"exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"}
)
_PROPERTIES, _LEVELS, _VALUES, _CHARACTERS = 5000, 10, 1000, 120_000
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


MALFORMED: Final = (TypeError, ValueError, AttributeError, KeyError, RecursionError)
"""What comes of reading a schema that is none, or that leads to itself before it takes anything in."""


def strict_refusal(schema: Any) -> str:
    """Why OpenAI's strict mode doesn't take this schema, in its words; "" if it does."""
    try:
        return _strict_refusal(schema)
    except MALFORMED:
        return "schema is not a valid JSON Schema."


def _strict_refusal(schema: Any) -> str:
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return "schema must be a JSON Schema of 'type: \"object\"'"
    if "anyOf" in schema:
        return "schema must have type 'object' and not have 'anyOf' at the top level."
    names = values = characters = 0
    for where, level, node in _nodes(schema, (), 1):
        if not isinstance(node, dict):
            return f"In context={where}, schema must be an object."
        for keyword in node.keys() - _TAKEN:
            return f"In context={where}, '{keyword}' is not permitted."
        if not node.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
            return f"In context={where}, schema must have a 'type' key."
        if level > _LEVELS:
            return f"{level} levels of nesting exceeds limit of {_LEVELS}."
        properties = node.get("properties", {})
        if "object" in _kinds(node):
            if node.get("additionalProperties") is not False:
                return f"In context={where}, 'additionalProperties' is required to be supplied and to be false."
            missing = sorted(properties.keys() ^ set(node.get("required", ())))
            if missing:
                return (
                    f"In context={where}, 'required' is required to be supplied and to be an array including every "
                    f"key in properties. Missing '{missing[0]}'."
                )
        if "array" in _kinds(node) and "items" not in node:
            return f"In context={where}, array schema missing items."
        words = [*properties, *node.get("$defs", {}), *map(str, node.get("enum", ())), str(node.get("const", ""))]
        names, values = names + len(properties), values + len(node.get("enum", ()))
        characters += sum(map(len, words))
    if names > _PROPERTIES or values > _VALUES or characters > _CHARACTERS:
        return f"{names} properties, {values} enum values, {characters} characters of names: over the limit."
    return ""


def _kinds(node: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = node.get("type", ())
    return (kinds,) if isinstance(kinds, str) else tuple(kinds)


def _nodes(node: Any, where: tuple[str, ...], level: int) -> Iterator[tuple[tuple[str, ...], int, Any]]:
    """Every schema in a schema, itself first; a level is an object or array inside another."""
    yield where, level, node
    if not isinstance(node, dict):
        return
    for keyword in ("properties", "$defs", "definitions"):
        for name, inner in dict(node.get(keyword) or {}).items():
            yield from _nodes(inner, (*where, keyword, name), level + (keyword == "properties"))
    if "items" in node:
        yield from _nodes(node["items"], (*where, "items"), level + 1)
    for number, inner in enumerate(node.get("anyOf", ())):
        yield from _nodes(inner, (*where, "anyOf", str(number)), level)


def stray(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, where: str = "") -> str:
    """Where and why `value` doesn't obey the schema; "" if it does. Lengths and ranges are not looked at."""
    root = schema if root is None else root
    if "$ref" in schema:
        return stray(value, _target(root, schema["$ref"]), root, where)
    if "anyOf" in schema:
        reasons = [stray(value, branch, root, where) for branch in schema["anyOf"]]
        return "" if "" in reasons else max(reasons, key=lambda one: one.count("/"), default=f"{where}: no branch")
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return f"{where or '/'}: {value!r:.40} is none of the values"
    kinds = _kinds(schema)
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{where or '/'}: {value!r:.40} is no {' or '.join(kinds)}"
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        missing = set(schema.get("required", ())) - value.keys()
        extra = value.keys() - properties.keys() if schema.get("additionalProperties") is False else ()
        if missing or extra:
            return f"{where or '/'}: {', '.join(sorted({*missing, *extra}))} is missing or too much"
        found = (stray(value[name], properties[name], root, f"{where}/{name}") for name in value if name in properties)
        return next(filter(None, found), "")
    if isinstance(value, list) and "items" in schema:
        found = (stray(one, schema["items"], root, f"{where}/{number}") for number, one in enumerate(value))
        return next(filter(None, found), "")
    return ""


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES.get(kind, ())) or (
        kind == "integer" and isinstance(value, float) and value % 1 == 0
    )


def _target(root: Mapping[str, Any], ref: str) -> Mapping[str, Any]:
    found: Any = root
    for part in ref.removeprefix("#").split("/")[1:]:
        found = found.get(part, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def instance(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """The smallest value that obeys a schema, as a model says that has nothing to say but must."""
    root = schema if root is None else root
    if "$ref" in schema:
        return instance(_target(root, schema["$ref"]), root)
    if schema.get("anyOf"):
        return instance(schema["anyOf"][0], root)
    if "const" in schema or schema.get("enum"):
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = next(iter(_kinds(schema)), "null")
    if kind == "object":
        return {name: instance(inner, root) for name, inner in schema.get("properties", {}).items()}
    return {"array": [], "string": "", "integer": 0, "number": 0, "boolean": False}.get(kind)


def obeys(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether a text is one JSON document that obeys the schema."""
    try:
        return not stray(msgspec.json.decode(text), schema)
    except msgspec.DecodeError:
        return False
