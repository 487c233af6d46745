"""Renders what a planner may know of a run under way: the affected sub-graph, what is left, what persons said.

Invariant: nothing that a worker wrote gets in. Tasks that a running task added bear ids of its choice, so they are
counted and not named; results go by type and size, and by those fields that their schema declares as enum, number or
bool, checked against it once more. Pure; it must not know planners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from protocol.artifact import ArtifactRef
from protocol.digest import (
    MOST_BYTES,
    MOST_TASKS,
    MOST_WORDS,
    Digest,
    Kind,
    OutputDigest,
    ResultDigest,
    Scalar,
    TaskDigest,
    known_code,
)
from protocol.document import kind_of
from protocol.pointer import EACH
from protocol.schema import check
from protocol.task import FirstOf, Output

from .graph import Run, Task
from .lifecycle import Settled, shown
from .turn import Turn

MOST_SAID: Final = 1000
_OUTPUTS: Final = 32


class Room(msgspec.Struct, frozen=True):
    """What is left of a re-plan's bounds."""

    rounds: int = 0
    edits: int = 0
    tasks: int = 0


def digest(
    turn: Turn, run: Run, kind: Kind, about: Iterable[int], *, failed: Iterable[Task] = (), held: Iterable[int] = (),
    results: bool = True, outputs: Iterable[Output] | None = None, room: Room | None = None,
    name: Callable[[Task], str] | None = None, feeding: bool = True,
) -> Digest:  # fmt: skip
    """The digest of the tasks `about`, in that order, and of what is `feeding` them. `name`: how the planner calls a
    task; without `results` nothing is told of what came out of them."""
    said = name or run.name_of
    strange = _strange(run)
    claimed, broken, room = frozenset(held), list(failed), room or Room()
    order = list(dict.fromkeys([*(task.ix for task in broken), *about]))
    above = (up for ix in order for up in _upstreams(run.tasks[ix])) if feeding else ()
    named = [task for ix in dict.fromkeys([*order, *above]) if _named(task := run.tasks[ix], strange)]
    names = {task.ix: said(task) for task in named}
    tasks: list[TaskDigest] = []
    room_bytes = MOST_BYTES // 2
    for task in named[:MOST_TASKS]:
        found = _task(turn, run, task, names, claimed, results)
        room_bytes -= len(msgspec.json.encode(found))
        if room_bytes < 0:
            break
        tasks.append(found)
    budget = run.settings.budget
    return Digest(
        kind=kind,
        base=run.version,
        failed=tuple(names[task.ix] for task in broken if task.ix in names)[:MOST_TASKS],
        tasks=tuple(tasks),
        omitted=len(set(order) | {task.ix for task in named}) - len(tasks),
        states=_count(run.roots()),
        outputs=_outputs(run) if outputs is None else tuple(_output(run, one) for one in outputs),
        rounds_left=room.rounds,
        edits_left=room.edits,
        tasks_left=room.tasks,
        attempts_left=max(0, budget.attempts - run.spend.attempts) if budget.attempts else None,
        wall_left_s=_wall_left_s(turn, run),
    )


def trusted(run: Run) -> tuple[str, ...]:
    """What persons said when they rejected something, by whom and of what."""
    strange = _strange(run)
    return tuple(
        f"{by} rejected {run.name_of(task) if _named(task, strange) else 'a task'}: {text[:MOST_SAID]}"
        for task, by, text in ((run.tasks[ix], by, text) for ix, by, text in run.said)
    )


def _wall_left_s(turn: Turn, run: Run) -> float | None:
    limits = [limit for limit in (run.settings.deadline_s, run.settings.budget.wall_s) if limit]
    return round(max(0.0, run.submitted_at + min(limits) - turn.now), 3) if limits else None


def _strange(run: Run) -> set[str]:
    """Ids that a running task has chosen."""
    if not any(version.author.startswith("task:") for version in run.versions):
        return set()
    known: set[str] = set()
    found: set[str] = set()
    for version in run.versions:
        ids = {spec.id for patch in version.patches if not patch.parent for spec in patch.tasks}
        (found if version.author.startswith("task:") else known).update(ids - known - found)
    return found


