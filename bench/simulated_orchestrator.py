"""The orchestrator of a simulated world: the real core between a simulated disk and a simulated gateway.

It does what `orchestrator.engine` does, turn by turn, on virtual time: events to the disk, commands that need not
wait at once, the others when everything decided before them is on disk. It dies where it is told to, between any two
effects, and comes back from what its disk holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.machine import Machine
from orchestrator.core.setting import CoreSettings
from orchestrator.core.state import State
from protocol.frame import Bye
from protocol.pointer import MISSING, descend

from .fault import Faults
from .simulated_disk import Append, SimulatedDisk
from .simulated_gateway import LINGER_S, SimulatedGateway
from .simulated_network import SimulatedNetwork
from .simulated_time import SimulatedTime
from .witness import Witness

JOURNAL = "5eed" * 8


class SimulatedOrchestrator(SimulatedTime):
    """See the module. `check`: the machine's invariants after every record; `replay`: replay equals live, too."""

    foretells: tuple[str, ...] = ("heft", "eft", "fastest")
    """Which policy is said to be best for a run, in turns."""

    def __init__(
        self, seed: int, faults: Faults, settings: CoreSettings, fsync_s: float, check: bool, replay: bool
    ) -> None:
        super().__init__(seed)
        self.faults, self.settings = faults, settings
        self.fsync_s, self.check, self.replay = fsync_s, check, replay
        self.log: list[Any] = []
        """(time, stimulus, decision) in order: what transcripts print."""
        self.history = hashlib.blake2b(digest_size=16)
        self.witness = Witness()
        self.replies: dict[int, c.Reply] = {}
        self.planner_calls: list[c.StartPlanner] = []
        self.artifacts: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        self.hits: dict[str, int] = {}
        """What of the faults has met something."""
        self.decisions = self.performed = self.restarts = self.aheads = 0
        self.started_at = float("inf")
        self.up = True
        self._slips: dict[int, int] = {}
        self.written = SimulatedDisk()
        self.network = SimulatedNetwork(self)
        self.gateway: SimulatedGateway
        self.machine: Machine
        self._flushing = False
        self._tick_at = float("inf")
        self._life = 0
        self._boot()

    @property
    def state(self) -> State:
        return self.machine.state

    @property
    def disk(self) -> list[bytes]:
        """The records that are on disk."""
        return self.written.records

    @property
    def durable(self) -> bool:
        """Whether everything decided is on disk."""
        return not self.written.waiting

    @property
    def chaos(self) -> bool:
        """Whether frames may be harmed now."""
        return self.started_at <= self.now < self.started_at + self.faults.until_s

    def hit(self, fault: str) -> None:
        self.hits[fault] = self.hits.get(fault, 0) + 1

    def note(self, *what: object) -> None:
        """Part of the history that a seed repeats byte for byte."""
        self.history.update(repr((self.now, what)).encode())

    # Life

    def _boot(self) -> None:
        disk = self.written
        if disk.full:  # no epoch without room for it
            self.at(self.now + 0.5, self._boot)
            return
        state = disk.replay()
        other = disk.restore()
        if other is not None:
            self.witness.same(state, other, "a snapshot with its tail")
            if self.luck.random() < 0.5:
                state = other
                self.hit("started from a snapshot")
        self.witness.recovered(state)
        self.machine = machine = Machine(state, self.settings)
        self.up = True
        self._life += 1
        self._slips.clear()
        self._flushing, self._tick_at = False, float("inf")
        self.gateway = SimulatedGateway(self.network, self.handle, self._at_here, lambda: self.now, self._linger)
        decision = machine.handle(s.Started(state.epoch + 1, JOURNAL), self.now, self.luck.random())
        disk.waiting.append(Append(decision.events, ()))  # an epoch is durable before any dispatch
        disk.begin()
        self._told(disk.end())
        self.witness.ledger.policies = self.settings.policies
        self.witness.started(self.now)
        self._carry_out(decision.commands)
        self._schedule()

    def crash(self, away_s: float | None = None) -> None:
        """The orchestrator dies: what was not committed is gone, all streams break; it is back after `away_s`."""
        if not self.up:
            return
        if self.replay:
            self.prove_replay()
        self.restarts += 1
        self._life += 1
        self.up = False
        self.note("crash")
        self._told(self.written.crash(self.luck, torn=self.faults.torn))
        self.gateway.die()
        self.witness.crashed()
        self.at(self.now + (self.faults.away_s if away_s is None else away_s), self._boot)

    def _linger(self) -> float:
        return self.luck.uniform(0.0, LINGER_S) if self.chaos and self.luck.random() < 0.5 else 0.0

    def _owned(self, act: Callable[[], None]) -> Callable[[], None]:
        """An action of this life of the orchestrator: it dies with it."""
        life = self._life

        def only() -> None:
            if self._life == life:
                act()

        return only

    def _at_here(self, when: float, act: Callable[[], None]) -> None:
        self.at(when, self._owned(act))

    # A turn

    def handle(self, stimulus: s.Stimulus) -> None:
        """One stimulus through the machine: its events to the disk, its commands to where they go."""
        if not self.up:
            return
        decision = self.machine.handle(stimulus, self.now, self.luck.random())
        self.decisions += 1
        if self.decisions in self.faults.slips and self._slipped(stimulus):
            return
        self.log.append((self.now, stimulus, decision))
        self.witness.handled(stimulus, decision, self.now)
        if self.check and decision.events:
            self.machine.check()
        late = tuple(command for command in decision.commands if command.after_commit)
        at_once: list[Any] = [command for command in decision.commands if not command.after_commit]
        if decision.events:
            append = Append(decision.events, late)
            self.history.update(append.body)
            self.written.waiting.append(append)
        elif self.written.waiting:
            self.written.waiting[-1].later += late
        else:
            at_once += late
        self.note(type(stimulus).__name__, len(decision.commands))
        started = self.started_at <= self.now
        if started and self.decisions in self.faults.snapshots:
            self._snapshot()
        crashing = started and self.decisions in self.faults.crashes
        if crashing and self.luck.random() < 0.5:
            self.crash()
            return
        self._write()
        self._carry_out(at_once)
        if crashing:
            self.crash()
        if self.up:
            self._schedule()

    def _slipped(self, stimulus: s.Stimulus) -> bool:
        """As if the core had raised instead: nothing of the decision is told to anybody, and it is taken back as
        orchestrator.engine does it."""
        if not self.chaos or isinstance(stimulus, s.TakenBack | s.DiskState):
            return False
        self.hit("decision that failed")
        run, conn = self.machine.focus, 0
        if isinstance(stimulus, s.WorkerJoined | s.WorkerGone):
            conn = stimulus.conn
            self.gateway.send(conn, Bye(1.0, "simulated", "InternalError"))
            self.gateway.close(conn)
        self._slips[run] = self._slips.get(run, 0) + 1
        state, kind = self.written.replay(unwritten=True), type(stimulus).__name__
        self.handle(s.TakenBack(state, f"slip{self.decisions}", kind, "simulated", run, self._slips[run] > 1, conn))
        return True

    def _schedule(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._at_here(self.now, self._flush)
        self._set_alarm()

    def _set_alarm(self) -> None:
        wake = self.machine.next_wake()
        if wake is not None and wake < self._tick_at:
            self._tick_at = max(wake, self.now)
            self._at_here(self._tick_at, self._tick)

    def _flush(self) -> None:
        self.handle(s.Flush(brief=True))
        if self.up and self.machine.owes and self.luck.random() < 0.5:  # else the loop has something else to do
            self.handle(s.Lull())
        self._flushing = False

    def _tick(self) -> None:
        wake = self.machine.next_wake()
        self._tick_at = float("inf")
        if wake is not None and wake <= self.now:
            self.handle(s.Tick())
        if self.up:
            self._set_alarm()

    # The disk

    def _snapshot(self) -> None:
        """As orchestrator.journal.snapshot: the changed parts, as of what was appended before."""
        state = self.state
        changed, state.changed = state.changed, set()
        parts = {part: state.part(part) for part in sorted(changed | {0}) if part == 0 or part in state.runs}
        self.written.waiting.append(Append((), (), parts))
        self.hit("snapshot")

    def _write(self) -> None:
        """Begin the next group, if none is on its way."""
        if self.written.begin() and self._effect():
            at = max(self.now + self.fsync_s, self.written.stalled_until)
            self._at_here(at, self._committed)

    def _committed(self) -> None:
        if not self._effect():
            return
        done = self.written.end()
        self._told(done)
        for one in done:
            self._carry_out(one.later, written=True)
            if not self.up:
                return
        self._write()

    def _told(self, done: list[Append]) -> None:
        for one in done:
            if one.events:
                self.witness.decided(one.events, self.now)

    def disk_trouble(self, length_s: float, what: str) -> None:
        """The disk is slow, or has no room, for a while."""
        self.hit(f"disk {what}")
        if what == "stall":
            self.written.stalled_until = self.now + length_s
            return
        self.written.full = True
        self.handle(s.DiskState(True))

        self.at(self.now + length_s, self.disk_room)

    def disk_room(self) -> None:
        """The disk is well again."""
        self.written.stalled_until = 0.0
        if self.written.full:
            self.written.full = False
            self.handle(s.DiskState(False))
            if self.up:
                self._write()

    # Effects

    def _effect(self) -> bool:
        """One more thing done to the world; False when the orchestrator has died before it."""
        self.performed += 1
        if self.performed in self.faults.effects and self.started_at <= self.now:
            self.hit("crash at an effect")
            self.crash()
            return False
        return True

    def _carry_out(self, commands: Sequence[Any], written: bool = False) -> None:
        for command in commands:
            if not self._effect():
                return
            self.witness.performing(command, None if written else self.written)
            if isinstance(command, c.Send):
                self.gateway.send(command.conn, command.item)
            elif isinstance(command, c.Close):
                self.gateway.close(command.conn)
            elif isinstance(command, c.Reply):
                self.replies[command.reply] = command
            elif isinstance(command, c.StartPlanner):
                self.planner_calls.append(command)
                self.planned(command)
            elif isinstance(command, c.Resolve):
                self._resolve(command)
            elif isinstance(command, c.Foresee):
                answer = s.Foreseen(command.run, self.foretells[command.run % len(self.foretells)], 2.0, 1.0, 3.0)
                self._at_here(self.now + 0.002, lambda answer=answer: self.handle(answer))  # type: ignore[misc]
            elif isinstance(command, c.Count):
                self.counts[command.name] = self.counts.get(command.name, 0) + 1

    def planned(self, command: c.StartPlanner) -> None:
        """A planner is called; nobody answers unless a simulation says who."""

    def _resolve(self, command: c.Resolve) -> None:
        value = descend(self.artifacts[command.ref.digest], command.pointer)
        found = value is not MISSING
        if found and command.what == "length":
            value = len(value) if isinstance(value, list) else -1
        answer = s.Resolved(
            command.run, command.task, command.key, msgspec.json.encode(value if found else None), found
        )
        self._at_here(self.now + 0.001, lambda: self.handle(answer))

    # Proofs

    def prove_replay(self) -> None:
        """G5: replaying the journal, with what waits for the disk, gives the live state byte for byte; so does a
        snapshot restored. Raises: AssertionError naming the part that differs."""
        state = self.written.replay(unwritten=True)
        self.witness.same(state, self.state, "the live state")
        self.witness.same(State.restore(self.state.snapshot()), self.state, "a restored snapshot")
