"""`gc`: what no run needs any more is removed from the artifact store, and what gone workers left behind.

A content stays if a run names it anywhere: in a value, an argument, an input, a pinned file. So does everything that
was asked for since the oldest attempt that may still report, because its result may name what was found complete back
then. The journal itself needs no sweep: a removed run takes its events with it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import anyio.lowlevel
import anyio.to_thread
import msgspec

from protocol.clock import elapsed
from protocol.errors import Conflict
from protocol.report import SCHEMA
from protocol.security import claim

from ..artifacts.store import ArtifactStore
from ..artifacts.sweep import MARK, Freed, closure, sweep
from ..core.graph import Run
from ..core.lifecycle import Settled
from ..core.state import State

_TEMPORARY = ("here-*", "local-*-*")
SLICE_TASKS: Final = 500
_ENCODER: Final = msgspec.msgpack.Encoder()


class Garbage:
    """Sweeps the store of one server; `folder` is where the workers of its machine live."""

    def __init__(
        self,
        store: ArtifactStore,
        state: State,
        folder: Path,
        wall: Callable[[], float] = time.time,
        since: Callable[[], float] = elapsed,
    ) -> None:
        self._store = store
        self._state = state
        self._folder = folder
        self._wall = wall
        self._since = since
        self._lowest = wall() - since()
        """The wall clock's offset from elapsed time: files bear wall time, so what it was set forward is no age."""

    async def collect(self, now: float, grace_s: float, dry: bool) -> dict[str, Any]:
        """What was freed. `now` is run time, which tells how old the attempts are."""
        named: set[str] = set()
        oldest = now
        for number in list(self._state.runs):
            run = self._state.runs.get(number)
            if run is not None:
                oldest = min(oldest, _oldest(run, now))
                for piece in _pieces(run):
                    named.update(one.decode() for one in MARK.findall(piece))
                    await anyio.lowlevel.checkpoint()
        offset = self._wall() - self._since()
        self._lowest = min(self._lowest, offset)
        before = self._wall() - (offset - self._lowest) - max(grace_s, now - oldest)
        freed, folders = await anyio.to_thread.run_sync(self._sweep, named, before, dry)
        found = {**msgspec.to_builtins(freed), "workers": folders, "removed": not dry}
        return {"schema": SCHEMA, **found}

    def _sweep(self, named: set[str], before: float, dry: bool) -> tuple[Freed, int]:
        needed = closure(self._store, named)
        return sweep(self._store, needed, before, dry=dry), self._folders(needed, before, dry)

    def _folders(self, needed: set[str], before: float, dry: bool) -> int:
        """Remove the folders of temporary workers that are gone, with files that no run names. Who lives holds its
        lock."""
        found = 0
        for pattern in _TEMPORARY:
            for folder in self._folder.glob(pattern):
                if f"file://{folder.name}" in needed or folder.stat().st_mtime >= before:
                    continue
                try:
                    with claim(folder / "lock"):
                        found += 1
                        if not dry:
                            shutil.rmtree(folder, ignore_errors=True)
                except Conflict:
                    continue
        return found


def _pieces(run: Run) -> Iterator[bytes]:
    """Everything that the run holds, encoded a slice at a time: the loop turns in between."""
    for start in range(0, len(run.tasks), SLICE_TASKS):
        yield _ENCODER.encode(run.tasks[start : start + SLICE_TASKS])
    for version in run.versions:
        for patch in version.patches:
            for start in range(0, len(patch.tasks), SLICE_TASKS):
                yield _ENCODER.encode(patch.tasks[start : start + SLICE_TASKS])
            yield _ENCODER.encode(msgspec.structs.replace(patch, tasks=()))
    for name in run.__struct_fields__:
        if name not in ("tasks", "versions"):
            yield _ENCODER.encode(getattr(run, name))


def _oldest(run: Run, now: float) -> float:
    """When the oldest attempt began that may still report: of a task without a result, or one that still runs."""
    found = now
    for task in run.tasks:
        for attempt in task.attempts:
            if not attempt.ended or (attempt.ended == "lost" and not isinstance(task.state, Settled)):
                found = min(found, attempt.at)
    return found
