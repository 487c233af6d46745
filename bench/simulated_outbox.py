"""A simulated worker's disk: the outbox as `workers.outbox` keeps it, without a file.

What was written survives the death of the daemon; what was not yet synced may be torn off by a loss of power. Entries
of one journal are never offered to another.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from protocol.frame import Report
from protocol.ids import AttemptId
from workers.spool import Spools, owed_for


class SimulatedOutbox:
    """`kept`: by journal, what is owed to it. While `full`, what is appended stays in the daemon's memory."""

    def __init__(self) -> None:
        self.journal = ""
        self.kept: dict[str, dict[AttemptId, Report]] = {}
        self.epochs: dict[str, int] = {}
        self.full = False
        self._in_memory: list[tuple[str, Report]] = []
        self._unsynced: list[tuple[str, Report | AttemptId]] = []
        self._on_disk: dict[str, dict[AttemptId, Report]] = {}

    def spools(self) -> Spools:
        """What a daemon finds at its start."""
        owed = {
            journal: {attempt: owed_for(report) for attempt, report in kept.items()}
            for journal, kept in self.kept.items()
        }
        return Spools(self.journal, dict(self.epochs), owed)

    def adopt(self, journal: str, epoch: int) -> None:
        self.journal = journal
        self.epochs[journal] = max(epoch, self.epochs.get(journal, 0))

    def append(self, reports: Iterable[Report]) -> None:
        kept = self.kept.setdefault(self.journal, {})
        for report in reports:
            kept[report.attempt] = report
            (self._in_memory if self.full else self._unsynced).append((self.journal, report))

    def room(self) -> None:
        """The disk takes more again: what was kept in memory is written."""
        self.full = False
        owed = [(journal, one) for journal, one in self._in_memory if self.kept[journal].get(one.attempt) is one]
        self._unsynced += owed
        self._in_memory.clear()

    def lose_memory(self) -> None:
        """The daemon is gone, and with it what it could not write."""
        for journal, report in self._in_memory:
            if self.kept[journal].get(report.attempt) is report:
                del self.kept[journal][report.attempt]
        self._in_memory.clear()

    def read(self, attempt: AttemptId) -> Report | None:
        return self.kept.get(self.journal, {}).get(attempt)

    def forget(self, attempts: Iterable[AttemptId]) -> None:
        for attempt in attempts:
            self.kept.get(self.journal, {}).pop(attempt, None)
            self._unsynced.append((self.journal, attempt))

    @property
    def mark(self) -> int:
        """How much would be on disk once a sync that begins now has ended."""
        return len(self._unsynced)

    def synced(self, mark: int) -> None:
        """The first `mark` writes are on disk."""
        for journal, one in self._unsynced[:mark]:
            on_disk = self._on_disk.setdefault(journal, {})
            if isinstance(one, Report):
                on_disk[one.attempt] = one
            else:
                on_disk.pop(one, None)
        del self._unsynced[:mark]

    def lose_power(self, luck: Random) -> int:
        """A tail of what was not synced is gone; how many writes that were."""
        kept = luck.randint(0, len(self._unsynced))
        gone = len(self._unsynced) - kept
        self.synced(kept)
        self._unsynced.clear()
        self.kept = {journal: dict(found) for journal, found in self._on_disk.items()}
        return gone
