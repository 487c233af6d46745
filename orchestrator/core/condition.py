"""`when`, and the default condition: whether a task whose upstreams are final runs, is skipped, or can't be judged."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocol.artifact import ArtifactRef
from protocol.pointer import MISSING, descend
from protocol.task import Condition, Ref

from .binding import Binder, RefMissing
from .graph import Run, Task
from .lifecycle import Settled


class Judgement(msgspec.Struct, frozen=True):
    """`held` None: an artifact must be read first (`wants`: the reference). `error`: WhenType and why."""

    held: bool | None
    why: str = ""
    wants: Ref | None = None
    error: str = ""


HELD: Final = Judgement(True)


def default_condition(run: Run, task: Task, elements: list[int]) -> Judgement:
    """Every referenced task succeeded, every `after` task is final and not failed, one of each first-of succeeded."""
    for ix in (*task.wiring.needs, *task.wiring.ons, *(() if elements else task.wiring.chain)):
        up = run.tasks[ix]
        if not up.succeeded and not (ix in task.wiring.chain and up.spread is not None):
            return Judgement(False, f"{run.name_of(up)} {_word(up)}")
    for ix in elements:
        up = run.tasks[ix]
        if not up.succeeded:
            return Judgement(False, f"{run.name_of(up)} {_word(up)}")
    for ix in task.wiring.after:
        if run.tasks[ix].bad:
            return Judgement(False, f"{run.name_of(run.tasks[ix])} {_word(run.tasks[ix])}")
    for group in task.wiring.firsts:
        if group and not any(run.tasks[ix].succeeded for ix in group):
            return Judgement(False, f"none of {', '.join(run.name_of(run.tasks[ix]) for ix in group)} succeeded")
    return HELD


def judge(run: Run, task: Task, binder: Binder, resolved: dict[str, Any]) -> Judgement:
    """All lines of `when`. `resolved` holds what was read from artifacts, by reference text."""
    for line in task.spec.when:
        found = _line(run, line, binder, resolved)
        if found.held is not True:
            return found
    return HELD


def _line(run: Run, line: Condition, binder: Binder, resolved: dict[str, Any]) -> Judgement:
    ref = line.ref
    wanted = msgspec.json.decode(line.value)
    if line.op == "is":
        up = run.tasks[run.names[ref.source]]
        state = up.state.state if type(up.state) is Settled else ""
        held = bool(state) if wanted == "finished" else state == wanted
        return HELD if held else Judgement(False, f"{ref.source} {_word(up)}, not {wanted}")
    if str(ref) in resolved:
        value = resolved[str(ref)]
    else:
        try:
            found = binder.input(run, ref)
        except RefMissing:
            value = MISSING
        else:
            if isinstance(found.value, ArtifactRef):
                return Judgement(None, wants=ref)
            if found.parts is not None:
                if any(type(part) is ArtifactRef for part in found.parts):
                    return Judgement(False, error=f"{ref} is a list with large elements; name one of them")
                value = descend(binder.rows(found), found.pointer)
            else:
                value = binder.decoded(found.value)
    if line.op == "exists":
        held = (value is not MISSING) == (wanted is not False)
        return HELD if held else Judgement(False, f"{ref} {'is there' if wanted is False else 'is missing'}")
    if value is MISSING:
        return Judgement(False, f"{ref} is missing")
    try:
        held = _compare(value, line.op, wanted)
    except TypeError:
        kinds = f"{type(value).__name__} {line.op} {type(wanted).__name__}"
        return Judgement(False, error=f"{ref}: can't compare {kinds}")
    return (
        HELD if held else Judgement(False, f"{ref} {line.op} {line.value.decode()} did not hold: it is {_short(value)}")
    )


def _compare(value: Any, op: str, wanted: Any) -> bool:
    """Raises: TypeError for unlike types."""
    if op == "in":
        if not isinstance(wanted, list | str | dict):
            raise TypeError
        return value in wanted
    numbers = (int, float)
    alike = type(value) is type(wanted) or (
        isinstance(value, numbers) and isinstance(wanted, numbers) and bool not in (type(value), type(wanted))
    )
    if op in ("==", "!="):
        if not alike and value is not None and wanted is not None:
            raise TypeError
        return bool(value == wanted) == (op == "==")
    if not alike or not isinstance(value, (*numbers, str)) or isinstance(value, bool):
        raise TypeError
    return bool({"<": value < wanted, "<=": value <= wanted, ">": value > wanted, ">=": value >= wanted}[op])


def _word(task: Task) -> str:
    state = task.state
    return state.state if type(state) is Settled else "is not final"


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
