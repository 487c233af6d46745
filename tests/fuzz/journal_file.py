"""Recovery from damaged journals: a record, a snapshot part or a whole file is the bytes that are given."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from orchestrator.core.event import MapExpanded, RunSubmitted
from orchestrator.core.event_codec import decode_events, encode_events
from orchestrator.core.state import State
from orchestrator.journal.journal import Record, Snapshot
from orchestrator.journal.recovery import Recovered, recover
from orchestrator.journal.sqlite import SqliteJournal
from protocol.errors import JournalCorrupt
from protocol.task import RunSettings

JOURNAL: Final = "5eed" * 8
_MOST_ELEMENTS: Final = 10_000


def shared_memory() -> str | None:
    """Where files cost no disk, if there is such a place; else None."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class _Rows:
    """As much of a journal as recovery reads."""

    def __init__(self, bodies: tuple[bytes, ...], parts: dict[int, bytes] | None = None) -> None:
        self.id, self.epoch = JOURNAL, 3
        self._records = [Record(100 * n, 1, "Any", float(n), body) for n, body in enumerate(bodies, 1)]
        self._parts = parts

    def load_snapshot(self) -> Snapshot | None:
        return Snapshot(50, 1.0, self._parts, {}, State.layout()) if self._parts is not None else None

    def read(self, after: int = 0, run: int | None = None, limit: int = 1000) -> list[Record]:
        return [record for record in self._records if record.seq > after]

    def removed(self) -> frozenset[int]:
        return frozenset()


def recover_record(data: bytes) -> Recovered:
    """As the body of the second record of a journal; the first submits run 1."""
    events = decode_events(data) if _decodes(data) else ()
    if any(isinstance(one, MapExpanded) and (one.items > _MOST_ELEMENTS or len(one.workers) > 99) for one in events):
        raise JournalCorrupt("more elements than a map may have")
    begun = encode_events((RunSubmitted(1, "do it", "", "ann", RunSettings(), {"dir": b'"logs"'}),))
    found: Any = _Rows((begun, data))
    return recover(found)


def _decodes(data: bytes) -> bool:
    try:
        decode_events(data)
    except Exception:
        return False  # recovery has to say it in its own way
    return True


def recover_snapshot(data: bytes) -> Recovered:
    """The first byte says which part the rest is: 0 the head, else run 1."""
    parts = {0: State(1, JOURNAL).part(0), (1 if data[:1] != b"\0" else 0): data[1:]}
    found: Any = _Rows((), parts)
    return recover(found)


def recover_file(data: bytes) -> Recovered:
    """As the SQLite file itself."""
    folder = Path(tempfile.mkdtemp(dir=shared_memory()))
    try:
        path = folder / "journal.db"
        path.write_bytes(data)
        journal = SqliteJournal(path)
        try:
            return recover(journal)
        finally:
            close = journal.aclose()  # never started, so there is nothing to wait for
            try:
                close.send(None)
            except StopIteration:
                pass
    finally:
        shutil.rmtree(folder)
