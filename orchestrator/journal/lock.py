"""One owner per journal: an advisory lock that lasts until it is closed or the process ends, however it ends.

It is a file of its own: closing any descriptor of the database file would drop SQLite's own locks.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import closing
from pathlib import Path
from typing import IO

from protocol.errors import JournalBusy


def take_lock(path: Path) -> IO[str]:
    """Own the journal at `path` until the file that is returned is closed. Raises: JournalBusy naming the owner."""
    lock_path = path.with_name(path.name + ".lock")
    lock = open(os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="ascii")  # noqa: SIM115 kept open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        with closing(lock):
            owner = lock.read(32).strip()
        raise JournalBusy(
            f"the journal {path} is in use" + (f" by process {owner}" if owner else ""),
            hint="use that server (asterism server info), or set another ASTERISM_HOME",
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
