"""Where a worker keeps what its attempts write: a folder per run, a folder per attempt in it, values not yet stored.

`runs/JOURNAL8-rN/TASK-A/` and `spill/JOURNAL8-R.T.A`. Journals are kept apart: each counts its runs from 1.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Final

from protocol.frame import Assign
from protocol.ids import AttemptId

from .outbox import Outbox
from .root import Root

_ILLEGAL: Final = re.compile(r"[^a-z0-9_.-]")


class Folders:
    """`journal` is the one the worker serves now."""

    def __init__(self, folder: Path) -> None:
        self.home = folder = Path(os.path.realpath(folder))
        self._inputs = folder / "inputs"
        shutil.rmtree(self._inputs, ignore_errors=True)  # of attempts that an earlier daemon did not end
        self._runs = folder / "runs"
        self._spills = folder / "spill"
        for one in (self._runs, self._spills):
            one.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.journal = ""

    @property
    def root(self) -> Root:
        """Skills may always use what lies here."""
        return Root(os.path.realpath(self._runs))

    def run(self, run: int) -> Path:
        return self._runs / f"{self.journal[:8] or 'none'}-r{run}"

    def attempt(self, assign: Assign) -> Path:
        """In the folder of its run, which is there then. Most attempts write nothing: its own is made by one that does,
        since a file system that is being flushed lets nobody make or remove a folder meanwhile."""
        name = assign.name.partition("/")[2] or f"{assign.attempt.task}#{assign.attempt.number}"
        run = self.run(assign.attempt.run)
        if not run.is_dir():  # asked first: the disk may keep up even a mkdir of what is there
            run.mkdir(parents=True, exist_ok=True, mode=0o700)
        return run / _ILLEGAL.sub("-", name)

    def inputs(self, attempt: AttemptId) -> Path:
        """Of an attempt that sees nothing else of the cache."""
        return self._inputs / f"{self.journal[:8] or 'none'}-{attempt.run}.{attempt.task}.{attempt.number}"

    def spill(self, attempt: AttemptId) -> Path:
        """The file of a value that is too large for its report, until it is stored and acknowledged."""
        return self._spills / f"{self.journal[:8] or 'none'}-{attempt.run}.{attempt.task}.{attempt.number}"


def clear(folder: Path) -> None:
    """A temporary worker leaves nothing behind but what somebody may still want: reports it owes, files it made."""
    outbox = Outbox(folder / "outbox")
    owes = any(outbox.spools().owed.values())
    outbox.close()
    for name in ("cache", *(() if owes else ("outbox", "spill"))):
        shutil.rmtree(folder / name, ignore_errors=True)
    for one in (folder / "lock", *folder.glob("runs/*/.issued")):
        one.unlink(missing_ok=True)
    for path in (*sorted(folder.rglob("*"), key=lambda one: -len(one.parts)), folder):
        with contextlib.suppress(OSError):
            path.rmdir()
