"""Subscriptions to what was committed: events of one run or all, and the news that a run has new log lines.

Invariant: a watch yields every event after its start exactly once, in order, and only once it is on disk. A watcher
that reads too slowly is not buffered without bound: its queue is dropped and it goes on from the journal by sequence
number, through a read-only connection in a thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import anyio

from ..computation import computed
from ..core.event import Event, run_of
from ..core.event_codec import decode_events
from ..journal.journal import Journal
from .recording import TOGETHER

Seen = tuple[int, float, Event]
"""(seq, at, event)"""
QUEUE_EVENTS: Final = 4096
PAGE_RECORDS: Final = 500


class Watch:
    """One subscriber. Use as `async with watches.events(...) as watch`, then `await watch.next()` again and again."""

    def __init__(
        self, owner: Watches, run: int | None, after: int, kinds: frozenset[str], wanted: Callable[[Event], bool] | None
    ) -> None:
        self._owner = owner
        self.run = run
        self.kinds = kinds
        self._wanted = wanted
        self.after = after
        """The number of the last event handed out."""
        self._queue: deque[Seen] = deque()
        self._behind = True
        self._news = anyio.Event()
        self._closed = False

    async def __aenter__(self) -> Watch:
        self._owner.add(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._owner.drop(self)

    async def next(self, wait: bool = True) -> list[Seen]:
        """The next events, at least one; empty when there are no more now and `wait` is False, or at the end of the
        server. Raises: JournalCorrupt."""
        while True:
            if self._behind:
                found = await self._catch_up()
            else:
                found = list(self._queue)
                self._queue.clear()
                if found:
                    self.after = found[-1][0]
            if found:
                return found
            if self._behind:
                continue
            if self._closed or not wait:
                return []
            self._news = anyio.Event()
            await self._news.wait()

    def offer(self, seen: Sequence[Seen]) -> None:
        """For the owner, after a commit: some events of this watch."""
        if self._behind:
            return
        if self.kinds:
            seen = [one for one in seen if type(one[2]).__name__ in self.kinds]
        if self._wanted is not None:
            seen = [one for one in seen if self._wanted(one[2])]
        if not seen:
            return
        if len(self._queue) + len(seen) > QUEUE_EVENTS:
            self._queue.clear()
            self._behind = True
        else:
            self._queue.extend(seen)
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()

    async def _catch_up(self) -> list[Seen]:
        """A page from the journal. Caught up once all that was committed before the read has been handed out: from
        then on the queue takes over, without a gap because offers happen in this very loop."""
        goal = self._owner.committed
        if self.after >= goal:
            self._behind = False
            return []
        found, last, more = await computed(self._read, goal)
        self.after = max(self.after, last if more else goal)
        return found

    def _read(self, goal: int) -> tuple[list[Seen], int, bool]:
        records = self._owner.journal.read(self.after, self.run, PAGE_RECORDS, self.kinds)
        found: list[Seen] = []
        last = self.after
        for record in records:
            for offset, event in enumerate(decode_events(record.body)):
                seq = record.seq + offset
                if self.after < seq <= goal:
                    last = seq
                    if self._wanted is None or self._wanted(event):
                        found.append((seq, record.at, event))
        return found, last, len(records) == PAGE_RECORDS


class LogWatch:
    """Wakes when a run has new log lines on disk; the reader keeps its own cursor into the journal."""

    def __init__(self, owner: Watches, run: int) -> None:
        self._owner = owner
        self.run = run
        self.news = anyio.Event()
        self.closed = False

    async def __aenter__(self) -> LogWatch:
        self._owner.add_log(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._owner.drop_log(self)

    async def wait(self) -> None:
        """Until there is something new. Check the journal between creating the watch and the first wait."""
        await self.news.wait()
        self.news = anyio.Event()


class Watches:
    """All subscribers of an engine. Costs the hot path nothing while there are none."""

    def __init__(self, journal: Journal, committed: int) -> None:
        self.journal = journal
        self.committed = committed
        """The number of the last event on disk."""
        self._all: set[Watch] = set()
        self._whole = 0
        """How many want all kinds: without them nobody looks at what happens to tasks by the thousand."""
        self._by_run: dict[int, set[Watch]] = {}
        self._logs: dict[int, set[LogWatch]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._all) + sum(map(len, self._by_run.values())) + sum(map(len, self._logs.values()))

    def events(
        self,
        run: int | None,
        after: int = 0,
        kinds: frozenset[str] = frozenset(),
        wanted: Callable[[Event], bool] | None = None,
    ) -> Watch:
        """Events of `run` (None: all) with numbers above `after`; with `kinds` (names of event types, none of
        `recording.TOGETHER`) only these; and of those only what is `wanted`."""
        return Watch(self, run, after, kinds, wanted)

    def log_news(self, run: int) -> LogWatch:
        return LogWatch(self, run)

    def committed_to(self, first: int, at: float, events: Sequence[Event], logged: Sequence[int]) -> None:
        """For the engine, in the loop, once these are on disk; `first` is the number of the first of them."""
        self.committed = first + len(events) - 1
        if self._whole:
            self._offer([(seq, at, event) for seq, event in enumerate(events, first)])
        elif (self._all or self._by_run) and (
            rare := [(seq, at, event) for seq, event in enumerate(events, first) if type(event) not in TOGETHER]
        ):
            self._offer(rare)
        for run in logged:
            for reader in self._logs.get(run, ()):
                reader.news.set()

    def _offer(self, seen: list[Seen]) -> None:
        for watch in self._all:
            watch.offer(seen)
        for run, watches in self._by_run.items():
            mine = [one for one in seen if run_of(one[2]) == run]
            if mine:
                for watch in watches:
                    watch.offer(mine)

    def close(self) -> None:
        """The server ends: every watch hands out what it has, then nothing."""
        self._closed = True
        for watch in (*self._all, *(one for some in self._by_run.values() for one in some)):
            watch.close()
        for reader in (one for some in self._logs.values() for one in some):
            reader.closed = True
            reader.news.set()

    def add(self, watch: Watch) -> None:
        self._whole += not watch.kinds
        if watch.run is None:
            self._all.add(watch)
        else:
            self._by_run.setdefault(watch.run, set()).add(watch)
        if self._closed:
            watch.close()

    def drop(self, watch: Watch) -> None:
        self._whole -= not watch.kinds
        if watch.run is None:
            self._all.discard(watch)
        else:
            some = self._by_run.get(watch.run, set())
            some.discard(watch)
            if not some:
                self._by_run.pop(watch.run, None)

    def add_log(self, reader: LogWatch) -> None:
        self._logs.setdefault(reader.run, set()).add(reader)
        reader.closed = self._closed

    def drop_log(self, reader: LogWatch) -> None:
        some = self._logs.get(reader.run, set())
        some.discard(reader)
        if not some:
            self._logs.pop(reader.run, None)
