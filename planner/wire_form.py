"""The form in which a model writes a plan: a strict schema of it, and a task in that form read back.

It is graph.md's document with six keys a task, in an order that is quick to dispatch, and one branch per skill, so that
a server that enforces it leaves nothing to guess. Three things differ from a plan file: what is left out is null, what
the schema can't spell is `{"json": TEXT}`, and the first of several references is written `{"ref": "a/x|b/x"}`.
Invariant: pure; `protocol.strict_schema.outside` finds nothing in it. It must not know requests or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from protocol.schema import Schema
from protocol.skill import SkillSpec
from protocol.strict_schema import loosen, record, strict
from protocol.task_form import OPS, STATES

from .catalog import Catalog

EDITS: Final = ("retry", "cancel", "remove", "finish", "give_up")
ARGS_LEVEL: Final = 4
"""How deep the arguments of a task are in the document."""

_TEXT: Final[Schema] = {"type": "string"}
_MAYBE: Final[Schema] = {"anyOf": [_TEXT, {"type": "null"}]}
REFERENCE: Final[Schema] = record(ref=_TEXT)
_VALUE: Final[Schema] = {
    "anyOf": [_TEXT, *({"type": one} for one in ("number", "boolean", "null")), {"type": "array", "items": _TEXT}]
}
_CONDITION: Final[Schema] = {
    "anyOf": [
        record(ref=_TEXT, op={"type": "string", "enum": list(OPS)}, value=_VALUE),
        record(ref=_TEXT, **{"is": {"type": "string", "enum": list(STATES)}}),
    ]
}
_EDIT: Final[Schema] = record(op={"type": "string", "enum": list(EDITS)}, id=_MAYBE, alt=_MAYBE, note=_MAYBE)


def plan_schema(skills: Sequence[SkillSpec], *, again: bool = False) -> dict[str, Any]:
    """The schema of a document that uses these skills. `again`: of a re-plan, which edits a graph."""
    branches = [_task(skill) for skill in skills]
    tasks = {"type": "array", "items": {"anyOf": branches} if len(branches) > 1 else branches[0]}
    outputs = {"type": "array", "items": record(name=_TEXT, ref=_TEXT)}
    if not again:
        return record(tasks=tasks, outputs=outputs)
    edits = {"type": "array", "items": _EDIT}
    return record(base={"type": "integer"}, why=_TEXT, edits=edits, tasks=tasks, outputs=outputs)


def _task(skill: SkillSpec) -> dict[str, Any]:
    return record(
        id=_TEXT,
        on={"type": "array", "items": _TEXT},
        when={"type": "array", "items": _CONDITION},
        skill={"type": "string", "enum": [skill.name]},
        args=strict(_bare(skill.params), (REFERENCE,), level=ARGS_LEVEL),
        approve={"type": "boolean"},
    )


def _bare(schema: Any) -> Any:
    """Without what is said about it: that is a worker's text, and the prompt shows it as such."""
    if isinstance(schema, dict):
        return {key: _bare(one) for key, one in schema.items() if key != "description" or not isinstance(one, str)}
    return [_bare(one) for one in schema] if isinstance(schema, list) else schema


def read_task(value: Any, catalog: Catalog) -> Any:
    """A task as a plan file has it. Whatever it is, it comes back; the parser judges it."""
    if not isinstance(value, dict):
        return value
    found = {key: one for key, one in value.items() if one is not None}
    skill = catalog.by_name.get(str(found.get("skill")))
    if skill is not None and isinstance(found.get("args"), dict):
        found["args"] = loosen(skill.params, found["args"])
    if "args" in found:
        found["args"] = _references(found["args"])
    return found


def read_output(value: Any) -> Any:
    """An output as a plan file has it."""
    return {**value, "ref": _several(value["ref"])} if isinstance(value, dict) and "ref" in value else value


def _references(node: Any) -> Any:
    if isinstance(node, dict):
        if len(node) == 1 and "ref" in node:
            return {"ref": _several(node["ref"])}
        if len(node) == 1 and "literal" in node:
            return node
        return {key: _references(one) for key, one in node.items()}
    return [_references(one) for one in node] if isinstance(node, list) else node


def _several(ref: Any) -> Any:
    return [part.strip() for part in ref.split("|")] if isinstance(ref, str) and "|" in ref else ref
