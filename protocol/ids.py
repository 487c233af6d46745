"""Names and numbers: inside, ids are integers; people see `r7/scan#2`.

A run is numbered within its journal, a task within its run, an attempt within its task (from 1). A fence is
`(epoch, counter)`: unique and growing within a journal, so a stale holder can always be told from a live one.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

TASK_ID: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_TASK_NAME: Final = r"[a-z][a-z0-9_-]{0,63}(?:\.[a-z0-9_-]+)*"
_PERSON_REF: Final = re.compile(
    rf"(?:(?P<run>r[0-9]{{1,18}}|last))?(?:/(?P<task>{_TASK_NAME})(?:#(?P<attempt>[0-9]{{1,18}}))?(?P<pointer>/.*)?)?",
    re.DOTALL,
)


_Number = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Counter = Annotated[int, msgspec.Meta(ge=0)]


class Fence(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """A fencing token. Order is (epoch, counter); a larger one was issued later."""

    epoch: _Counter
    counter: _Counter


class AttemptId(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """One execution of a task: (run, task index within the run, number from 1)."""

    run: _Number
    task: _Number
    number: _Number


class PersonRef(msgspec.Struct, frozen=True):
    """What a person typed: `r7`, `last`, `r7/scan`, `r7/scan#2`, `r7/scan/files/0`. `run` None means the last one."""

    run: int | None = None
    task: str | None = None
    attempt: int | None = None
    pointer: str = ""


def run_name(run: int) -> str:
    return f"r{run}"


def task_name(run: int, task: str, attempt: int = 0) -> str:
    return f"r{run}/{task}#{attempt}" if attempt else f"r{run}/{task}"


def parse_ref(text: str) -> PersonRef | None:
    """Read what a person typed; None if it is none of the forms of `PersonRef`."""
    match = _PERSON_REF.fullmatch(text.strip())
    if match is None:
        return None
    run = match["run"]
    return PersonRef(
        run=int(run[1:]) if run and run != "last" else None,
        task=match["task"],
        attempt=int(match["attempt"]) if match["attempt"] else None,
        pointer=match["pointer"] or "",
    )
