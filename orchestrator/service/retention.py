"""Retention: settled runs that are older, more or larger than the settings allow are removed, the oldest first.

Invariant: an open run is never removed, nor one that a kept run was forked from, nor one that carries the label `keep`.
With no setting everything is kept. What only a removed run needed goes from the artifact store with the sweep that
follows. It must not know how a run is removed: the core decides on each, as if a person had asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread

from protocol.errors import AsterismError
from protocol.setting import RetentionDefaults

from ..core.graph import Run
from ..core.lifecycle import Closed
from ..core.state import State
from ..core.stimulus import RemoveRequested
from ..engine.engine import Engine

PERIOD_S: Final = 60.0
BETWEEN_S: Final = 0.5
"""Between two rounds while there is something to remove."""
ROUND_RUNS: Final = 200
"""Removed at most at a time, so that no round holds anything up."""
GRACE_S: Final = 3600.0
KEEP: Final = "keep"
_DAY_S: Final = 86_400.0


class Collector(Protocol):
    async def collect(self, now: float, grace_s: float, dry: bool) -> dict[str, Any]: ...


def removable(state: State) -> list[Run]:
    """Settled runs that nothing holds, those first that were settled first."""
    origins = {run.fork_of for run in state.runs.values()}
    found = [
        run
        for run in state.runs.values()
        if type(run.state) is Closed and run.ix not in origins and KEEP not in run.labels and not _stopping(run)
    ]
    return sorted(found, key=lambda run: (run.settled_at, run.ix))


def overdue(state: State, limits: RetentionDefaults, now: float, used_bytes: int) -> list[int]:
    """The runs to remove now. Over `max_bytes` it is one at a time: what it frees is known once it is gone."""
    runs = removable(state)
    settled = sum(type(run.state) is Closed for run in state.runs.values())
    due = max(0, settled - limits.keep_runs) if limits.keep_runs else 0
    if limits.days:
        before = now - limits.days * _DAY_S
        due = max(due, sum(run.settled_at < before for run in runs))
    if limits.max_bytes and used_bytes > limits.max_bytes:
        due = max(due, 1)
    return [run.ix for run in runs[: min(due, ROUND_RUNS)]]


def _stopping(run: Run) -> bool:
    return any(not attempt.ended for task in run.tasks for attempt in task.attempts)


class Retention:
    """Runs on its own, for as long as the server does. `used_bytes` blocks."""

    def __init__(
        self,
        engine: Engine,
        garbage: Collector,
        limits: RetentionDefaults,
        used_bytes: Callable[[], int],
        period_s: float = PERIOD_S,
        between_s: float = BETWEEN_S,
    ) -> None:
        self._engine = engine
        self._garbage = garbage
        self._limits = limits
        self._used_bytes = used_bytes
        self._period_s = period_s
        self._between_s = between_s

    async def run(self) -> None:
        """Return at once where everything is kept."""
        if self._limits == RetentionDefaults():
            return
        removed = 0
        while True:
            found = await self.round()
            removed += found
            if removed and not found and not self._engine.journal.statistics().removing:
                await self._garbage.collect(self._engine.clock(), GRACE_S, False)
                removed = 0
            await anyio.sleep(self._between_s if removed else self._period_s)

    async def round(self) -> int:
        """How many runs were removed. What they leave behind goes by and by, and is not measured before."""
        engine = self._engine
        if engine.pressure.full:
            return 0
        measured = self._limits.max_bytes and not engine.journal.statistics().removing
        used = await anyio.to_thread.run_sync(self._used_bytes) if measured else 0
        removed = 0
        for number in overdue(engine.machine.state, self._limits, engine.clock(), used):
            try:
                await engine.ask(lambda reply, run=number: RemoveRequested(reply, run))  # type: ignore[misc]
                removed += 1
            except AsterismError:
                continue  # its attempts are being stopped, or somebody was faster: the next round sees
        return removed
