"""Predictions and what came true of them, in a table beside the events: never a part of the replay.

Bounded: once a thousand more are in it, the oldest beyond the cap go; those of a removed run go with it. One statement
writes any number of rows, for the reason that sqlite.py gives. Everything here runs on the connection it is handed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from ..placement.predictor import Outcome

RECENT: Final = 20_000
"""Of so many at most a warm start looks at the last ones of each skill and class."""
SLACK: Final = 1_000
_COLUMNS: Final = (
    "run", "task", "attempt", "at", "skill", "class", "worker", "speed", "size", "run_s", "said_s", "low_s", "p95_s",
    "n", "rests_on", "tokens_in", "tokens_out", "beside",
)  # fmt: skip
_NAMES: Final = ", ".join(_COLUMNS)
_INSERT: Final = (
    f"INSERT INTO prediction({_NAMES}) SELECT "
    + ", ".join(f"json_extract(value, '$[{n}]')" for n in range(len(_COLUMNS)))
    + " FROM json_each(?) WHERE json_extract(value, '$[0]') NOT IN (SELECT run FROM removal)"
)
_ENCODER: Final = msgspec.json.Encoder()


class Predictions:
    """The writing side: keeps at most about `cap`."""

    def __init__(self, writer: sqlite3.Connection, cap: int) -> None:
        self._writer = writer
        self._cap = cap
        self._since = SLACK  # an older start may have left more

    def write(self, rows: Sequence[tuple[float, Outcome]]) -> None:
        """Within a transaction of the caller's. Rows are (at, outcome)."""
        self._writer.execute(_INSERT, (_ENCODER.encode([_row(at, one) for at, one in rows]).decode(),))
        self._since += len(rows)
        if self._since >= SLACK:
            self._since = 0
            self._writer.execute(
                "DELETE FROM prediction WHERE id <= (SELECT MAX(id) FROM prediction) - ?", (self._cap,)
            )


def read_run(reader: sqlite3.Connection, run: int, task: int | None, limit: int) -> list[Outcome]:
    """See Journal.read_predictions."""
    where, values = ("run = ?", [run]) if task is None else ("run = ? AND task = ?", [run, task])
    rows = reader.execute(f"SELECT {_NAMES} FROM prediction WHERE {where} ORDER BY id LIMIT ?", [*values, limit])
    return _outcomes(rows)


def read_recent(reader: sqlite3.Connection, each: int) -> list[Outcome]:
    """See Journal.recent_predictions."""
    rows = reader.execute(
        f"SELECT {_NAMES} FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY skill, class ORDER BY id DESC) AS k"
        " FROM (SELECT * FROM prediction ORDER BY id DESC LIMIT ?)) WHERE k <= ? ORDER BY id",
        (RECENT, each),
    )
    return _outcomes(rows)


def _row(at: float, one: Outcome) -> tuple[Any, ...]:
    said = one.predicted
    told = (said.run_s, said.low_s, said.p95_s, said.n, said.by) if said is not None else (None, None, None, 0, "")
    fact = one.skill, one.device_class, one.worker, one.speed, one.input_bytes, one.run_s
    return (*one.of, at, *fact, *told, one.tokens_in, one.tokens_out, one.beside)


def _outcomes(rows: Iterable[tuple[Any, ...]]) -> list[Outcome]:
    """What rot has made another type is left out: nothing depends on it."""
    found = []
    for run, task, attempt, _, skill, alike, worker, speed, size, run_s, said_s, low_s, p95_s, n, by, *more in rows:
        said = (said_s, low_s, p95_s, n, by) if said_s is not None else None
        try:
            found.append(
                msgspec.convert((skill, alike, worker, speed, size, run_s, said, (run, task, attempt), *more), Outcome)
            )
        except msgspec.ValidationError:
            continue
    return found
