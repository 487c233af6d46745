"""A skill, a machine, a text of somebody else, as a prompt shows them: short, on one line each, and never breaking out.

Names and descriptions come from workers, so they are data: what is no plain name is quoted as JSON and capped, and
nothing shown here can begin a line of its own. Invariant: pure. It must not know what a prompt says around it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from protocol.skill import SkillSpec

from .view import WorkerView

MOST_SAID: Final = 200
"""Characters of a description."""
MOST_NAME: Final = 64
MOST_SIGNATURE: Final = 1500
_DEEP: Final = 4
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.=:/-]{0,63}")


def quoted(text: str, most: int = MOST_SAID) -> str:
    """Somebody's text as one JSON string without line ends, control and direction marks, cut to `most` characters."""
    plain = "".join(char if unicodedata.category(char)[0] != "C" else " " for char in text[: 4 * most])
    words = " ".join(plain.split())
    return msgspec.json.encode(words if len(words) <= most else words[: most - 3] + "...").decode()


def named(text: str) -> str:
    """A name as it is if it is one, else quoted."""
    return text if _NAME.fullmatch(text) else quoted(text, MOST_NAME)


def signature(skill: SkillSpec) -> str:
    """`text.count(file: file, pattern?: string) -> {lines: integer, ...} pure`, then what it does."""
    params = ", ".join(_members(skill.params, 0))
    words = [skill.effect, *(["local"] if skill.place == "local" else []), *(["asks"] if skill.asks else [])]
    line = f"{named(skill.name)}({params}) -> {type_of(skill.result)} {' '.join(words)}"
    said = [f"  {quoted(skill.doc)}"] if skill.doc else []
    for name, schema in skill.params.get("properties", {}).items():
        if schema.get("description"):
            said.append(f"  {named(name)}: {quoted(schema['description'], MOST_SAID // 2)}")
    return "\n".join([_cut(line), *said])


def type_of(schema: Mapping[str, Any], depth: int = 0) -> str:
    """A schema as a short type."""
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(type_of(one, depth + 1) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " | ".join(_literal(one) for one in schema.get("enum", (schema.get("const"),))[:20])
    kind = schema.get("type")
    if kind == "array":
        return f"[{type_of(schema.get('items', {}), depth + 1)}]"
    if kind == "object" and schema.get("properties") and depth < _DEEP:
        return f"{{{', '.join(_members(schema, depth))}}}"
    return kind if isinstance(kind, str) else "any"


def _members(schema: Mapping[str, Any], depth: int) -> list[str]:
    required = schema.get("required", ())
    return [
        f"{named(name)}{'' if name in required else '?'}: {type_of(one, depth + 1)}"
        for name, one in schema.get("properties", {}).items()
    ]


def _literal(value: object) -> str:
    return quoted(value, MOST_NAME) if isinstance(value, str) else msgspec.json.encode(value).decode()[:MOST_NAME]


def _cut(line: str) -> str:
    return line if len(line) <= MOST_SIGNATURE else line[: MOST_SIGNATURE - 3] + "..."


def machine(worker: WorkerView) -> str:
    """`pi-1 cpu,edge 3 of 4 slots free zone=attic`."""
    load = f"{worker.free} of {worker.slots} slots free" if worker.connected else "away"
    labels = [named(f"{key}={value}") for key, value in list(worker.labels.items())[:8]]
    name = "here" if worker.here else named(worker.name)
    return " ".join([name, ",".join(map(named, worker.devices)) or "cpu", load, *labels])
