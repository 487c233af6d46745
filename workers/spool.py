"""The reports this worker owes: which ended attempts still wait for their Ack, and what holds each of them back.

Invariant: an entry leaves only when the orchestrator has it or will never want it; entries of another journal are kept
apart and never offered. Only what identifies a report is kept here, its value is in the outbox. Pure.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from protocol.artifact import ArtifactRef
from protocol.frame import Held, Report
from protocol.ids import AttemptId
from protocol.outcome import Failure, Success

MOST_REPORTS: Final = 10_000
MOST_BYTES: Final = 256 * 1024 * 1024
_ENCODER: Final = msgspec.msgpack.Encoder()


class Owed(msgspec.Struct, frozen=True):
    """A report in the outbox, without its value. `ref`: the artifact that its value is."""

    held: Held
    size: int
    ref: ArtifactRef | None = None


class Spooled(msgspec.Struct):
    """An ended attempt whose report waits for its Ack.

    It may leave when `unsaved` (a `once` report that is not fsynced) and `unstored` (its artifact is not confirmed)
    are both over and it is not on hold.
    """

    owed: Owed
    unsaved: bool = False
    unstored: bool = False
    on_hold: bool = False

    @property
    def ready(self) -> bool:
        return not (self.unsaved or self.unstored or self.on_hold)


class Spools(msgspec.Struct):
    """What the outbox holds: per journal the highest epoch seen and the reports owed to it."""

    journal: str = ""
    epochs: dict[str, int] = {}
    owed: dict[str, dict[AttemptId, Owed]] = {}


class Spool:
    """The entries of the current journal, bounded: when it is full the worker takes no new work."""

    def __init__(self, spools: Spools, most_reports: int, most_bytes: int) -> None:
        self._spools = spools
        self._most_reports = most_reports
        self._most_bytes = most_bytes
        self.disk_full = False
        self._load(spools.journal)

    def enter(self, journal: str) -> None:
        """From here the entries are those of this journal; those of the one before are kept for its return."""
        if self.entries:
            self._spools.owed[self.journal] = {attempt: one.owed for attempt, one in self.entries.items()}
        else:
            self._spools.owed.pop(self.journal, None)
        self._spools.epochs[self.journal] = self.epoch
        self._load(journal)

    def _load(self, journal: str) -> None:
        self.journal = journal
        self.epoch = self._spools.epochs.get(journal, 0)
        owed = self._spools.owed.get(journal, {})
        self.entries = {attempt: Spooled(one, unstored=one.ref is not None) for attempt, one in owed.items()}
        self._bytes = sum(one.size for one in owed.values())

    @property
    def short(self) -> str:
        """Why no new work may come: what it would report could not be kept. "" while it may."""
        if self.disk_full:
            return "DiskFull"
        full = len(self.entries) >= self._most_reports or self._bytes >= self._most_bytes
        return "OutboxFull" if full else ""

    def add(self, report: Report, *, unsaved: bool, on_hold: bool) -> None:
        owed = owed_for(report)
        self.entries[report.attempt] = Spooled(owed, unsaved, owed.ref is not None, on_hold)
        self._bytes += owed.size

    def drop(self, attempts: tuple[AttemptId, ...]) -> tuple[tuple[AttemptId, ...], tuple[AttemptId, ...]]:
        """Those that were here, and those of them whose values are artifacts."""
        gone: list[AttemptId] = []
        spilled: list[AttemptId] = []
        for attempt in attempts:
            spooled = self.entries.pop(attempt, None)
            if spooled is not None:
                self._bytes -= spooled.owed.size
                gone.append(attempt)
                if spooled.owed.ref is not None:
                    spilled.append(attempt)
        return tuple(gone), tuple(spilled)


def owed_for(report: Report) -> Owed:
    """What is kept of a report. The digest says what it reports, for Hello.spooled."""
    outcome = report.outcome
    digest = hashlib.sha256(_ENCODER.encode(outcome)).digest()[:16]
    held = Held(report.attempt, report.fence, report.pin, digest)
    if isinstance(outcome, Success):
        ref = outcome.value if isinstance(outcome.value, ArtifactRef) else None
        return Owed(held, 128 if isinstance(outcome.value, ArtifactRef) else 128 + len(outcome.value), ref)
    return Owed(held, 256 + (len(outcome.message) + len(outcome.detail) if isinstance(outcome, Failure) else 0))
