"""The reports of this worker on their way: into the outbox, onto the disk, into the artifact store, onto the stream.

Invariant: a report is in the outbox before it is on the stream, and one that must be durable is fsynced before `saved`
is told; what a full disk does not take stays here and is offered from here, and the machine hears that it is full, so
that no more comes. It decides nothing: the machine says when.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread

from protocol.errors import AsterismError
from protocol.frame import Report
from protocol.ids import AttemptId
from protocol.link import redial_s

from .folder import Folders
from .instruction import Append, Forget, Offer, Store
from .outbox import Outbox
from .stimulus import DiskFilled, Saved, Stimulus, Stored
from .transfer import Transfer

SYNC_S: Final = 0.03
"""Reports are fsynced in groups this often, well within the promised 50 ms."""
LOOK_S: Final = 1.0
"""How often the disk is looked at."""
RESERVE_BYTES: Final = 32 * 1024 * 1024
RESERVE_SHARE: Final = 0.02
"""With less than the smaller of both free the disk counts as full: what runs already needs the rest."""


class ReportDesk:
    """`step` hears what became of a report; `put` sends one, dropping it while there is no stream."""

    def __init__(
        self,
        outbox: Outbox,
        folders: Folders,
        transfer: Transfer,
        step: Callable[[Stimulus], None],
        put: Callable[[Report], None],
    ) -> None:
        self._outbox = outbox
        self._folders = folders
        self._transfer = transfer
        self._step = step
        self._put = put
        self._group: anyio.abc.TaskGroup
        self._unsaved: list[AttemptId] = []
        self._fresh: dict[AttemptId, Report] = {}
        """The reports appended last: most are offered at once, and need not be read from the file again."""
        self._unwritten: dict[AttemptId, Report] = {}
        self._adopting: tuple[str, int] | None = None
        """A journal whose epoch is not written down yet."""
        self._full = False
        self._urgent = anyio.Event()
        self._dirty = anyio.Event()

    def open(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        group.start_soon(self._sync)
        group.start_soon(self._watch)

    def adopt(self, journal: str, epoch: int) -> None:
        self._fresh = {}  # of another journal, perhaps, where the same attempt ids mean other work
        self._adopting = (journal, epoch)
        try:
            self._outbox.adopt(journal, epoch)
        except OSError:
            self._filled(True)
            self._dirty.set()
        else:
            self._adopting = None

    def append(self, instruction: Append) -> None:
        try:
            self._outbox.append(instruction.reports)
        except OSError:
            # The disk is full: they stay here and are offered from here until there is room again.
            self._unwritten.update((report.attempt, report) for report in instruction.reports)
            self._filled(True)
        self._fresh = {report.attempt: report for report in instruction.reports}
        if instruction.durable:
            self._unsaved += [report.attempt for report in instruction.reports]
            self._urgent.set()
        self._dirty.set()

    def offer(self, instruction: Offer) -> None:
        for attempt in instruction.attempts:
            report = self._fresh.pop(attempt, None) or self._unwritten.get(attempt) or self._outbox.read(attempt)
            if report is not None:
                self._put(report)

    def forget(self, instruction: Forget) -> None:
        for attempt in instruction.spilled:
            self._folders.spill(attempt).unlink(missing_ok=True)
        for attempt in instruction.attempts:
            self._unwritten.pop(attempt, None)
        with contextlib.suppress(OSError):  # offered once more after a restart, and acknowledged once more
            self._outbox.forget(instruction.attempts)

    def store(self, instruction: Store) -> None:
        self._group.start_soon(self._store_until_confirmed, instruction)

    async def _sync(self) -> None:
        while True:
            await self._dirty.wait()
            with anyio.move_on_after(SYNC_S):
                await self._urgent.wait()
            self._dirty, self._urgent = anyio.Event(), anyio.Event()
            while not self._write_again():  # noqa: ASYNC110 - a disk tells nobody that it has room
                await anyio.sleep(LOOK_S)
            saved, self._unsaved = tuple(self._unsaved), []
            try:
                await anyio.to_thread.run_sync(self._outbox.sync)
            except OSError:
                await self._renew()
            if saved:
                self._step(Saved(saved))

    def _write_again(self) -> bool:
        """Whether everything that a full disk did not take is in the outbox by now."""
        try:
            if self._adopting is not None:
                self._outbox.adopt(*self._adopting)
                self._adopting = None
            if self._unwritten:
                self._outbox.append(self._unwritten.values())
                self._unwritten.clear()
        except OSError:
            return False
        return True

    async def _renew(self) -> None:
        while True:
            self._filled(True)
            try:
                self._outbox.renew()
                return
            except OSError:
                await anyio.sleep(LOOK_S)

    async def _watch(self) -> None:
        """Announce a full disk before it costs a result, and room once everything that waited for it is written."""
        while True:
            room = await anyio.to_thread.run_sync(has_room, self._outbox.folder)
            if not room:
                self._filled(True)
            elif self._full and not self._unwritten and self._adopting is None:
                self._filled(False)
            await anyio.sleep(LOOK_S)

    def _filled(self, full: bool) -> None:
        if full != self._full:
            self._full = full
            self._step(DiskFilled(full))
            said = "is full: no new work until there is room" if full else "has room again"
            sys.stderr.write(f"the disk of {self._outbox.folder} {said}\n")

    async def _store_until_confirmed(self, instruction: Store) -> None:
        path = self._folders.spill(instruction.attempt)
        failures = 0
        while path.is_file():
            try:
                with path.open("rb") as file:
                    await self._transfer.store(instruction.ref, file)
                self._step(Stored(instruction.attempt))
                return
            except (AsterismError, OSError):
                failures += 1
                await anyio.sleep(redial_s(failures, random.random()))


def has_room(folder: Path) -> bool:
    """Whether the disk below the folder has more free than the reserve. One that can't be asked is taken to have."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return True
    reserve = min(RESERVE_BYTES, RESERVE_SHARE * found.f_blocks * found.f_frsize)
    return found.f_bavail * found.f_frsize >= reserve
