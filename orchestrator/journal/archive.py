"""A journal that is only looked at: as it was at one instant, whether a server runs on it or not.

Invariant: it writes nothing, not even to bring an older file up to date (that is done on a copy in memory), and needs
no lock; what a running server commits later isn't seen.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType

from protocol.errors import NotFound, UsageError

from .failure import unusable
from .form import FORM, Form
from .journal import Record, Snapshot
from .reader import connect_to_read, read_records, read_removed, read_snapshot
from .schema import SCHEMA_VERSION, check_versions, prepare


class Archive:
    """Use in a `with`; one thread at a time. A `Source` for recovery.

    Raises: NotFound, VersionMismatch, JournalCorrupt, Unavailable.
    """

    def __init__(self, path: Path, form: Form = FORM) -> None:
        if not path.exists():
            raise NotFound(f"there is no journal {path}", hint="set --home or ASTERISM_HOME to where its server runs")
        self.path = path
        self._form = form
        try:
            self._reader = _open(path)
            self._reader.execute("BEGIN")
            self.meta: dict[str, str] = dict(self._reader.execute("SELECT key, value FROM meta"))
            check_versions(self.meta, str(path))
            if int(self.meta["schema"]) < SCHEMA_VERSION:
                self._reader = _up_to_date(self._reader, str(path))
        except (sqlite3.Error, OSError) as error:
            raise unusable(path, error) from error

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()
        if isinstance(error, sqlite3.Error):
            raise unusable(self.path, error) from error

    @property
    def id(self) -> str:
        return self.meta["journal"]

    @property
    def epoch(self) -> int:
        return int(self.meta["epoch"])

    def load_snapshot(self) -> Snapshot | None:
        return read_snapshot(self._reader)

    def read(self, after: int = 0, run: int | None = None, limit: int = 1000) -> list[Record]:
        return read_records(self._reader, self._form, after, run, limit)

    def removed(self) -> frozenset[int]:
        return read_removed(self._reader)

    def gaps(self) -> dict[int, int]:
        """Numbers that went with removed runs: first -> last."""
        return dict(self._reader.execute("SELECT first, last FROM gap ORDER BY first").fetchall())

    def damage(self) -> str:
        """What SQLite finds wrong with its own pages, "" for nothing."""
        found = [str(row[0]) for row in self._reader.execute("PRAGMA quick_check(3)")]
        return "" if found == ["ok"] else "; ".join(found)

    def counts(self) -> dict[str, int]:
        """Rows of every table."""
        tables = [row[0] for row in self._reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: self._one(f"SELECT COUNT(*) FROM {name}") for name in sorted(tables)}

    def last(self) -> tuple[int, float]:
        """Number and run time of the last record; (0, 0.0) of an empty journal."""
        row = self._reader.execute("SELECT seq, at FROM event ORDER BY seq DESC LIMIT 1").fetchone()
        return (row[0], row[1]) if row is not None else (0, 0.0)

    def tail(self) -> int:
        """Records behind the snapshot."""
        return self._one("SELECT COUNT(*) FROM event WHERE seq > ?", int(self.meta.get("snapshot_seq", 0)))

    def runs(self) -> list[int]:
        """Runs with any record, 0 for the fleet among them."""
        return [row[0] for row in self._reader.execute("SELECT DISTINCT run FROM event ORDER BY run")]

    def size_bytes(self) -> int:
        """Of all its files."""
        names = (self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm")))
        return sum(path.stat().st_size for path in names if path.exists())

    def copy_to(self, path: Path) -> None:
        """A whole journal of its own at `path`, consistent while a server writes. Raises: UsageError if it exists."""
        if path.exists():
            raise UsageError(f"{path} exists already", hint="name a new file: a copy never replaces anything")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        copy = sqlite3.connect(path)
        try:
            self._reader.backup(copy)
        except sqlite3.Error as error:
            path.unlink(missing_ok=True)
            raise unusable(path, error) from error
        finally:
            copy.close()

    def _one(self, query: str, *values: int) -> int:
        found: int = self._reader.execute(query, values).fetchone()[0]
        return found


def _open(path: Path) -> sqlite3.Connection:
    """On a file system that is mounted read-only SQLite can't make the files it shares with a writer: then there is
    none, and the file is read as it is."""
    try:
        reader = connect_to_read(path)
        reader.execute("SELECT 1 FROM sqlite_master").fetchone()
        return reader
    except sqlite3.OperationalError as error:
        wal = path.with_name(path.name + "-wal")
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or wal.exists():
            raise
        return sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None)


def _up_to_date(reader: sqlite3.Connection, name: str) -> sqlite3.Connection:
    copy = sqlite3.connect(":memory:", isolation_level=None)
    reader.backup(copy)
    reader.close()
    prepare(copy, name, "")
    return copy
