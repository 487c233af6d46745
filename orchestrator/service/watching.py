"""The two streams a client may follow: events of a run and its log lines, as JSON rows, many in one message.

Both resume by number, so a client that lost its server asks for what is after the last row it has. Nothing is sent
before it is on disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from protocol.event_row import LogRow, event_kind, event_report, kind_named

from ..core.event import FLEET, Emitted, Event, RunSettled, TaskSettled, run_of
from ..core.graph import Run
from ..core.state import State
from ..engine.engine import Engine
from ..engine.recording import TOGETHER
from ..engine.watch import Seen
from ..journal.journal import Journal, LogLine
from .attachment import Attachments
from .lookup import find_run, find_task, is_open, worker_name

MESSAGE_ROWS: Final = 256
LOG_PAGE: Final = 500
LOOK_PATIENCE_S: Final = 5.0
"""How long a look waits for the disk."""


class Wanted:
    """Which events a watcher wants: of these kinds (none: all), and settled tasks in these states (none: any)."""

    def __init__(self, kinds: Collection[str] = (), states: Collection[str] = ()) -> None:
        self._kinds = frozenset(kinds)
        self._states = frozenset(states)
        found = {kind for kind in Event.__args__ if kind_named(kind.__name__) in self._kinds}
        rare = bool(kinds) and found.isdisjoint(TOGETHER)
        self.types = frozenset(kind.__name__ for kind in (*found, Emitted, RunSettled)) if rare else frozenset[str]()
        """For engine.watch: types among which these are, by name; empty where that has to look at all events. What a
        skill emits goes by the skill's own words."""

    def __call__(self, event: Event) -> bool:
        if self._kinds and event_kind(event) not in self._kinds:
            return False
        return not (self._states and type(event) is TaskSettled and event.state not in self._states)

    def or_end(self, event: Event) -> bool:
        """Also the end of the run, which ends the watch of it."""
        return type(event) is RunSettled or self(event)


class Watching:
    """Serves `events` and `logs`."""

    def __init__(self, engine: Engine, journal: Journal, attachments: Attachments) -> None:
        self._engine = engine
        self._journal = journal
        self._attachments = attachments

    async def events(self, run: int, after: int, follow: bool, wanted: Wanted) -> AsyncIterator[bytes]:
        """Rows of the run's events numbered above `after` (-1: those to come); with `follow` until it is settled.

        Raises: NotFound.
        """
        state = self._engine.machine.state
        found = find_run(state, run)
        row_of = _EventRows(state, found)
        if after < 0:
            after = self._engine.watches.committed
        if not follow:
            with anyio.move_on_after(LOOK_PATIENCE_S):  # whoever was told that the run has ended finds its end here
                await self._engine.on_disk()
            async with self._engine.watches.events(found.ix, after, wanted.types, wanted) as watch:
                while seen := await watch.next(wait=False):
                    for message in _messages(seen, row_of):
                        yield message
            return
        with self._attachments.watching(found.ix):
            async with self._engine.watches.events(found.ix, after, wanted.types, wanted.or_end) as watch:
                while True:
                    going = is_open(found)
                    if not going:
                        await self._engine.on_disk()
                    seen = await watch.next(wait=going)
                    if not seen:
                        return
                    for message in _messages([one for one in seen if wanted(one[2])], row_of):
                        yield message
                    if any(type(event) is RunSettled for _, _, event in seen):
                        return

    async def fleet(self, after: int, follow: bool, wanted: Wanted) -> AsyncIterator[bytes]:
        """Rows of the events about the server and its workers; with `follow` for as long as both last."""
        row_of = _EventRows(self._engine.machine.state)
        if after < 0:
            after = self._engine.watches.committed
        async with self._engine.watches.events(None, after, FLEET, wanted) as watch:
            while seen := await watch.next(wait=follow):
                for message in _messages(seen, row_of):
                    yield message

    async def logs(self, run: int, task: str, after: int, follow: bool) -> AsyncIterator[bytes]:
        """Rows of the run's log numbered above `after`; with `follow` until it is settled. Raises: NotFound."""
        found = find_run(self._engine.machine.state, run)
        index = find_task(found, task).ix if task else None
        async with self._engine.watches.log_news(found.ix) as news:
            while True:
                last = not follow or not is_open(found) or news.closed
                if last:
                    await self._engine.on_disk()
                while True:
                    page = await anyio.to_thread.run_sync(self._journal.read_logs, found.ix, index, after, LOG_PAGE)
                    if page:
                        after = page[-1][0]
                        yield b"\n".join(msgspec.json.encode(_log_row(found, n, line)) for n, line in page)
                    if len(page) < LOG_PAGE:
                        break
                if last:
                    return
                await self._log_news(found, news.wait)

    async def _log_news(self, run: Run, wait: Callable[[], Any]) -> None:
        """Until there are new lines, or the run is settled."""
        if not is_open(run):
            return
        async with anyio.create_task_group() as group:

            async def settled() -> None:
                watches = self._engine.watches
                async with watches.events(run.ix, watches.committed, frozenset(("RunSettled",))) as watch:
                    while is_open(run) and await watch.next():
                        pass
                group.cancel_scope.cancel()

            group.start_soon(settled)
            await wait()
            group.cancel_scope.cancel()


class _EventRows:
    """Turns events into rows: of one run, or of the fleet and of whatever runs they name."""

    def __init__(self, state: State, run: Run | None = None) -> None:
        self._state = state
        self._run = run

    def __call__(self, seen: Seen) -> dict[str, Any]:
        seq, at, event = seen
        run = self._run or self._state.runs.get(run_of(event))

        def task_of(index: int) -> str:
            return run.name_of(run.tasks[index]) if run is not None and index < len(run.tasks) else str(index)

        def worker_of(worker: int) -> str:
            return worker_name(self._state, run, worker) or str(worker)

        return event_report(event, seq=seq, at=at, task_of=task_of, worker_of=worker_of)


def _messages(seen: list[Seen], row_of: _EventRows) -> list[bytes]:
    rows = [msgspec.json.encode(row_of(one)) for one in seen]
    return [b"\n".join(rows[start : start + MESSAGE_ROWS]) for start in range(0, len(rows), MESSAGE_ROWS)]


def _log_row(run: Run, n: int, line: LogLine) -> LogRow:
    name = run.name_of(run.tasks[line.task]) if line.task < len(run.tasks) else str(line.task)
    return LogRow(n=n, at=line.at, run=run.name, task=name, attempt=line.attempt, stream=line.stream, text=line.text)
