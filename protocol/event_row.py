"""Events and log lines as JSON rows: what `events` and `logs` stream, one object a line (part of protocol/report).

Total over every durable fact: a new event shows up with its fields, unless it hides them here. It must not know the
core's events by name; what they hold in common (run, task, number, why) is enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import msgspec

from .artifact import ArtifactRef
from .ids import Fence, run_name
from .outcome import Failure, Stopped, Success
from .patch import Patch

IDS_SHOWN: Final = 200
"""How many task ids an event of an accepted patch names; `tasks` counts all of them."""


class LogRow(msgspec.Struct, frozen=True):
    """One line of `logs -o jsonl`; `n` numbers the lines of a run, a watch resumes after it."""

    n: int
    at: float
    run: str
    task: str
    attempt: int
    stream: str
    text: str


_HIDDEN: Final = frozenset(
    {"run", "task", "number", "at", "pin", "secret_hash", "reused", "outcome", "patch", "avoid", "graph", "failed"}
)
_SNAKE: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def event_kind(event: msgspec.Struct) -> str:
    """`TaskSettled` -> `task_settled`; an event that a skill emitted goes by the skill's own word."""
    name = type(event).__name__
    return str(getattr(event, "kind", "emitted")) if name == "Emitted" else kind_named(name)


@cache
def kind_named(name: str) -> str:
    """The kind of events of the type called so."""
    return _SNAKE.sub("_", name).lower()


def asked(detail: str) -> tuple[str, tuple[Any, ...]]:
    """What a waiting task asks: a person's question with the choices, if it gave any, or a planner's goal."""
    try:
        found = msgspec.json.decode(detail)
    except msgspec.MsgspecError:
        return detail, ()
    if not isinstance(found, dict) or not {"question", "goal"} & set(found):
        return detail, ()
    return str(found.get("question", found.get("goal"))), tuple(found.get("choices") or ())


def event_report(
    event: msgspec.Struct, *, seq: int, at: float, task_of: Callable[[int], str], worker_of: Callable[[int], str]
) -> dict[str, Any]:
    """One line of `events -o jsonl`: `{"seq", "at", "run", "task"?, "attempt"?, "kind", "why"?, ...}`.

    `event` is a durable fact of the core; `task_of` names a task of its run by index (never asked for -1, the whole
    run), `worker_of` a worker by its id. `at` is Unix time. Credentials and pins stay inside, an outcome's value too:
    `get` brings it.
    """
    run, task, number = (getattr(event, name, None) for name in ("run", "task", "number"))
    row: dict[str, Any] = {
        "seq": seq,
        "at": round(at, 6),
        "run": run_name(run) if isinstance(run, int) and run else None,
    }
    if isinstance(task, int) and task >= 0:
        row["task"] = task_of(task)
    if isinstance(number, int) and number:
        row["attempt"] = number
    row["kind"] = event_kind(event)
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name in _HIDDEN or (name == "kind" and type(event).__name__ == "Emitted"):
            continue
        if name == "value" and type(event).__name__ == "SubPlanFinished":
            continue
        if name == "kind":  # of a planner call: the row's own kind is the event's
            name = "purpose"
        if name == "tasks" and isinstance(value, tuple):
            value = [task_of(index) for index in value]
        elif name == "worker" and isinstance(value, int):
            value = worker_of(value)
        elif name == "workers":
            value = [worker_of(worker) for worker in value]
        if value != "" or name == "state":
            row[name] = _plain(value)
    if row["kind"] == "task_waited" and row.get("what") in ("ask", "propose", "plan"):
        row["detail"], choices = asked(str(row.get("detail", "")))
        row |= {"choices": list(choices)} if choices else {}
    outcome = getattr(event, "outcome", None)
    if isinstance(outcome, Success | Failure | Stopped):
        row.update(_outcome(outcome))
    elif outcome is not None:
        row["outcome"] = outcome
    patch = getattr(event, "patch", None)
    if isinstance(patch, Patch):
        row.update(_patch(patch))
    return row


def _outcome(outcome: Success | Failure | Stopped) -> dict[str, Any]:
    if isinstance(outcome, Failure):
        return {
            "outcome": "failed",
            "code": outcome.code,
            "message": outcome.message,
            "class": outcome.klass,
            "hint": outcome.hint,
        }
    if isinstance(outcome, Stopped):
        return {"outcome": "stopped", "why": outcome.why}
    return {"outcome": "succeeded"}


def _patch(patch: Patch) -> dict[str, Any]:
    row: dict[str, Any] = {"author": patch.author, "tasks": len(patch.tasks)}
    row["ids"] = [task.id for task in patch.tasks[:IDS_SHOWN]]
    if patch.why:
        row["why"] = patch.why
    if patch.edits:
        row["edits"] = [msgspec.to_builtins(edit) for edit in patch.edits]
    return row


def _plain(value: Any) -> Any:
    """JSON builtins of an event field: bytes hold JSON, a fence is `epoch.counter`, an artifact an object."""
    if isinstance(value, bytes):
        return msgspec.json.decode(value) if value else None
    if isinstance(value, Fence):
        return f"{value.epoch}.{value.counter}"
    if isinstance(value, ArtifactRef):
        return msgspec.structs.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return value
