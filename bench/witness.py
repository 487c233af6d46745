"""What a simulation must never see: a result won twice, a won task run again, a won result lost by a crash.

It watches events as they are decided and states as they are recovered; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core.event import AttemptDispatched, EffectBegun, TaskRequeued, TaskSettled
from orchestrator.core.state import State

TaskKey = tuple[int, int]
"""(run, task)"""


class Witness:
    """G3 and G6 over time. `executions`: dispatched attempts by task; `effects`: tasks whose effect began."""

    def __init__(self) -> None:
        self.executions: dict[TaskKey, int] = {}
        self.effects: dict[TaskKey, int] = {}
        self._won: dict[TaskKey, int] = {}

    def decided(self, events: Sequence[Any]) -> None:
        """Raises: AssertionError with the event that must not be."""
        for event in events:
            if isinstance(event, TaskSettled) and event.state == "succeeded":
                key = (event.run, event.task)
                assert key not in self._won, f"G6: {key} was won twice, by {self._won[key]} and {event}"
                self._won[key] = event.winner
            elif isinstance(event, TaskRequeued):
                assert (event.run, event.task) not in self._won, f"G3: a won task runs again: {event}"
            elif isinstance(event, AttemptDispatched):
                key = (event.run, event.task)
                self.executions[key] = self.executions.get(key, 0) + 1
            elif isinstance(event, EffectBegun):
                self.effects.setdefault((event.run, event.task), 0)

    def recovered(self, state: State) -> None:
        """Raises: AssertionError when a result that was won is not there any more."""
        for run in state.runs.values():
            for task in run.tasks:
                if (run.ix, task.ix) in self._won:
                    assert task.succeeded, f"G6: the result of {run.name_of(task)} is lost"