def _named(task: Task, strange: set[str]) -> bool:
    """Whether its id is a person's or a planner's. Children of a spawn bear keys that a worker chose."""
    return task.parent < 0 and task.spec.id not in strange


def _upstreams(task: Task) -> list[int]:
    return sorted(task.wiring.upstreams() | set(task.wiring.chain))


def _count(tasks: Iterable[Task]) -> dict[str, int]:
    found: dict[str, int] = {}
    for task in tasks:
        word = shown(task.state)
        found[word] = found.get(word, 0) + 1
    return found


def _task(
    turn: Turn, run: Run, task: Task, names: Mapping[int, str], held: frozenset[int], results: bool
) -> TaskDigest:
    state = task.state
    spread = run.children(task)
    return TaskDigest(
        id=names[task.ix],
        skill=task.skill,
        state=shown(state),
        code=known_code(state.code) if isinstance(state, Settled) else "",
        attempts=len(task.attempts),
        held=task.ix in held,
        needs=tuple(names[ix] for ix in _upstreams(task) if ix in names),
        alt=task.spec.alt[task.alt :],
        children=_count(run.tasks[ix] for ix in spread),
        result=_result(turn, task) if results and task.succeeded else None,
    )


def _result(turn: Turn, task: Task) -> ResultDigest:
    if task.spread is not None:
        return ResultDigest("list", items=task.spread.items)
    contract = turn.contract(task)
    schema = contract.result if contract is not None else {}
    if task.value is None or isinstance(task.value, ArtifactRef):
        size = task.value.size if task.value is not None else 0
        return ResultDigest(str(schema.get("type", "any")), size)
    value = turn.binder.decoded(task.value)
    return ResultDigest(
        json_type(value), len(task.value), len(value) if isinstance(value, list) else -1, declared(schema, value)
    )


def json_type(value: object) -> str:
    """The JSON name of its type."""
    return kind_of(value).rpartition(" ")[2]


def declared(schema: Mapping[str, Any], value: object) -> dict[str, Scalar]:
    """The fields of a result that its schema declares as enum, number or bool, as far as they are what it says."""
    properties = schema.get("properties", {})
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return {}
    return {name: value[name] for name, field in properties.items() if name in value and may_show(field, value[name])}


def may_show(field: Mapping[str, Any], value: object) -> bool:
    """Whether a value may stand in a prompt by what its schema says: a number, a bool, a word of a closed list."""
    if not isinstance(value, bool | int | float | str) or check(dict(field), value, ""):
        return False
    if "enum" in field or "const" in field:
        return len(str(value)) <= MOST_WORDS
    return field.get("type") in ("integer", "number", "boolean")


def schema_at(schema: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """What a skill's result schema says of the value at a pointer; {} if it says nothing."""
    for at, part in enumerate(path):
        fields = schema.get("properties", {})
        if part == EACH and part not in fields:
            return {"type": "array", "items": schema_at(schema.get("items", {}), path[at + 1 :])}
        schema = fields[part] if part in fields else schema.get("items", {}) if part.isdecimal() else {}
    return dict(schema)


def _outputs(run: Run) -> tuple[OutputDigest, ...]:
    """What is wanted, unless a running task has said so."""
    for version in reversed(run.versions):
        if any(patch.outputs is not None and not patch.parent for patch in version.patches):
            wanted = () if version.author.startswith("task:") else run.outputs
            return tuple(_output(run, one) for one in wanted[:_OUTPUTS])
    return ()


def _output(run: Run, output: Output) -> OutputDigest:
    refs = output.ref.refs if isinstance(output.ref, FirstOf) else (output.ref,)
    states = [shown(run.tasks[run.names[one.source]].state) for one in refs if one.source in run.names]
    return OutputDigest(output.name, str(output.ref), "succeeded" if "succeeded" in states else (states or [""])[-1])
