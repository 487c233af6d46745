"""A plan as a model writes it whose server enforces the schema: the way back from what the planner reads.

What is left out is null or empty, in the order of the schema; what it can't spell is the text of its JSON; the first of
several references is written with bars. Invariant: pure; what obeys the schema comes back as it is. It is no check: the
schema says itself whether what comes back obeys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .constraint import instance, stray


def written(value: Any, schema: Mapping[str, Any]) -> Any:
    """`value`, a plan or a part of one as a plan file has it, in the form that this strict schema wants."""
    if not stray(value, schema):
        return value
    for branch in schema.get("anyOf", ()):
        found = written(value, branch)
        if not stray(found, branch):
            return found
    names = schema.get("properties", {})
    if [*names] == ["json"]:
        return {"json": msgspec.json.encode(value).decode()}
    if isinstance(value, list):
        return [written(one, schema["items"]) for one in value] if "items" in schema else value
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("ref"), list):
        value = {**value, "ref": "|".join(value["ref"])}
    inner = {
        name: written(value[name], one) if name in value else None if not stray(None, one) else instance(one)
        for name, one in names.items()
    }
    return {**inner, **{name: one for name, one in value.items() if name not in names}}
