"""A text as the value of an argument: `3` for a number, `[1, 2]` for a list, `"a, b"` for a text with a comma.

The schema decides how a text is read; a quoted text is always a text. What doesn't fit is handed on as text, for the
schema check to refuse with its place. It must not know which skill asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Quoted(str):
    """A text that was written in quotes: never a number, a list or a name."""

    __slots__ = ()


def read_value(text: Any, schema: Mapping[str, Any]) -> Any:
    """The JSON value of an argument as typed. Values that are not text pass through."""
    if not isinstance(text, str):
        return text
    if isinstance(text, Quoted):
        return [str(text)] if _wants_list(schema) else str(text)
    kinds = {branch.get("type") for branch in schema.get("anyOf", (schema,))}
    if "string" in kinds or "file" in kinds:
        if kinds & {"array", "object"} and text[:1] in "[{":
            return _json(text)
        return text
    if None in kinds or kinds & {"integer", "number", "boolean", "object", "null"}:
        return _json(text)
    if "array" in kinds:
        value = _json(text)
        if isinstance(value, list):
            return value
        items = schema.get("items", {})
        return [read_value(text, items)]
    return text


def _wants_list(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array"


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
