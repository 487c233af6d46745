"""A simulated worker: the real worker machine in a shell of virtual time, as `workers.worker` is one of real time.

Real: `workers.machine` with its spool, agenda and capacity, and the link table. Simulated: the daemon around it, its
disk, its clock (of its own, so that nothing may compare it with another), and the hosts in which skills run. A daemon
that is killed comes back with what is on its disk; one that is frozen does everything later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final, Protocol

from protocol.artifact import ArtifactRef
from protocol.frame import Assign, Frame, FromWorker, Heartbeat, Item, Report, Staged
from protocol.ids import AttemptId
from protocol.link import Fault, failures_after, redial_s
from protocol.outcome import Usage
from protocol.profile import WorkerProfile
from workers import instruction as do
from workers import stimulus as on
from workers.attempt import Live
from workers.machine import Machine
from workers.setting import MachineSettings

from .simulated_host import SimulatedHosts
from .simulated_network import SimulatedNetwork, SimulatedStream
from .simulated_outbox import SimulatedOutbox
from .simulated_skill import SIMULATED_SKILLS as SIMULATED_SKILLS
from .simulated_skill import Program
from .simulated_skill import SimulatedCallRefused as SimulatedCallRefused
from .simulated_skill import SimulatedJob as SimulatedJob
from .simulated_skill import profile_of as profile_of

SYNC_S: Final = 0.03
FSYNC_S: Final = 0.004
EXIT_S: Final = 0.001
_NO_USAGE: Final = Usage()


class World(Protocol):
    """What a simulated worker needs of the simulator: time, luck, a network, programs to run, and who watches."""

    now: float
    luck: Random
    program: Mapping[str, Program]
    artifacts: dict[str, Any]
    network: SimulatedNetwork

    def at(self, when: float, act: Callable[[], Any]) -> None: ...
    def dial(self, worker: SimulatedWorker) -> SimulatedStream | None: ...
    def is_element(self, attempt: AttemptId) -> bool: ...
    def assigned(self, assign: Assign) -> None: ...
    def began_effect(self, assign: Assign) -> None: ...
    def reported(self, worker: SimulatedWorker, report: Report) -> None: ...
    def forgot(self, worker: SimulatedWorker, attempt: AttemptId) -> None: ...


class SimulatedWorker:
    """See the module. `hears` may be replaced: what it says False to is lost on the last inch."""

    machine: Machine

    def __init__(self, world: World, ident: int, name: str, profile: WorkerProfile) -> None:
        self.world, self.ident, self.name, self.profile = world, ident, name, profile
        self.line = ident - 1
        self.up = False
        self.boot = 0
        self.stream: SimulatedStream | None = None
        self.outbox = SimulatedOutbox()
        self.hears: Callable[[Item], bool] = lambda item: True
        self.stubborn_s = 0.0
        """How long a program that is told to stop takes to die, at most the grace it is given."""
        self._clock_at = world.luck.uniform(0.0, 5000.0)
        self._frozen = False
        self._late: list[Callable[[], None]] = []

    @property
    def live(self) -> dict[AttemptId, Live]:
        """What it runs or has queued."""
        return self.machine.attempts

    @property
    def welcomed(self) -> bool:
        return self.up and self.machine.online

    @property
    def mute(self) -> bool:
        """Frozen: nothing of the daemon moves until it is thawed."""
        return self._frozen

    @mute.setter
    def mute(self, frozen: bool) -> None:
        self._frozen = frozen
        late, self._late = self._late, []
        for act in late:
            self.world.at(self.world.now, act)

    def clock(self) -> float:
        return self.world.now + self._clock_at

    # The daemon's life

    def start(self) -> None:
        """The daemon starts: a new boot id, what its disk holds, nothing live."""
        self.up, self.boot = True, self.boot + 1
        self._frozen, self._late = False, []
        self._hosts = SimulatedHosts(self)
        self._stimuli: deque[on.Stimulus] = deque()
        self._stepping = self._syncing = self._writing = False
        self._unsaved: list[AttemptId] = []
        self._wakes_at = float("inf")
        self._failures, self._dialled_at, self._retry_s = 0, 0.0, -1.0
        self._ready: deque[Frame] = deque()
        settings = MachineSettings(self.name, f"{self.name}.{self.boot}", self.profile)
        self.machine = Machine(settings, self.outbox.spools())
        self._dial()

    def lose_line(self) -> None:
        """Its end of the stream breaks and it dials again; the orchestrator learns of it only by pings, and what was
        said last may arrive after what is said on the next stream."""
        stream = self.stream
        if stream is not None:
            held = (*self.live, *self.machine.spool.entries)
            if self.welcomed and stream.client.put(Heartbeat(self.clock(), held)) is None:
                while (frame := stream.client.cut()) is not None:
                    self.world.network.transmit(stream, True, frame, late=True)
            self._hang_up(silently=True)
            self._dial_again()

    def kill(self, away_s: float, boot: bool = True, *, power: bool = False) -> None:
        """Its daemon dies and is back after `away_s` with another boot id; or only its stream breaks.

        `power`: the machine with it, so nobody says goodbye and the unsynced tail of its disk may be gone.
        """
        if not self.up:
            return
        world = self.world
        if not boot:
            if self.stream is not None:
                world.network.break_stream(self.stream)
            return
        self.up = False
        self._hang_up(silently=power)
        self._hosts.close()
        self.outbox.lose_memory()
        if power:
            self.outbox.lose_power(world.luck)
        world.at(world.now + away_s, lambda: None if self.up else self.start())

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Something this daemon will do: not if it has died, and later if it is frozen then."""
        boot = self.boot

        def due() -> None:
            if self.up and self.boot == boot:
                if self._frozen:
                    self._late.append(due)
                else:
                    act()

        self.world.at(self.world.now + delay_s, due)

    # The link, as workers.worker and workers.session have it

    def _dial(self) -> None:
        if self.stream is not None:
            return
        stream = self.world.dial(self)
        if stream is None:
            self._failures += 1
            self._dial_again()
            return
        self.stream, self._dialled_at = stream, self.clock()
        self._ready.clear()
        self.step(on.Connected())

    def _dial_again(self) -> None:
        delay = self._retry_s if self._retry_s >= 0 else redial_s(self._failures, self.world.luck.random())
        self._retry_s = -1.0
        self.later(delay, self._dial)

    def ended(self, stream: SimulatedStream) -> None:
        """The stream is gone (network.Wire)."""
        self.later(0.0, lambda: self._broken(stream))

    def _broken(self, stream: SimulatedStream) -> None:
        if self.stream is not stream:
            return
        self.stream = None
        self._failures = failures_after(self._failures, self.clock() - self._dialled_at)
        self.step(on.Broken())
        self._dial_again()

    def heard(self, stream: SimulatedStream, frame: Frame) -> None:
        """A frame has come (network.Wire)."""
        self.later(0.0, lambda: self._take(stream, frame))

    def _take(self, stream: SimulatedStream, frame: Frame) -> None:
        if self.stream is not stream:
            return
        taken = stream.client.take(frame)
        if isinstance(taken, Fault):
            self._hang_up()
            self._dial_again()
            return
        items = tuple(item for item in taken.items if self.hears(item))
        if items:
            self.step(on.Received(items))  # type: ignore[arg-type]
            for item in items:
                if isinstance(item, Assign):
                    self.world.assigned(item)

    def _put(self, item: FromWorker) -> None:
        stream = self.stream
        if stream is None or stream.client.put(item) is not None:
            return
        if isinstance(item, Heartbeat):  # what it says of the inventory is true of the frames seen up to now
            while (frame := stream.client.cut()) is not None:
                self._ready.append(frame)
        if not self._writing:
            self._writing = True
            self.later(0.0, self._write)

    def _write(self) -> None:
        self._writing = False
        stream = self.stream
        if stream is None:
            return
        while (frame := self._ready.popleft() if self._ready else stream.client.cut()) is not None:
            self.world.network.transmit(stream, True, frame)

    def _hang_up(self, *, silently: bool = False) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            self.world.network.close(stream, False, silently=silently)
            if self.up:
                self.step(on.Broken())

    def say(self, item: FromWorker) -> None:
        """Say something that the machine has not decided: a worker that is not what it should be."""
        if self.welcomed:
            self._put(item)

    # The machine's loop

    def step(self, stimulus: on.Stimulus) -> None:
        """Hand it to the machine and do what that says, and whatever it leads to."""
        self._stimuli.append(stimulus)
        if self._stepping:
            return
        self._stepping = True
        while self._stimuli and self.up:
            for instruction in self.machine.handle(self._stimuli.popleft(), self.clock()):
                self._do[type(instruction)](self, instruction)
        self._stepping = False
        wake = self.machine.next_wake()
        if wake is not None and wake < self._wakes_at:
            self._wakes_at = wake
            self.later(max(0.0, wake - self.clock()), self._tick)

    def _tick(self) -> None:
        wake = self.machine.next_wake()
        self._wakes_at = float("inf")
        if wake is not None and wake <= self.clock() + 1e-9:
            self.step(on.Tick())
        elif wake is not None:
            self._wakes_at = wake
            self.later(max(0.0, wake - self.clock()), self._tick)

    def drain(self, deadline_s: float) -> None:
        """It is told to leave, here."""
        if self.up:
            self.step(on.DrainRequested(deadline_s))

    def _send(self, instruction: do.Send) -> None:
        item = instruction.item
        if isinstance(item, Report):
            self.world.reported(self, item)
        self._put(item)

    def fill_disk(self) -> None:
        """Nothing more can be written; the daemon finds out when it tries."""
        self.outbox.full = True

    def empty_disk(self) -> None:
        """There is room again."""
        if self.outbox.full:
            self.outbox.room()
            if self.up:
                self.later(0.0, lambda: self.step(on.DiskFilled(False)))

    def _append(self, instruction: do.Append) -> None:
        self.outbox.append(instruction.reports)
        for report in instruction.reports:
            self.world.reported(self, report)
        if self.outbox.full:
            self.step(on.DiskFilled(True))
        if instruction.durable:
            self._unsaved += [report.attempt for report in instruction.reports]
        if not self._syncing or instruction.durable:
            self._syncing = True
            self.later(0.0 if instruction.durable else SYNC_S, self._sync)

    def _sync(self) -> None:
        if self.outbox.full:
            self.later(1.0, self._sync)
            return
        mark = self.outbox.mark
        saved, self._unsaved = tuple(self._unsaved), []

        def done() -> None:
            self._syncing = False
            self.outbox.synced(min(mark, self.outbox.mark))
            if saved:
                self.step(on.Saved(saved))

        self.later(FSYNC_S, done)

    def _offer(self, instruction: do.Offer) -> None:
        for attempt in instruction.attempts:
            report = self.outbox.read(attempt)
            if report is not None:
                self._put(report)

    def _forget(self, instruction: do.Forget) -> None:
        for attempt in instruction.attempts:
            self.world.forgot(self, attempt)
        self.outbox.forget(instruction.attempts)

    def _store(self, instruction: do.Store) -> None:
        self.later(0.002, lambda: self.step(on.Stored(instruction.attempt)))

    def _upload(self, instruction: do.Upload) -> None:
        stage = instruction.stage
        found = self.world.artifacts.get(stage.uri)
        ref = found if isinstance(found, ArtifactRef) else None
        self.later(
            0.002, lambda: self.step(on.FileStaged(Staged(stage.run, stage.uri, ref, "" if ref else "NotFound")))
        )

    def _adopt(self, instruction: do.Adopt) -> None:
        self.outbox.adopt(instruction.journal, instruction.epoch)

    def _retry(self, instruction: do.HangUp) -> None:
        self._retry_s = instruction.retry_after_s
        self._hang_up()
        self._dial_again()

    def _leave(self, instruction: do.Leave) -> None:
        self._write()
        self.up = False
        self._hang_up()

    # Hosts

    def _start(self, instruction: do.Start) -> None:
        self._hosts.start(instruction, self.world.is_element(instruction.assign.attempt))

    def _fetch(self, instruction: do.Fetch) -> None:
        """Artifacts are everywhere here."""

    def _answer(self, instruction: do.Answer) -> None:
        self._hosts.answer(instruction)

    def _kill(self, instruction: do.Kill) -> None:
        self._hosts.kill(instruction)

    _do: Final[dict[type[do.Instruction], Callable[[SimulatedWorker, Any], None]]] = {
        do.Send: _send,
        do.Append: _append,
        do.Offer: _offer,
        do.Forget: _forget,
        do.Store: _store,
        do.Upload: _upload,
        do.Adopt: _adopt,
        do.HangUp: _retry,
        do.Leave: _leave,
        do.Start: _start,
        do.Fetch: _fetch,
        do.Kill: _kill,
        do.Answer: _answer,
    }

    def story(self) -> str:
        """How it stands, in a line."""
        live = {f"{a.run}/{a.task}#{a.number}": one.phase for a, one in self.live.items()} if self.boot else {}
        owes = [f"{a.run}/{a.task}#{a.number}" for a in self.outbox.kept.get(self.outbox.journal, ())]
        words = [
            "up" if self.up else "down",
            "frozen" if self._frozen else "",
            "connected" if self.stream is not None else "",
            "welcomed" if self.welcomed else "",
        ]
        return f"{self.name} {' '.join(filter(None, words))} boot={self.boot} runs={live} owes={owes}"
