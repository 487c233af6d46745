"""Every crash point of every trace: stop before and after each record and each send, recover, and go on to the end.

The recovered state is byte for byte the one that was there when the last record got to the disk, from the records and
from a snapshot with its tail. The end is the end of the undisturbed trace: nothing that had finished ran again, every
result is right, and no effect happened twice.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.event_codec import decode_events
from orchestrator.core.lifecycle import Settled
from orchestrator.core.state import State
from tests.stateful.rig import Fleet, World, replayed
from tests.stateful.trace import TRACES, Trace

GOLDEN = Path(__file__).resolve().parents[1] / "golden/traces.json"
Point = tuple[str, int, Fleet]
"""(what comes next, records on the disk, everything that survives)"""


def world(trace: Trace, **more: Any) -> World:
    return World(trace.steps, trace.programs, settings=trace.settings, planner=trace.planner, **more)


def record(trace: Trace, lag: int) -> tuple[World, list[Point]]:
    """The undisturbed trace, and its crash points, no two of them the same."""
    made = world(trace, lag=lag)
    points: dict[str, Point] = {}

    def watch(here: World, word: str) -> None:
        fleet = here.fleet.copy()
        points.setdefault(f"{len(here.disk)} {fleet}", (word, len(here.disk), fleet))

    made.watch = watch
    made.run()
    watch(made, "the end")
    return made, list(points.values())


def ends(made: World) -> dict[str, Any]:
    """What the runs came to: their states, and every task's state and value by name."""
    found: dict[str, Any] = {}
    for run in made.state.runs.values():
        found[run.name] = run.state
        for task in run.tasks:
            if task.parent < 0 or run.tasks[task.parent].spread is not None:
                state = task.state
                assert isinstance(state, Settled)
                found[f"{run.name}/{run.name_of(task)}"] = (state.state, state.code, task.value)
    return found


@pytest.mark.parametrize("name", TRACES)
def test_an_undisturbed_trace_ends_as_written_down(name: str) -> None:
    """`ASTERISM_WRITE_GOLDEN=1` writes the ends again, after a change that is meant: read the diff."""
    calm, _ = record(TRACES[name], 0)
    found = {key: value.decode() if isinstance(value, bytes) else value for key, value in _words(ends(calm)).items()}
    written = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("ASTERISM_WRITE_GOLDEN"):
        written[name] = found
        GOLDEN.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    assert found == written[name]


def _words(found: dict[str, Any]) -> dict[str, Any]:
    return {
        key: ((one[2] or f"{one[0]} {one[1]}") if isinstance(one, tuple) else f"{one.state} {one.code}")
        for key, one in found.items()
    }


@pytest.mark.parametrize("name", TRACES)
def test_a_crash_at_any_point_changes_nothing_that_counts(name: str) -> None:
    trace = TRACES[name]
    for lag in (0, 3):
        calm, points = record(trace, lag)
        snapshots = {0: State().snapshot()} | {n: state for n, state in enumerate(calm.states, 1) if state}
        for number, (word, length, fleet) in enumerate(points):
            story = f"{name}, lag {lag}, point {number} of {len(points)}: before {word} with {length} records"
            disk = calm.disk[:length]
            before = replayed(disk)
            if length in snapshots:
                assert before.snapshot() == snapshots[length], f"{story}: the replay differs"
            part = max(n for n in snapshots if n <= length * 2 // 3)
            tail = State.restore(snapshots[part])
            for one in disk[part:]:
                for event in decode_events(one):
                    tail.apply(event)
            assert tail.snapshot() == before.snapshot(), f"{story}: the snapshot of {part} with its tail differs"
            _go_on(trace, calm, fleet.copy(), disk, number % 2 == 1, story)


def _go_on(trace: Trace, calm: World, fleet: Fleet, disk: list[bytes], one_by_one: bool, story: str) -> None:
    before = replayed(disk)
    settled = {
        f"{run.name}/{run.name_of(task)}" for run in before.runs.values() for task in run.tasks if task.succeeded
    }
    known = {f"{run.name}/{run.name_of(task)}" for run in before.runs.values() for task in run.tasks}
    finished, executions = [task for task in fleet.done if task in known], dict(fleet.executions)
    after = world(trace, fleet=fleet, disk=disk, one_by_one=one_by_one)
    try:
        after.run()
    except AssertionError as error:
        raise AssertionError(f"{story}: {error}") from error
    assert replayed(after.disk).snapshot() == after.state.snapshot(), f"{story}: the replay differs at the end"
    for task in settled:
        assert fleet.executions.get(task, 0) == executions.get(task, 0), f"{story}: {task} was settled and ran again"
    if not one_by_one:  # all workers are back before anything is placed
        for task in finished:
            assert fleet.executions[task] == executions[task], f"{story}: {task} had finished and ran again"
    for task, times in fleet.effects.items():
        assert times <= trace.once, f"{story}: the effect of {task} happened {times} times"
    found, wanted = ends(after), ends(calm)
    if found != wanted:
        codes = {run.state.code for run in after.state.runs.values()}
        assert codes & set(trace.loose), f"{story}: {found} instead of {wanted}"
