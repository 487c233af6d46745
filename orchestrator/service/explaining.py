"""`explain` as a report: the core's own account of a task, with times as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocol.ids import task_name
from protocol.prediction_row import Predicted
from protocol.report import AttemptRow, Explanation, WorkerVerdict

from ..core.explanation import ALIKE
from ..core.graph import Attempt, Run, Task
from ..core.state import State
from .lookup import worker_name
from .query import started_at

_WORDS = {"": "running", "stopped": "cancelled"}


def explanation(
    state: State, run: Run, task: Task, found: dict[str, Any], predicted: Mapping[int, Predicted]
) -> Explanation:
    """`found` is what `Machine.explain` says, `predicted` what was said of each attempt, as far as it is kept."""
    return Explanation(
        run=run.name,
        task=run.name_of(task),
        state=found["state"],
        why=found["why"],
        waits_for=tuple(found["waits_for"]),
        workers=tuple(_verdict(row) for row in found["workers"]),
        attempts=tuple(_attempt(state, run, task, attempt, predicted.get(attempt.number)) for attempt in task.attempts),
        history=(*_history(state, run, task), *filter(None, (found["budget"],))),
    )


def _verdict(row: dict[str, str]) -> WorkerVerdict:
    return WorkerVerdict(
        worker=row["worker"],
        eligible=row["verdict"] == "eligible",
        reasons=(row["why"],) if row["why"] else (),
    )


def _attempt(state: State, run: Run, task: Task, attempt: Attempt, predicted: Predicted | None) -> AttemptRow:
    error = None
    if attempt.ended in ("failed", "lost"):
        error = {
            "code": attempt.code,
            "ref": task_name(run.ix, run.name_of(task), attempt.number),
            "message": attempt.message,
            "hint": "",
        }
    return AttemptRow(
        number=attempt.number,
        worker=worker_name(state, run, attempt.worker) or "",
        device=attempt.device,
        state=_WORDS.get(attempt.ended, attempt.ended),
        why=attempt.why or ALIKE,
        hedge=attempt.hedge,
        started_s=started_at(attempt) - run.submitted_at,
        finished_s=attempt.ended_at - run.submitted_at if attempt.ended else None,
        error=error,
        predicted=predicted,
    )


def _history(state: State, run: Run, task: Task) -> list[str]:
    lines: list[str] = []
    for attempt in task.attempts:
        worker = worker_name(state, run, attempt.worker)
        lines.append(f"{attempt.at - run.submitted_at:.3f} s: #{attempt.number} to {worker}: {attempt.why or ALIKE}")
        if attempt.ended:
            said = f": {attempt.code} {attempt.message}".rstrip() if attempt.code or attempt.message else ""
            word = _WORDS.get(attempt.ended, attempt.ended)
            lines.append(f"{attempt.ended_at - run.submitted_at:.3f} s: #{attempt.number} {word}{said}")
    return lines
