"""Finding what a request names: a run by number (0 is the last one), a task by the name people use.

Reads the state only; whoever asks gets NotFound with the names that are near.
"""

from __future__ import annotations

import difflib

from protocol.errors import NotFound
from protocol.ids import run_name, task_name

from ..core.graph import Run, Task
from ..core.lifecycle import Closed, Paused, shown
from ..core.state import State, WorkerRecord


def find_run(state: State, number: int) -> Run:
    """Raises: NotFound."""
    if number == 0:
        if not state.runs:
            raise NotFound("there is no run yet", hint='start one: asterism run "REQUEST"')
        return state.runs[max(state.runs)]
    run = state.runs.get(number)
    if run is None:
        gone = number <= state.runs_made
        why = "was removed" if gone else "does not exist"
        raise NotFound(f"{run_name(number)} {why}", hint="asterism ps lists the runs", ref=run_name(number))
    return run


def find_task(run: Run, name: str) -> Task:
    """`scan`, `count.3`. Raises: NotFound with the nearest names."""
    task = run.find(name)
    if task is None:
        near = difflib.get_close_matches(name, run.names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"asterism tasks {run.name} lists them"
        raise NotFound(f"{run.name} has no task {name}", hint=hint, ref=task_name(run.ix, name))
    return task


def find_worker(state: State, name: str) -> WorkerRecord:
    """The newest identity of that name that is not gone. Raises: NotFound."""
    for record in reversed(state.workers.values()):
        if record.name == name and not record.gone:
            return record
    raise NotFound(f"there is no worker {name}", hint="asterism workers lists them")


def run_state(run: Run) -> str:
    """The word people see: graph.md's run states, and `planning` while nothing is accepted yet."""
    if isinstance(run.state, Closed):
        return run.state.state
    if isinstance(run.state, Paused):
        return "paused"
    return "open" if run.tasks or run.planned else "planning"


def is_open(run: Run) -> bool:
    return not isinstance(run.state, Closed)


def task_state(task: Task) -> str:
    return shown(task.state)


def worker_name(state: State, run: Run | None, worker: int) -> str | None:
    """What people call it in this run (None: in none): the run's own temporary worker is `here`."""
    record = state.workers.get(worker)
    if record is None:
        return None
    return "here" if run is not None and run.home and record.name == run.home else record.name
