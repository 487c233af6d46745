"""What went wrong with the journal's files, in words a person can act on. One table for opening, reading and writing.

It must not know what was tried: it is told the path and the error of SQLite or of the system.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from protocol.errors import AsterismError, JournalBusy, JournalCorrupt, Unavailable

DISK_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_PERMISSION: Final = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
)
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def unusable(path: Path, error: BaseException) -> AsterismError:
    """The error of the tree that says it; one of the tree already stays as it is."""
    if isinstance(error, AsterismError):
        return error
    if isinstance(error, OSError):
        hint = f"its folder must be there, and yours to write: ls -ld {path.parent}"
        return Unavailable(f"the journal {path} can't be opened: {error.strerror or error}", hint=hint)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code in DISK_FULL:
        hint = f"make room on the disk of {path.parent}"
        return Unavailable(f"the journal {path} can't grow: the disk is full", hint=hint)
    if code & 0xFF in _PERMISSION:
        hint = f"it must be a file that you may write, on a file system mounted for writing: ls -l {path}"
        return Unavailable(f"the journal {path} can't be opened for writing: {error}", hint=hint)
    if code & 0xFF in _BUSY:
        hint = "end the other program that writes to it: only its server may"
        return JournalBusy(f"the journal {path} is held by another program", hint=hint)
    if code & 0xFF in _DAMAGED:
        hint = f"restore it from a copy; what can still be read: asterism journal export --home {path.parent.parent}"
        return JournalCorrupt(f"the journal {path} is damaged: {error}", hint=hint)
    hint = "check the disk, then start the server again: it recovers by replay"
    return Unavailable(f"the journal {path} can't be used: {error}", hint=hint)


def vanished(path: Path) -> Unavailable:
    """Somebody removed or replaced the file while it was in use: what is written now would be lost."""
    hint = f"put {path.name} back, or a copy of it, then start the server again"
    return Unavailable(f"the journal {path} was removed or replaced under its server", hint=hint)
