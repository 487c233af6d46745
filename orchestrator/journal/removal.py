"""Takes removed runs out of the file, a slice at a time: records, log lines, predictions, snapshot part, and the pages.

Invariant: after every slice, and so after a crash between any two, the journal tells the same: a run in `removal` is
skipped by whoever reads the state, however much of it is still there. `gap` names the numbers that went, so a record
that is missing for any other reason can be told from them. The removing record itself stays, as its trace.

Everything here runs on the writing connection, in its thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Final

SLICE_ROWS: Final = 500
SLICE_PAGES: Final = 128
_SHARE: Final = 4.0
"""A slice is followed by so many times its length for others."""


class Removals:
    """`due` says in how many seconds `work` wants to be called; None while there is nothing to do."""

    def __init__(self, writer: sqlite3.Connection) -> None:
        self._writer = writer
        rows = writer.execute("SELECT run, seq FROM removal WHERE NOT done ORDER BY run")
        self._left: dict[int, int] = dict(rows.fetchall())
        self._pages = bool(self._left)
        self._at = 0.0

    @property
    def due(self) -> float | None:
        if not self._left and not self._pages:
            return None
        return max(0.0, self._at - time.perf_counter())

    @property
    def left(self) -> int:
        """Runs of which something is still there."""
        return len(self._left)

    def enter(self, runs: Sequence[int], seq: int) -> None:
        """Within the transaction of their last record, `seq`: from here the runs are removed."""
        self._writer.executemany("INSERT OR REPLACE INTO removal VALUES (?, ?, 0)", [(run, seq) for run in runs])

    def entered(self, runs: Sequence[int], seq: int) -> None:
        """That transaction was committed."""
        self._left.update(dict.fromkeys(runs, seq))

    def work(self) -> None:
        """One slice, in a transaction of its own. Raises: sqlite3.OperationalError; nothing has changed then."""
        began = time.perf_counter()
        writer = self._writer
        if not self._left:
            self._pages = self._free()
        else:
            run, seq = next(iter(self._left.items()))
            writer.execute("BEGIN IMMEDIATE")
            try:
                done = self._slice(run, seq)
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                self._at = time.perf_counter() + 1.0
                raise
            if done:
                del self._left[run]
                self._pages = True
        now = time.perf_counter()
        self._at = now + _SHARE * (now - began)

    def _slice(self, run: int, seq: int) -> bool:
        writer = self._writer
        rows = writer.execute(
            "SELECT seq, (SELECT MIN(n.seq) FROM event n WHERE n.seq > e.seq) FROM event e"
            " WHERE run = ? AND seq < ? ORDER BY seq LIMIT ?",
            (run, seq, SLICE_ROWS),
        ).fetchall()
        if rows:
            self._widen(rows)
            writer.execute("DELETE FROM event WHERE run = ? AND seq <= ?", (run, rows[-1][0]))
            return False
        for table in ("log", "prediction"):
            slice_ = f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE run = ? LIMIT ?)"
            if writer.execute(slice_, (run, SLICE_ROWS)).rowcount == SLICE_ROWS:
                return False
        writer.execute("DELETE FROM snapshot WHERE part = ?", (run,))
        writer.execute("UPDATE removal SET done = 1 WHERE run = ?", (run,))
        return True

    def _widen(self, rows: list[tuple[int, int]]) -> None:
        """Enter the numbers of these records as gaps, grown together with those beside them."""
        spans: list[list[int]] = []
        for first, following in rows:
            if spans and spans[-1][1] == first - 1:
                spans[-1][1] = following - 1
            else:
                spans.append([first, following - 1])
        for first, last in spans:
            before = self._writer.execute(
                "SELECT first, last FROM gap WHERE first < ? ORDER BY first DESC LIMIT 1", (first,)
            ).fetchone()
            start = before[0] if before is not None and before[1] == first - 1 else first
            self._writer.execute("DELETE FROM gap WHERE first BETWEEN ? AND ?", (start, last))
            self._writer.execute("INSERT INTO gap VALUES (?, ?)", (start, last))

    def _free(self) -> bool:
        """Give pages back to the file system; whether there are more. A file made before 0.2 keeps them for reuse."""
        free = self._writer.execute("PRAGMA freelist_count").fetchone()[0]
        if free:
            self._writer.execute(f"PRAGMA incremental_vacuum({SLICE_PAGES})").fetchall()
        left = self._writer.execute("PRAGMA freelist_count").fetchone()[0]
        return bool(0 < left < free)
