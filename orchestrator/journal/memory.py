"""A journal in memory: for simulations, tests and trials that need no disk. Same contract, nothing survives.

With `start`, groups commit on the next turn of the loop; without a loop (simulation) `commit` is called by hand, so
a crash can be placed between an append and its commit.
"""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

import msgspec

from ..placement.predictor import Outcome
from .journal import Commit, Health, LogLine, Record, Snapshot, Statistics
from .quota import LogQuota


class MemoryJournal:
    """What is appended becomes readable at `commit`, in order."""

    def __init__(
        self,
        journal_id: str | None = None,
        *,
        task_log_bytes: int = 0,
        run_log_bytes: int = 0,
        predictions: int = 100_000,
    ) -> None:
        self.id = journal_id or secrets.token_hex(16)
        self.epoch = 0
        self._records: list[Record] = []
        self._seqs: list[int] = []
        self._logs: list[LogLine] = []
        self._outcomes: deque[Outcome] = deque(maxlen=predictions)
        self._forgotten_logs: set[int] = set()
        self._parts: dict[int, bytes] = {}
        self._part_records: dict[int, int] = {}
        self._snapshot: tuple[int, float, str] | None = None
        self._removed: set[int] = set()
        self._queue: list[Callable[[], None]] = []
        self._settle: list[tuple[Commit, Callable[[], None] | None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        limits = {key: value for key, value in (("task_bytes", task_log_bytes), ("run_bytes", run_log_bytes)) if value}
        self._quota = LogQuota(lambda run: {}, **limits)
        self._groups = 0
        self._largest = 0

    def start(self, health: Health) -> None:
        self._loop = asyncio.get_running_loop()
        if self._queue:
            self._schedule()

    async def aclose(self) -> None:
        self.commit()
        self._loop = None

    def open_epoch(self, epoch: int) -> None:
        if epoch <= self.epoch:
            raise ValueError(f"epoch {epoch} is not above {self.epoch}")
        self.epoch = epoch

    def append(
        self,
        records: Sequence[Record],
        logs: Sequence[LogLine] = (),
        notify: Callable[[], None] | None = None,
        *,
        pressing: bool = True,
        forget: Sequence[int] = (),
    ) -> Commit:
        return self._enqueue(lambda: self._store(records, logs, forget), notify)

    def keep(self, outcomes: Sequence[Outcome], at: float, *, pressing: bool = False) -> Commit:
        def store() -> None:
            self._outcomes.extend(one for one in outcomes if one.of[0] not in self._removed)

        return self._enqueue(store, None)

    def write_snapshot(self, snapshot: Snapshot) -> Commit:
        return self._enqueue(lambda: self._store_snapshot(snapshot), None)

    def commit(self) -> None:
        """Everything appended so far is on "disk"; tell who waits."""
        self._scheduled = False
        queue, self._queue = self._queue, []
        settle, self._settle = self._settle, []
        before = len(self._records)
        for act in queue:
            act()
        if queue:
            self._groups += 1
            self._largest = max(self._largest, len(self._records) - before)
        for commit, notify in settle:
            commit.settle()
            if notify is not None:
                notify()

    def load_snapshot(self) -> Snapshot | None:
        if self._snapshot is None:
            return None
        seq, at, layout = self._snapshot
        return Snapshot(seq, at, dict(self._parts), dict(self._part_records), layout)

    def read(
        self, after: int = 0, run: int | None = None, limit: int = 1000, kinds: Collection[str] = ()
    ) -> list[Record]:
        found: list[Record] = []
        for index in range(max(0, bisect_right(self._seqs, after) - 1), len(self._records)):
            record = self._records[index]
            if (run is None or record.run == run) and (not kinds or record.kind in kinds):
                found.append(record)
                if len(found) >= limit:
                    break
        return found

    def removed(self) -> frozenset[int]:
        return frozenset(self._removed)

    def read_logs(
        self, run: int, task: int | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, LogLine]]:
        found: list[tuple[int, LogLine]] = []
        for cursor in range(after + 1, len(self._logs) + 1):
            line = self._logs[cursor - 1]
            if line.run == run and (task is None or line.task == task) and cursor not in self._forgotten_logs:
                found.append((cursor, line))
                if len(found) >= limit:
                    break
        return found

    def read_predictions(self, run: int, task: int | None = None, limit: int = 1000) -> list[Outcome]:
        return [one for one in self._outcomes if one.of[0] == run and task in (None, one.of[1])][:limit]

    def recent_predictions(self, each: int) -> list[Outcome]:
        seen: Counter[tuple[str, str]] = Counter()
        found = []
        for one in reversed(self._outcomes):
            seen[one.skill, one.device_class] += 1
            if seen[one.skill, one.device_class] <= each:
                found.append(one)
        return found[::-1]

    def statistics(self) -> Statistics:
        return Statistics(groups=self._groups, records=len(self._records), largest=self._largest)

    def _enqueue(self, act: Callable[[], None], notify: Callable[[], None] | None) -> Commit:
        commit = Commit()
        self._queue.append(act)
        self._settle.append((commit, notify))
        self._schedule()
        return commit

    def _schedule(self) -> None:
        if self._loop is not None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.commit)

    def _store(self, records: Sequence[Record], logs: Sequence[LogLine], forget: Sequence[int]) -> None:
        for record in records:
            if self._seqs and record.seq <= self._seqs[-1]:
                raise ValueError(f"record {record.seq} does not follow {self._seqs[-1]}")
            self._records.append(record)
            self._seqs.append(record.seq)
        self._logs.extend(self._quota.admit(logs))
        if forget:
            self._remove(set(forget))

    def _store_snapshot(self, snapshot: Snapshot) -> None:
        kept = {part: body for part, body in snapshot.parts.items() if part not in self._removed}
        self._parts.update(kept)
        self._part_records.update({part: snapshot.records.get(part, 0) for part in kept})
        self._snapshot = (snapshot.seq, snapshot.at, snapshot.layout)

    def _remove(self, gone: set[int]) -> None:
        self._removed |= gone
        for run in gone:
            self._parts.pop(run, None)
            self._part_records.pop(run, None)
        self._records[:-1] = [record for record in self._records[:-1] if record.run not in gone]
        self._seqs = [record.seq for record in self._records]
        self._forgotten_logs |= {cursor for cursor, line in enumerate(self._logs, 1) if line.run in gone}
        for cursor in self._forgotten_logs:
            with suppress(IndexError):
                self._logs[cursor - 1] = msgspec.structs.replace(self._logs[cursor - 1], text="")
        self._quota.forget(gone)
        left = [one for one in self._outcomes if one.of[0] not in gone]
        self._outcomes.clear()
        self._outcomes.extend(left)
