"""The words by which a table names types: `integer`, `file[]`, `string?`, or a list of allowed texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from protocol.errors import UsageError


def schema_of(where: str, name: str, kind: object, types: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """(schema, whether it may be missing) of what is called `name`. Raises: UsageError naming the types there are."""
    if isinstance(kind, list) and kind and all(isinstance(one, str) for one in kind):
        return {"type": "string", "enum": kind}, False
    text = str(kind)
    bare = text.removesuffix("?").removesuffix("[]")
    if bare not in types:
        raise UsageError(f"{where}: {name} has no type {kind!r:.80}", hint=f"one of {', '.join(types)}, or TYPE[]")
    schema: dict[str, Any] = {"type": bare}
    if text.removesuffix("?").endswith("[]"):
        schema = {"type": "array", "items": schema}
    return schema, text.endswith("?")
