"""The journal port: an append-only list of committed records, snapshots over it, and the log lines beside it.

Invariant: a record that a reader or a recovery ever saw is on disk and stays until its run is removed; records are
committed in the order they were appended, all or none of one `append`. One conformance suite
(tests/contract/test_journal.py) runs on every implementation.

`seq` numbers EVENTS: a record takes as many numbers as it holds events and is called by the first. The journal
doesn't know what an event means: `body` is opaque here, only `kind` (of its first event) is for people.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import anyio
import msgspec

from protocol.errors import AsterismError, Unavailable

from ..placement.predictor import Outcome
from .form import BODY_VERSION


class Record(msgspec.Struct, frozen=True, gc=False):
    """What is written at once for one decided fact: `body` is `core.event_codec.encode_events` of its events."""

    seq: int
    run: int
    kind: str
    at: float
    body: bytes
    v: int = BODY_VERSION


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """A line an attempt wrote. `n` counts the lines of its attempt; never part of the replay."""

    run: int
    task: int
    attempt: int
    n: int
    at: float
    stream: str
    text: str


class Snapshot(msgspec.Struct, frozen=True):
    """State as of event `seq`. Part 0 is everything but runs, part N is run N.

    A snapshot that is written holds the parts that changed; one that is loaded holds them all. `records` counts the
    events behind each part, so the rule of when to take the next one survives a restart. `layout` names the form of
    the parts; the journal only keeps it.
    """

    seq: int
    at: float
    parts: Mapping[int, bytes]
    records: Mapping[int, int] = {}
    layout: str = ""


class Commit:
    """The promise of one `append`: `wait` returns when it is on disk. Any number of tasks may wait."""

    __slots__ = ("_done", "_error", "_event")

    def __init__(self) -> None:
        self._done = False
        self._error: BaseException | None = None
        self._event: anyio.Event | None = None

    @property
    def done(self) -> bool:
        """On disk. False while pending and for ever once the journal failed."""
        return self._done

    async def wait(self) -> None:
        """Raises: Unavailable if the journal stopped before this was on disk."""
        if not self._done and self._error is None:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()
        if self._error is not None:
            raise Unavailable("the journal stopped before this was on disk") from self._error

    def settle(self, error: BaseException | None = None) -> None:
        """For implementations, in the loop."""
        self._done = error is None
        self._error = error
        if self._event is not None:
            self._event.set()


class Health(Protocol):
    """What the owner of a journal is told, always in its loop."""

    def disk_full(self, full: bool) -> None:
        """Nothing can be committed until there is room again; what was appended is kept and tried again."""

    def failed(self, error: AsterismError) -> None:
        """A write failed in a way that must not be retried (a failed fsync lies): end the process, replay."""


class Statistics(msgspec.Struct, frozen=True):
    """Of the writer since start: groups committed, records in them, the largest, seconds in commits. `removing`: runs
    that were removed and are not gone from the file yet."""

    groups: int = 0
    records: int = 0
    largest: int = 0
    commit_s: float = 0.0
    slowest_s: float = 0.0
    removing: int = 0


class Source(Protocol):
    """What a recovery reads: a journal, or one that is only looked at."""

    @property
    def id(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    def load_snapshot(self) -> Snapshot | None: ...
    def read(self, after: int = 0, run: int | None = None, limit: int = 1000) -> list[Record]: ...
    def removed(self) -> frozenset[int]: ...


class Journal(Protocol):
    """Appends are called in the loop that called `start`; the reads block and belong in a thread."""

    id: str
    """128 random bits in hex, given at creation."""
    epoch: int
    """The highest epoch ever opened."""

    def start(self, health: Health) -> None:
        """Bind to the running loop; from here `append` works."""

    async def aclose(self) -> None:
        """Commit what is queued, then release the files and the lock."""

    def open_epoch(self, epoch: int) -> None:
        """Make `epoch` durable before returning. Blocks; before `start` only. Raises: ValueError if not greater;
        Unavailable for a full disk."""

    def append(
        self,
        records: Sequence[Record],
        logs: Sequence[LogLine] = (),
        notify: Callable[[], None] | None = None,
        *,
        pressing: bool = True,
        forget: Sequence[int] = (),
    ) -> Commit:
        """Queue for the next group. Costs the loop about a microsecond, never blocks.

        With these records the runs in `forget` are removed: from the commit on they are in `removed`, and what is kept
        of them (records before the last one here, snapshot part, log lines) goes by and by.

        `notify` is called in the loop after the commit, in append order, and never from within `append`. Where nobody
        waits for the commit (`pressing` False) it may come some milliseconds later, in a larger group.
        """

    def keep(self, outcomes: Sequence[Outcome], at: float, *, pressing: bool = False) -> Commit:
        """Queue what came true of predictions, of which only the last ones are kept: never part of the replay, and gone
        with its run. Few are in a hurry for it (`pressing`)."""

    def write_snapshot(self, snapshot: Snapshot) -> Commit:
        """Store the changed parts. Ordered with the appends; parts of removed runs are left out."""

    def load_snapshot(self) -> Snapshot | None:
        """All parts of the last snapshot. Raises: JournalCorrupt."""

    def read(
        self, after: int = 0, run: int | None = None, limit: int = 1000, kinds: Collection[str] = ()
    ) -> list[Record]:
        """Committed records, in order, that hold events numbered above `after`; the first may also hold some at or
        below it. With `kinds` only records of these. Raises: JournalCorrupt naming the seq of a record whose checksum
        is wrong."""

    def removed(self) -> frozenset[int]:
        """Every run that was ever removed. Some of their records may still be there: they tell nothing."""

    def read_logs(
        self, run: int, task: int | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, LogLine]]:
        """Committed log lines with their cursors (pass the last as `after`)."""

    def read_predictions(self, run: int, task: int | None = None, limit: int = 1000) -> list[Outcome]:
        """Committed outcomes of a run's attempts, in the order they were kept."""

    def recent_predictions(self, each: int) -> list[Outcome]:
        """The last `each` of every skill and class of devices, in the order they were kept."""

    def statistics(self) -> Statistics: ...
