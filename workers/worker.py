"""The worker daemon: the shell around `machine` that dials, runs, spools and heartbeats.

Everything it decides the machine decided; here are only the effects. Invariants: a report is in the outbox before it
is on the stream; user code never runs in this process; the event loop never blocks, since heartbeats come from it.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from devices.device import Device
from protocol.errors import AsterismError, NotAllowed, VersionMismatch
from protocol.frame import Heartbeat, Item, Progress, Report, Stage
from protocol.ids import AttemptId
from protocol.link import redial_s
from protocol.outcome import Usage
from protocol.port import Channel, Dialled
from protocol.profile import WorkerProfile
from protocol.skill import SkillSpec

from .cache import Cache
from .errand import Errands
from .folder import Folders
from .instruction import (
    Adopt,
    Answer,
    Append,
    Forget,
    HangUp,
    Instruction,
    Kill,
    Leave,
    Offer,
    Send,
    Start,
    Store,
    Upload,
)
from .machine import Machine
from .outbox import Outbox
from .pipe import Setup
from .pool import Pool
from .root import Issued, Root, Roots
from .rule import SandboxRules
from .runner.inline import Find, InlineRunner
from .session import Session
from .setting import MachineSettings
from .shaping import Shape, ShapedStream
from .spawned import Spawned
from .stimulus import (
    Broken,
    Connected,
    DrainRequested,
    Ended,
    FileStaged,
    Received,
    Result,
    Saved,
    Stimulus,
    Stored,
    Tick,
)
from .transfer import Transfer

SYNC_S: Final = 0.03
"""Reports are fsynced in groups this often, well within the promised 50 ms."""
FULL_DISK_S: Final = 1.0
HEALTHY_S: Final = 5.0
_NO_USAGE: Final = Usage()
_LEGAL: Final = re.compile(r"[^a-z0-9_.-]")

Describe = Callable[[tuple[SkillSpec, ...]], WorkerProfile]
Dial = Callable[[], Dialled]


class WorkerSettings(msgspec.Struct, frozen=True):
    """What `worker start` was told. `folder` is `ASTERISM_HOME/workers/NAME`."""

    name: str
    folder: Path
    skills: tuple[str, ...] = ()
    roots: tuple[Root, ...] = ()
    slots: int = 1
    serves: str = ""
    shape: Shape = Shape()
    memory_bytes: int = 0
    sandbox: SandboxRules = SandboxRules()
    drain_s: float = 30.0


def now() -> float:
    """Seconds that also pass while the machine sleeps, where the system can tell."""
    return time.clock_gettime(_CLOCK)


_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Worker:
    """One daemon. `run` returns after a clean leave, or raises the refusal that ended it.

    `dial` opens a channel to wherever the server is now; `describe` makes the profile from the skills that were
    loaded; `find` is the registry's own look-up, used for inline built-ins only; `cards` are this machine's GPUs.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        spawned: Spawned,
        dial: Dial,
        describe: Describe,
        find: Find,
        cards: Device | None = None,
    ) -> None:
        self._settings = settings
        self._dial = dial
        self._describe = describe
        folder = settings.folder
        self._folders = Folders(folder)
        home = (self._folders.root,)
        roots = Roots(settings.name, settings.roots, home)
        issued = Issued()
        self._outbox = Outbox(folder / "outbox")
        self._cache = Cache(folder / "cache")
        self._transfer = Transfer(self._online, roots, issued, settings.shape)
        setup = Setup(settings.name, settings.skills, settings.roots, home, settings.serves)
        self._errands = Errands(
            self,
            self._folders,
            self._cache,
            self._transfer,
            issued,
            InlineRunner(find),
            cards,
            settings.shape,
            roots,
            settings.sandbox,
        )
        self._pool = Pool(spawned, setup, self._errands, settings.slots, settings.sandbox, settings.memory_bytes)
        self.alone_s = float("inf")
        """Without any server for so long it ends; for a temporary worker whose client has left it behind."""
        self.ready = anyio.Event()
        """Set once the skills are loaded and dialling begins."""
        self._machine: Machine
        self._group: anyio.abc.TaskGroup
        self._session: Session | None = None
        self._channel: Channel | None = None
        self._connected = anyio.Event()
        self._stimuli: deque[Stimulus] = deque()
        self.results: list[Result] = []
        self._stepping = False
        self._unsaved: list[AttemptId] = []
        self._fresh: dict[AttemptId, Report] = {}
        """The reports appended last: most are offered at once, and need not be read from the file again."""
        self._unwritten: dict[AttemptId, Report] = {}
        self._wanted: list[Stage] = []
        self._bundling = False
        self._urgent = anyio.Event()
        self._dirty = anyio.Event()
        self._nudge = anyio.Event()
        self._wakes_at = float("inf")
        self._lag_s = 0.0
        self._retry_after_s: float | None = None
        self._leave: Leave | None = None
        self._left = anyio.Event()

    async def run(self) -> None:
        refusal: AsterismError | None = None
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                self._errands.open(group, self._pool)
                await group.start(self._pool.run)
                try:
                    await self._load()
                    group.start_soon(self._tick)
                    group.start_soon(self._sync)
                    self.ready.set()
                    await self._dial_until_left()
                except AsterismError as error:
                    refusal = error
                group.cancel_scope.cancel()
        finally:
            self._outbox.close()
        if refusal is not None:
            raise refusal
        if self._leave is not None and self._leave.code:
            raise _refusal(self._leave)

    async def _load(self) -> None:
        described = await self._pool.describe()
        self._errands.async_skills = frozenset(one.spec.name for one in described if one.is_async)
        self._errands.sources = {one.spec.name: one.source for one in described if one.source}
        profile = self._describe(tuple(one.spec for one in described))
        profile = msgspec.structs.replace(profile, sandbox=self._settings.sandbox.reach(self._pool.held))
        settings = MachineSettings(self._settings.name, secrets.token_hex(16), profile)
        self._machine = Machine(settings, self._outbox.spools())
        self._folders.journal = self._machine.spool.journal

    def drain(self, deadline_s: float | None = None) -> None:
        """Leave: no new work, finish or hand back by the deadline, flush, go."""
        self.step(DrainRequested(self._settings.drain_s if deadline_s is None else deadline_s))

    # The link

    async def _dial_until_left(self) -> None:
        failures, heard = 0, now()
        while self._leave is None and now() - heard <= self.alone_s:
            began = now()
            try:
                async with self._dial() as channel:
                    await self._converse(channel)
            except (NotAllowed, VersionMismatch):
                raise
            except (AsterismError, OSError):
                failures += 1
            self.step(Broken())
            if now() - began > HEALTHY_S:
                failures, heard = 0, now()
            if self._leave is None:
                delay = self._retry_after_s if self._retry_after_s is not None else redial_s(failures, random.random())
                self._retry_after_s = None
                with anyio.move_on_after(delay):
                    await self._left.wait()

    async def _converse(self, channel: Channel) -> None:
        stream = await channel.link()
        if self._leave is not None:  # told to leave while the line was being opened: nobody would end it any more
            await stream.aclose()
            return
        edge = self._machine.settings.profile.edge
        shape = self._settings.shape
        self._session = session = Session(
            ShapedStream(stream, shape) if shape.latency_s else stream, self._heard, edge=edge
        )
        self._channel = channel
        self._connected.set()
        try:
            self.step(Connected())
            await session.run()
        finally:
            self._session = self._channel = None
            self._connected = anyio.Event()

    async def _online(self) -> Channel:
        while self._channel is None:
            await self._connected.wait()
        return self._channel

    def _heard(self, items: tuple[Item, ...]) -> None:
        self.step(Received(items))  # type: ignore[arg-type]

    # The machine's loop, and what errands ask of it (errand.Owner)

    def progress(self, item: Progress) -> None:
        """Lossy: said while there is somebody to hear it."""
        if self._session is not None and self._machine.online:
            self._session.put(item)

    def step(self, stimulus: Stimulus) -> None:
        """Handle one stimulus and whatever it leads to in this turn: inline attempts end while they start."""
        self._stimuli.append(stimulus)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._stimuli or self.results:
                if self._stimuli:
                    following: Stimulus = self._stimuli.popleft()
                else:
                    following = Ended(tuple(self.results))
                    self.results.clear()
                for instruction in self._machine.handle(following, now()):
                    self._do[type(instruction)](self, instruction)
        finally:
            self._stepping = False
        wake = self._machine.next_wake()
        if wake is not None and wake < self._wakes_at:
            self._nudge.set()

    async def _tick(self) -> None:
        while True:
            wake = self._machine.next_wake()
            self._wakes_at = wake if wake is not None else float("inf")
            self._nudge = anyio.Event()
            with anyio.move_on_after(None if wake is None else max(0.0, wake - now())):
                await self._nudge.wait()
            if wake is not None and now() >= wake:
                self._lag_s = max(self._lag_s * 0.9, now() - wake)
                self._wakes_at = float("inf")
                self.step(Tick())

    def _send(self, instruction: Send) -> None:
        item = instruction.item
        if isinstance(item, Heartbeat):
            gained, lost = self._cache.changes()
            item = msgspec.structs.replace(
                item, loop_lag_s=round(self._lag_s, 4), load=os.getloadavg()[0], cached=gained, uncached=lost
            )
        if self._session is not None:
            self._session.put(item)

    def _hang_up(self, instruction: HangUp) -> None:
        self._retry_after_s = instruction.retry_after_s
        if self._session is not None:
            self._session.hang_up()

    def _go(self, instruction: Leave) -> None:
        self._leave = instruction
        self._left.set()
        if self._session is not None:
            self._session.finish()

    # Reports

    def _spool(self, instruction: Append) -> None:
        try:
            self._outbox.append(instruction.reports)
        except OSError:
            # The disk is full: they stay here and are offered from here until there is room again.
            self._unwritten.update((report.attempt, report) for report in instruction.reports)
        self._fresh = {report.attempt: report for report in instruction.reports}
        if instruction.durable:
            self._unsaved += [report.attempt for report in instruction.reports]
            self._urgent.set()
        self._dirty.set()

    def _offer(self, instruction: Offer) -> None:
        for attempt in instruction.attempts:
            report = self._fresh.pop(attempt, None) or self._unwritten.get(attempt) or self._outbox.read(attempt)
            if report is not None and self._session is not None:
                self._session.put(report)

    def _forget(self, instruction: Forget) -> None:
        for attempt in instruction.spilled:
            self._folders.spill(attempt).unlink(missing_ok=True)
        for attempt in instruction.attempts:
            self._unwritten.pop(attempt, None)
        with contextlib.suppress(OSError):  # offered once more after a restart, and acknowledged once more
            self._outbox.forget(instruction.attempts)

    async def _sync(self) -> None:
        while True:
            await self._dirty.wait()
            with anyio.move_on_after(SYNC_S):
                await self._urgent.wait()
            self._dirty, self._urgent = anyio.Event(), anyio.Event()
            while self._unwritten:
                with contextlib.suppress(OSError):
                    self._outbox.append(self._unwritten.values())
                    self._unwritten.clear()
                    break
                await anyio.sleep(FULL_DISK_S)
            saved, self._unsaved = tuple(self._unsaved), []
            await anyio.to_thread.run_sync(self._outbox.sync)
            if saved:
                self.step(Saved(saved))

    def _store(self, instruction: Store) -> None:
        self._group.start_soon(self._store_until_confirmed, instruction)

    async def _store_until_confirmed(self, instruction: Store) -> None:
        path = self._folders.spill(instruction.attempt)
        failures = 0
        while path.is_file():
            try:
                with path.open("rb") as file:
                    await self._transfer.store(instruction.ref, file)
                self.step(Stored(instruction.attempt))
                return
            except (AsterismError, OSError):
                failures += 1
                await anyio.sleep(redial_s(failures, random.random()))

    def _answer(self, instruction: Answer) -> None:
        self._pool.answer(instruction.attempt, instruction.k, instruction.value, instruction.error)

    def _upload(self, instruction: Upload) -> None:
        self._wanted.append(instruction.stage)
        if not self._bundling:
            self._bundling = True
            self._group.start_soon(self._bundle)

    async def _bundle(self) -> None:
        """Whatever was wanted by now goes together; what is wanted meanwhile goes next."""
        while self._wanted:
            wanted, self._wanted = self._wanted, []
            large = await self._transfer.bundle(wanted, self._folders.run, lambda one: self.step(FileStaged(one)))
            for stage in large:
                self._group.start_soon(self._stage, stage)
        self._bundling = False

    async def _stage(self, stage: Stage) -> None:
        self.step(FileStaged(await self._transfer.stage(stage, self._folders.run)))

    def _adopt(self, instruction: Adopt) -> None:
        self._fresh = {}  # of another journal, perhaps, where the same attempt ids mean other work
        self._outbox.adopt(instruction.journal, instruction.epoch)
        self._folders.journal = instruction.journal

    def _start(self, instruction: Start) -> None:
        self._errands.start(instruction)

    def _kill(self, instruction: Kill) -> None:
        self._errands.kill(instruction)

    _do: Final[dict[type[Instruction], Callable[[Worker, Any], None]]] = {
        Send: _send,
        Start: _start,
        Kill: _kill,
        Append: _spool,
        Store: _store,
        Offer: _offer,
        Forget: _forget,
        Answer: _answer,
        Upload: _upload,
        Adopt: _adopt,
        HangUp: _hang_up,
        Leave: _go,
    }


def _refusal(leave: Leave) -> AsterismError:
    kind = VersionMismatch if leave.code == "VersionMismatch" else NotAllowed
    return kind(f"the server sent this worker away: {leave.reason or leave.code}")
