"""The worker daemon: the shell around `machine` that dials, runs, spools and heartbeats.

Everything it decides the machine decided; here are only the effects. Invariants: a report is in the outbox before it
is on the stream; user code never runs in this process; the event loop never blocks, since heartbeats come from it.
"""

from __future__ import annotations

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

from devices.gpu import Gpu, find_gpus
from protocol.collector import tune
from protocol.errors import AsterismError, NotAllowed, VersionMismatch
from protocol.frame import FromWorker, Heartbeat, Item, Progress, Stage
from protocol.link import failures_after, redial_s
from protocol.outcome import Usage
from protocol.port import Channel, Dialled
from protocol.profile import WorkerProfile, ruling
from protocol.skill import SkillSpec

from .cache import Cache
from .cell import held_down
from .custody import Custody, offered
from .errand import Errands
from .folder import Folders
from .instruction import (
    Adopt,
    Answer,
    Append,
    Fetch,
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
from .report_desk import ReportDesk
from .root import Issued, Root, Roots
from .runner.inline import Find, InlineRunner
from .session import Session
from .setting import MachineSettings
from .shaping import Shape, ShapedStream
from .spawned import Spawned
from .standing import Standing
from .stimulus import (
    Broken,
    CardsLost,
    Connected,
    DrainRequested,
    Ended,
    FileStaged,
    Received,
    Result,
    Slept,
    Stimulus,
    Tick,
)
from .transfer import Transfer

CARDS_S: Final = 15.0
"""How often it looks whether its cards are still there; also after each failure on one."""
_NO_USAGE: Final = Usage()
_LEGAL: Final = re.compile(r"[^a-z0-9_.-]")

Describe = Callable[[tuple[SkillSpec, ...]], WorkerProfile]
Dial = Callable[[], Dialled]


class WorkerSettings(msgspec.Struct, frozen=True):
    """What `worker start` was told. `folder` is `ASTERISM_HOME/workers/NAME`."""

    name: str
    folder: Path
    custody: Custody
    skills: tuple[str, ...] = ()
    untrusted: tuple[str, ...] = ()
    roots: tuple[Root, ...] = ()
    slots: int = 1
    serves: str = ""
    shape: Shape = Shape()
    memory_bytes: int = 0
    drain_s: float = 30.0


def now() -> float:
    """Seconds that also pass while the machine sleeps, where the system can tell."""
    return time.clock_gettime(_CLOCK)


_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Worker:
    """One daemon. `run` returns after a clean leave, or raises the refusal that ended it.

    `dial` opens a channel to wherever the server is now, and `standing` hears what came of it; `describe` makes the
    profile from the skills that were loaded; `find` is the registry's own look-up, used for inline built-ins only;
    `cards` are this machine's GPUs.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        spawned: Spawned,
        dial: Dial,
        standing: Standing,
        describe: Describe,
        find: Find,
        cards: Gpu | None = None,
    ) -> None:
        self._settings = settings
        self._standing = standing
        self._dial = dial
        self._describe = describe
        folder = settings.folder
        self._folders = Folders(folder)
        home = (self._folders.root,)
        roots = Roots(settings.name, settings.roots, home)
        issued = Issued()
        self._cards = cards
        self._outbox = Outbox(folder / "outbox")
        self._cache = Cache(folder / "cache")
        self._transfer = Transfer(self._online, roots, issued, settings.shape, settings.custody.redactor)
        self._reports = ReportDesk(self._outbox, self._folders, self._transfer, self.step, self._put)
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
            settings.custody,
        )
        self._pool = Pool(spawned, setup, self._errands, settings.slots, settings.custody, settings.memory_bytes)
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
        self._wanted: list[Stage] = []
        self._bundling = False
        self._nudge = anyio.Event()
        self._wakes_at = float("inf")
        self._lag_s = 0.0
        self._ahead = now() - time.monotonic()
        """By how much our clock, which runs on while the machine sleeps, is ahead of the one that doesn't."""
        self._retry_after_s: float | None = None
        self._welcomed_at = float("inf")
        self._leave: Leave | None = None
        self._left = anyio.Event()

    async def run(self) -> None:
        refusal, meant = None, False
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                self._errands.open(group, self._pool)
                await group.start(self._pool.run)
                try:
                    await self._load()
                    tune()
                    group.start_soon(self._tick)
                    group.start_soon(self._watch_cards)
                    self._reports.open(group)
                    self.ready.set()
                    await self._dial_until_left()
                    meant = True
                except AsterismError as error:
                    refusal = error
                group.cancel_scope.cancel()
        finally:
            self._outbox.close()
        if refusal is not None:
            raise refusal
        if self._leave is not None and self._leave.code:
            raise _refusal(self._leave)
        if not meant:  # a task that was cancelled by nobody takes its whole group with it, and says nothing
            raise AsterismError("the worker stopped, and nobody had asked it to", hint="this is a bug; start it again")

    async def _load(self) -> None:
        described = await self._pool.describe()
        for source in self._settings.untrusted:
            found = await self._pool.describe(self._errands.cell_for(source), source)
            described = (*described, *held_down(found, {one.spec.name for one in described}, source))
        self._errands.async_skills = frozenset(one.spec.name for one in described if one.is_async)
        self._errands.sources = {one.spec.name: one.source for one in described if one.source}
        custody = self._settings.custody
        specs = offered((one.spec for one in described), custody)
        profile = self._describe(specs)
        profile = msgspec.structs.replace(profile, sandbox=custody.rules.reach(self._pool.held))
        self._pool.known = tuple(one for one in specs if ruling(profile.policies, one.name) != "deny")
        settings = MachineSettings(self._settings.name, secrets.token_hex(16), profile)
        self._machine = Machine(settings, self._outbox.spools())
        self._folders.journal = self._machine.spool.journal

    async def look_at_cards(self) -> None:
        """Tell the machine of cards that fell off the bus; a driver that hangs tells nothing."""
        cards = [card.uuid for card in self._cards.cards] if self._cards is not None else []
        with anyio.move_on_after(CARDS_S):
            there = {card.uuid for card in await anyio.to_thread.run_sync(find_gpus, abandon_on_cancel=True)}
            if gone := frozenset(at for at, uuid in enumerate(cards) if uuid and uuid not in there):
                self.step(CardsLost(gone))

    async def _watch_cards(self) -> None:
        while self._cards is not None and any(card.uuid for card in self._cards.cards):
            await anyio.sleep(CARDS_S)
            await self.look_at_cards()

    def drain(self, deadline_s: float | None = None) -> None:
        """Leave: no new work, finish or hand back by the deadline, flush, go."""
        self.step(DrainRequested(self._settings.drain_s if deadline_s is None else deadline_s))

    # The link

    async def _dial_until_left(self) -> None:
        failures, heard = 0, now()
        while self._leave is None and now() - heard <= self.alone_s:
            self._welcomed_at = float("inf")
            try:
                async with self._dial() as channel:
                    await self._converse(channel)
            except (NotAllowed, VersionMismatch):
                raise
            except (AsterismError, OSError) as error:
                self._standing.failed(error)
            self.step(Broken())
            failures = failures_after(failures, max(0.0, now() - self._welcomed_at))
            if not failures:
                heard = now()
            if self._leave is None:
                told_s = self._retry_after_s  # many were told the same: not all at once, and nobody earlier
                luck = random.random()
                delay = redial_s(failures, luck) if told_s is None else told_s * (1.0 + luck / 2)
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
        if self._machine.online:
            self._welcomed_at = min(self._welcomed_at, now())

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
            slept = now() - time.monotonic() - self._ahead
            if slept > 1.0:
                self._ahead += slept
                self.step(Slept(slept))
            if wake is not None and now() >= wake:
                self._lag_s = max(self._lag_s * 0.9, now() - wake)
                self._wakes_at = float("inf")
                self.step(Tick())

    def _send(self, instruction: Send) -> None:
        item = instruction.item
        if isinstance(item, Heartbeat):
            gained, lost = self._cache.changes()
            item = msgspec.structs.replace(
                item,
                loop_lag_s=round(self._lag_s, 4),
                load=os.getloadavg()[0],
                cached=gained,
                uncached=lost,
                moved=self._transfer.moved(),
            )
        self._put(item)

    def _put(self, item: FromWorker) -> None:
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

    # What the machine wants done

    def _spool(self, instruction: Append) -> None:
        self._reports.append(instruction)

    def _store(self, instruction: Store) -> None:
        self._reports.store(instruction)

    def _offer(self, instruction: Offer) -> None:
        self._reports.offer(instruction)

    def _forget(self, instruction: Forget) -> None:
        self._reports.forget(instruction)

    def _answer(self, instruction: Answer) -> None:
        self._errands.answer(instruction)

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
        self._reports.adopt(instruction.journal, instruction.epoch)
        self._folders.journal = instruction.journal
        self._standing.welcomed()

    def _start(self, instruction: Start) -> None:
        self._errands.start(instruction)

    def _fetch(self, instruction: Fetch) -> None:
        self._errands.fetch(instruction)

    def _kill(self, instruction: Kill) -> None:
        self._errands.kill(instruction)

    _do: Final[dict[type[Instruction], Callable[[Worker, Any], None]]] = {
        Send: _send,
        Start: _start,
        Fetch: _fetch,
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
    told = f"the server sent this worker away: {leave.reason or leave.code}"
    if leave.code == "VersionMismatch":
        return VersionMismatch(told, hint="install the asterism of the server on this machine, or the other way round")
    return NotAllowed(told)
