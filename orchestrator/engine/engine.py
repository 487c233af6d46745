"""The imperative shell around the core: stimuli in, events to the journal, commands to the world. One per server.

A turn takes everything that has arrived, lets the machine handle each stimulus and then `Flush` once, appends all
events to the journal in one call, and performs the commands. What the machine owes only to later decisions it does in a
turn of its own once the loop has nothing else (`Lull`). Invariants: a command marked `after_commit`, a reply and
everything a watcher sees leave only once every event decided before them is on disk; commands leave in the order they
were decided, within each of the two classes. Nothing here decides anything about runs, and no path awaits per event.

If the machine raises, events may have been applied that were never recorded. Then nothing is decided until the state
was read again from the journal, as after a restart: who asked hears InternalError, frames count as lost on the wire.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from protocol.bell import Bell
from protocol.errors import AsterismError, from_wire
from protocol.frame import Ack, Assign, Bye, ToWorker

from ..core import command as c
from ..core import stimulus as s
from ..core.event import ApprovalAsked, Event, RunRemoved, RunSettled, TaskUnknown, TaskWaited
from ..core.machine import Machine
from ..instrument import Instrument
from ..journal.journal import Commit, Journal, LogLine
from ..journal.recovery import recover
from ..journal.snapshot import Snapshots
from .artifact_desk import ArtifactDesk, heavy
from .fault import LONGEST_PAUSE_S, Fault, Faults
from .forecast_desk import ForecastDesk
from .planner_desk import PlannerDesk
from .pressure import Pressure
from .question import Questions, stopped
from .recording import records_of
from .refusal import Refusals
from .watch import Watches

_FLUSH: Final = s.Flush()


class Gateway(Protocol):
    """What the engine needs of the worker streams."""

    def send(self, conn: int, item: ToWorker) -> None:
        """Queue for the next frame; never blocks, drops if the stream is gone."""

    def close(self, conn: int) -> None:
        """End the stream after what was sent."""


_TOLD: Final = frozenset((ApprovalAsked, RunSettled, TaskUnknown))
"""Of these a person hears once they are on disk, as of what a task asks."""


class _Pending(msgspec.Struct, gc=False):
    """A turn on its way to the disk."""

    first: int
    at: float
    events: list[Event]
    later: list[c.Command]
    logged: list[int]
    forget: list[int]


class Engine:
    """Construct, `begin` an epoch, then `run` in a task group. `post`, `ask` and `log` are for its own loop only.

    `seq` is the number of the last event in the journal; `snapshots` knows how long the tail is.
    """

    def __init__(
        self,
        machine: Machine,
        journal: Journal,
        clock: Callable[[], float],
        *,
        seq: int = 0,
        snapshots: Snapshots | None = None,
        instrument: Instrument | None = None,
        artifacts: ArtifactDesk | None = None,
        planners: PlannerDesk | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.machine = machine
        self.journal = journal
        self.clock = clock
        self.instrument = instrument or Instrument()
        self.watches = Watches(journal, seq)
        self.refusals = Refusals(self.post, clock, self.instrument)
        """Where everything that refuses a peer says so."""
        self.pressure = Pressure(self.post, self.instrument)
        self.forecasts = ForecastDesk(machine, clock, self.instrument.count)
        self.draw = draw
        self.seq = seq
        """The last event applied; those up to `watches.committed` are on disk."""
        self._snapshots = snapshots or Snapshots(journal, machine.state, {}, {})
        self._artifacts = artifacts
        self._planners = planners
        self._gateway: Gateway | None = None
        self._inbox: list[s.Stimulus] = []
        self._logs: list[LogLine] = []
        self._wake = Bell()
        self._pending: deque[_Pending] = deque()
        self._last = Commit()
        self._questions = Questions()
        self._error: BaseException | None = None
        self._faults = Faults()
        self._fault: Fault | None = None
        """The machine has raised: its state is not to be used before it was read again."""
        self._sound = anyio.Event()
        self._stopping = False
        self._jobs: list[tuple[Callable[..., Coroutine[Any, Any, None]], tuple[Any, ...]]] = []
        """To be started by `run`: a commit is told by a callback of the loop, where anyio has no task to start from."""
        self._alarm: float | None = None
        self._alarm_set = anyio.Event()
        self._perform: dict[type, Callable[[Any], None]] = {
            c.Send: self._send,
            c.Close: self._close,
            c.Reply: self._reply,
            c.Resolve: self._resolve,
            c.StartPlanner: self._start_planner,
            c.StopPlanner: self._stop_planner,
            c.Foresee: self._foresee,
            c.Count: self._count,
            c.Refuse: self._refuse,
            c.Keep: self._keep,
        }

    # the border

    def connect(self, gateway: Gateway) -> None:
        """Where Send and Close go; until then they are dropped, as to a stream that is gone."""
        self._gateway = gateway

    def post(self, stimulus: s.Stimulus) -> None:
        """Hand in what happened; handled on the next turn, in order."""
        self._inbox.append(stimulus)
        self._wake.ring()

    async def ask(self, make: Callable[[int], s.Stimulus], *, patient: bool = False) -> Any:
        """Post the stimulus that `make(reply)` builds and wait for its answer, which comes after the commit.

        Raises: the error it was refused with; Unavailable when the engine ends first, and at once while the disk is
        full (Overloaded while it is behind), unless the caller is `patient`.
        """
        if self._stopping or self._error is not None:
            raise stopped()
        if not patient:
            self.pressure.admit()
        return await self._questions.ask(lambda reply: self.post(make(reply)), patient)

    async def on_disk(self) -> None:
        """Return once everything decided so far is on disk. Raises: Unavailable when the journal ends first."""
        while self._fault is not None:
            await self._sound.wait()
        if self._pending:
            await self._last.wait()

    @property
    def forgetting(self) -> bool:
        """Whether a run was removed and that is not on disk yet: a crash would bring it back."""
        return any(turn.forget for turn in self._pending)

    def log(self, line: LogLine) -> None:
        """Keep a line of an attempt; written with the next group, never waited for."""
        if self.pressure.takes_line(len(self._logs)):
            self._logs.append(line)
            self._wake.ring()

    def disk_full(self, full: bool) -> None:
        """For the journal (journal.Health)."""
        self.pressure.disk_full(full)
        if full:
            self._questions.disk_full()

    def failed(self, error: AsterismError) -> None:
        """For the journal (journal.Health): nothing more can be promised."""
        self._error = error
        self._wake.ring()

    # life

    async def begin(self, epoch: int) -> None:
        """Start the epoch that recovery named and return when it is on disk; nothing was dispatched before."""
        self._inbox.insert(0, s.Started(epoch, self.journal.id))
        await self._turn().wait()
        while self._fault is not None:
            await self._take_back(self._fault)
            await self._last.wait()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Turn until `stop`. Raises: what ended it otherwise."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._ring)
                if self._artifacts is not None:
                    group.start_soon(self._artifacts.run)
                task_status.started()
                while not self._stopping:
                    await self._wake.wait()  # every stream hands in what it has in this turn: placement runs once
                    if self._error is not None:
                        raise self._error
                    if self._fault is not None:
                        await self._take_back(self._fault)
                    elif self._inbox or self._logs:
                        self._turn(s.Flush(brief=True))
                    elif self.machine.owes:
                        self._turn(s.Lull())
                    jobs, self._jobs = self._jobs, []
                    for work, args in jobs:
                        group.start_soon(work, *args)
                group.cancel_scope.cancel()
        finally:
            self._stopping = True
            self._questions.close()
            self.watches.close()

    async def stop(self) -> None:
        """Handle what is in the inbox, write a snapshot, and return when all of it is on disk."""
        if self._error is not None:
            return
        if self._fault is None:
            await self._turn().wait()
        self._stopping = True
        self._wake.ring()
        if self._fault is not None:
            return  # replay is right
        await self._snapshots.take(self.seq, self.clock()).wait()

    # a turn

    def _turn(self, last: s.Flush | s.Lull = _FLUSH) -> Commit:
        began = time.perf_counter()
        self.refusals.tell()
        inbox, self._inbox = self._inbox, []
        logs, self._logs = self._logs, []
        now = self.clock()
        events: list[Event] = []
        at_once: list[c.Command] = []
        later: list[c.Command] = []
        handle, draw = self.machine.handle, self.draw
        inbox.append(last)
        for place, stimulus in enumerate(inbox):
            try:
                decision = handle(stimulus, now, draw())
            except Exception as error:  # noqa: BLE001 a defect of ours, whichever: it is told, and costs no other run
                self._failed_on(stimulus, error, inbox[place + 1 : -1])
                break
            events += decision.events
            for command in decision.commands:
                (later if command.after_commit else at_once).append(command)
        for command in at_once:  # first: whoever gets work waits for it, and for none of the rest
            self._perform[type(command)](command)
        commit = self._append(events, now, logs, later)
        if self._fault is None and self._snapshots.due():
            self._snapshot(now)
        self._set_alarm(self.machine.next_wake())
        self._set_alarm(self.refusals.next_wake())
        if self.machine.owes:  # what is to be written now goes first: its writers were woken before
            self._wake.ring()
        took = time.perf_counter() - began
        stats = self.instrument.turn
        stats.turns += 1
        stats.stimuli += len(inbox)
        stats.events += len(events)
        stats.commands += len(at_once) + len(later)
        stats.busy_s += took
        stats.slowest_s = max(stats.slowest_s, took)
        return commit

    def _snapshot(self, now: float) -> None:
        if self._snapshots.apart:
            self._snapshots.begin()
            self._start(self._snapshots.write, self.seq, self.on_disk)
        else:
            self._snapshots.take(self.seq, now)

    def _failed_on(self, stimulus: s.Stimulus, error: Exception, rest: list[s.Stimulus]) -> None:
        """The machine has raised. Raises: the error, when that was on what should have mended it."""
        fault = self._faults.note(stimulus, error, self.machine.focus)
        if isinstance(stimulus, s.TakenBack) and not fault.run:
            raise error
        self._fault, self._sound = fault, anyio.Event()
        self.instrument.count("decision_failed")
        again = [stimulus] if isinstance(stimulus, s.Started | s.DiskState) else []
        self._inbox[:0] = [*again, *rest]
        self._wake.ring()
        self._questions.answer(getattr(stimulus, "reply", 0), error=fault.told())
        if fault.conn and self._gateway is not None:
            self._gateway.send(fault.conn, Bye(LONGEST_PAUSE_S, "the server failed to decide on this", "InternalError"))
            self._gateway.close(fault.conn)

    async def _take_back(self, fault: Fault) -> None:
        """Read the state again: everything that was decided before is in the journal, nothing of the failure is."""
        if self._pending:
            await self._last.wait()
        await anyio.sleep(fault.pause_s)
        found = await anyio.to_thread.run_sync(recover, self.journal)
        self._inbox.insert(
            0,
            s.TakenBack(found.state, fault.reference, fault.stimulus, fault.error, fault.run, fault.aside, fault.conn),
        )
        self._fault = None
        self._turn()
        self._sound.set()

    def _append(self, events: list[Event], at: float, logs: list[LogLine], later: list[c.Command]) -> Commit:
        if events or logs:
            first = self.seq + 1
            self.seq += len(events)
            records = records_of(events, first, at)
            end = self.seq + 1
            for record in reversed(records):
                self._snapshots.note(record.run, end - record.seq)
                end = record.seq
            kinds = set(map(type, events))
            forget = [event.run for event in events if type(event) is RunRemoved] if RunRemoved in kinds else []
            logged = list({line.run for line in logs})
            self._pending.append(_Pending(first, at, events, later, logged, forget))
            self.pressure.appended(len(events))
            pressing = (
                not events
                or any(type(command) is not c.Send or type(command.item) is not Ack for command in later)
                or not kinds.isdisjoint(_TOLD)
                or (TaskWaited in kinds and any(type(one) is TaskWaited and one.what == "ask" for one in events))
            )
            self._last = self.journal.append(records, logs, self._committed, pressing=pressing, forget=forget)
            return self._last
        if self._pending:
            self._pending[-1].later.extend(later)
        else:
            for command in later:
                self._perform[type(command)](command)
        commit = Commit()
        commit.settle()
        return commit

    def _committed(self) -> None:
        """The oldest pending turn is on disk."""
        turn = self._pending.popleft()
        self.pressure.committed(len(turn.events))
        self.watches.committed_to(turn.first, turn.at, turn.events, turn.logged)
        for command in turn.later:
            self._perform[type(command)](command)

    # commands

    def _send(self, command: c.Send) -> None:
        if self._gateway is None:
            return
        item = command.item
        if self._artifacts is not None and (
            (type(item) is Assign and heavy(item)) or self._artifacts.holds(command.conn)
        ):
            self._artifacts.send_light(command.conn, item, self._gateway.send)
        else:
            self._gateway.send(command.conn, item)

    def _close(self, command: c.Close) -> None:
        if self._gateway is not None:
            self._gateway.close(command.conn)

    def _reply(self, command: c.Reply) -> None:
        error = from_wire(command.error) if command.error is not None else None
        self._questions.answer(command.reply, command.value, error)

    def _resolve(self, command: c.Resolve) -> None:
        if self._artifacts is None:
            missing = s.Resolved(command.run, command.task, command.key, found=False, error="no artifact store")
            self.post(missing)
        else:
            self._start(self._artifacts.resolve, command, self.post)

    def _start_planner(self, command: c.StartPlanner) -> None:
        if self._planners is None:
            why = "this server has no planner"
            self.post(s.PlanFinished(command.run, command.call, "failed", why))
        else:
            self._start(self._planners.plan, command, self.machine.state, self.post)

    def _start(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._jobs.append((work, args))
        self._wake.ring()

    def _foresee(self, command: c.Foresee) -> None:
        self._start(self.forecasts.foresee, command, self.post)

    def _stop_planner(self, command: c.StopPlanner) -> None:
        if self._planners is not None:
            self._planners.stop(command.run, command.call)

    def _count(self, command: c.Count) -> None:
        self.instrument.count(command.name)

    def _refuse(self, command: c.Refuse) -> None:
        self.refusals.refused(command.source, command.code, command.message, command.run, command.task)

    def _keep(self, command: c.Keep) -> None:
        self.journal.keep(command.outcomes, self.clock())

    # timers

    def _set_alarm(self, at: float | None) -> None:
        if at is not None and (self._alarm is None or at < self._alarm):
            self._alarm = at
            self._alarm_set.set()

    async def _ring(self) -> None:
        """Post a Tick when the machine wants one. Only an earlier alarm disturbs the wait; a later one is found after
        the Tick."""
        while True:
            while self._alarm is None:  # the event may be left from an alarm that was set as the last one rang
                self._alarm_set = anyio.Event()
                await self._alarm_set.wait()
            self._alarm_set = anyio.Event()
            with anyio.move_on_after(max(0.0, self._alarm - self.clock())):
                await self._alarm_set.wait()
                continue
            self._alarm = None
            self.post(s.Tick())
