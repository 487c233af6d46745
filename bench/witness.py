"""What a simulation must never see, checked without the core's own bookkeeping.

No accepted result is lost or applied twice; no effect happens twice without somebody's word; nothing is acknowledged
before it is on disk; only who was given an attempt may end it; a fence is given once. It watches stimuli, commands,
committed events and what happens at the workers; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from orchestrator.core import command as c
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.state import State
from protocol.frame import Ack, Assign, Report, Return, Welcome, WorkSpec
from protocol.ids import AttemptId, Fence
from protocol.outcome import Success

from .ledger import Key, Ledger
from .simulated_disk import SimulatedDisk

TaskKey = tuple[int, int]
"""(run, task)"""
LEASE_S: Final = 5.0
_DERIVED: Final = frozenset(("fresh", "due", "changed", "live"))
_ENCODER: Final = msgspec.msgpack.Encoder()
_SPEC: Final = msgspec.json.Decoder(WorkSpec)


class Witness:
    """Raises AssertionError with what must not be. `executions`: committed dispatches by task; `effects`: how often
    the effect of a task really happened."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.executions: dict[TaskKey, int] = {}
        self.effects: dict[TaskKey, int] = {}
        self._given: dict[Fence, tuple[AttemptId, int]] = {}
        self._highest = Fence(0, 0)
        self._reports: dict[tuple[AttemptId, Fence], list[tuple[int, Any]]] = {}
        self._current: dict[int, int] = {}
        """Worker -> its stream."""
        self._joined: set[int] = set()
        self._dismissed: set[int] = set()
        self._started = 0.0
        self._once: dict[bytes, bool] = {}

    # The journal

    def decided(self, events: Sequence[Any], now: float) -> None:
        """These are on disk now."""
        for event in events:
            self.ledger.note(event)
            if isinstance(event, e.AttemptDispatched):
                key = (event.run, event.task)
                self.executions[key] = self.executions.get(key, 0) + 1
            elif isinstance(event, e.EffectBegun):
                self.effects.setdefault((event.run, event.task), 0)
            elif isinstance(event, e.AttemptEnded) and isinstance(event.outcome, Success):
                self._earned(event)

    def _earned(self, event: e.AttemptEnded) -> None:
        """An accepted result is one that the attempt's own worker reported under its fence."""
        record = self.ledger.attempts[event.run, event.task, event.number]
        ident = AttemptId(event.run, event.task, event.number)
        made = self._reports.get((ident, record.fence), ())
        assert (record.worker, event.outcome) in made, (
            f"{ident} ended with {event.outcome}, which worker {record.worker} never reported under {record.fence}"
        )

    def recovered(self, state: State) -> None:
        """What the journal told the ledger is what the recovered state holds."""
        for number, run in self.ledger.runs.items():
            found = state.runs.get(number)
            assert found is not None, f"r{number} is lost"
            for ix, task in enumerate(run.tasks):
                if task.settled == "succeeded":
                    assert found.tasks[ix].succeeded, f"the result of r{number}/{task.name} is lost"

    def same(self, state: State, other: State, what: str) -> None:
        """Both states are equal in every part that a State has, whoever wrote or read them."""
        one, two = picture(state), picture(other)
        unlike = [part for part in {**one, **two} if one.get(part) != two.get(part)]
        assert not unlike, f"replay differs from {what} in {', '.join(map(str, unlike))}"

    # The orchestrator

    def started(self, now: float) -> None:
        """A life of the orchestrator begins."""
        self._started = now
        self._joined.clear()
        self._current.clear()

    def crashed(self) -> None:
        """It ends."""
        self._current.clear()

    def handled(self, stimulus: Any, decision: c.Decision, now: float) -> None:
        """Before anything of the decision has left."""
        if isinstance(stimulus, s.WorkerSent):
            self._heard(stimulus, decision)
        elif isinstance(stimulus, s.WorkerDismissed):
            self._dismissed.add(stimulus.worker)
        for command in decision.commands:
            if isinstance(command, c.Send) and isinstance(command.item, Welcome):
                assert isinstance(stimulus, s.WorkerJoined)
                self._current[stimulus.worker] = stimulus.conn
                self._joined.add(stimulus.worker)
            elif isinstance(command, c.Close):
                self._current = {worker: conn for worker, conn in self._current.items() if conn != command.conn}
        if isinstance(stimulus, s.WorkerGone) and self._current.get(stimulus.worker) == stimulus.conn:
            del self._current[stimulus.worker]
        for event in decision.events:
            if isinstance(event, e.AttemptDispatched):
                if event.fence not in self._given:
                    assert event.fence > self._highest, f"fence {event.fence} was given after {self._highest}"
                    self._highest = event.fence
                    self._given[event.fence] = (AttemptId(event.run, event.task, event.number), event.worker)
            elif isinstance(event, e.AttemptEnded) and event.lost:
                self._lost(event, now)

    def _heard(self, stimulus: s.WorkerSent, decision: c.Decision) -> None:
        if self._current.get(stimulus.worker) == stimulus.conn:
            return
        spoke = [command for command in decision.commands if not isinstance(command, c.Count)]
        about = [event for event in decision.events if isinstance(event, e.AttemptEnded | e.AttemptDispatched)]
        assert not spoke, f"a frame of a stream that is over was answered: {stimulus.items} with {spoke}"
        assert not about, f"a frame of a stream that is over counted: {stimulus.items} made {about}"

    def _lost(self, event: e.AttemptEnded, now: float) -> None:
        record = self.ledger.attempts.get((event.run, event.task, event.number))
        if record is None or record.worker in self._joined or record.worker in self._dismissed:
            return
        assert now - self._started >= LEASE_S - 1e-6, (
            f"{event} is called lost {now - self._started:.2f} s after the start; its worker has {LEASE_S:g} s"
        )

    def performing(self, command: Any, disk: SimulatedDisk | None) -> None:
        """It leaves now: with the commit that it had to wait for, or (`disk`) without waiting for what is there."""
        item = command.item if isinstance(command, c.Send) else None
        if disk is not None and isinstance(item or command, c.Reply | c.StartPlanner | Ack | Return):
            early = next(disk.unwritten, None)
            assert early is None, f"{item or command} left before {early.events if early else ''} was on disk"
        if isinstance(item, Assign):
            self._assigned(item)

    def _assigned(self, item: Assign) -> None:
        ident, _ = self._given.setdefault(item.fence, (item.attempt, 0))
        assert ident == item.attempt, f"{item.fence} was given to {ident} and to {item.attempt}"
        once = self._once.get(item.spec)
        if once is None:
            once = self._once[item.spec] = _SPEC.decode(item.spec).effect == "once"
        if once:
            key = (item.attempt.run, item.attempt.task, item.attempt.number)
            assert key in self.ledger.attempts, f"{item.name} may act once, and left before its dispatch was on disk"

    # The workers

    def reported(self, worker: int, report: Report) -> None:
        """The worker has written this result down."""
        made = self._reports.setdefault((report.attempt, report.fence), [])
        if (worker, report.outcome) not in made:
            made.append((worker, report.outcome))

    def forgot(self, worker: int, attempt: AttemptId, fence: Fence) -> None:
        """The worker was told that nobody needs its report any more: then the journal has its end, or its task's."""
        record = self.ledger.attempts.get((attempt.run, attempt.task, attempt.number))
        if record is None or record.fence != fence or record.worker != worker or record.ended:
            return
        task = self.ledger.runs[attempt.run].tasks[attempt.task]
        assert task.settled or task.cancelled, (
            f"worker {worker} forgot the report of {task.name}#{attempt.number}, which nobody else has"
        )

    def began_effect(self, assign: Assign) -> None:
        """The attempt acts: its effect is in the world."""
        ident = assign.attempt
        key: Key = (ident.run, ident.task, ident.number)
        record = self.ledger.attempts.get(key)
        assert record is not None and record.began, f"{assign.name} acts, and the journal does not know"  # noqa: PT018
        task = self.ledger.runs[ident.run].tasks[ident.task]
        task.began += 1
        self.effects[key[:2]] = self.effects.get(key[:2], 0) + 1
        assert task.began <= task.allowed, f"the effect of {task.name} happened {task.began} times, nobody asked for it"


def picture(state: State) -> dict[object, bytes]:
    """Every part of a state, encoded by nobody's rules but these: what a part is follows from what a State has."""
    found: dict[object, bytes] = {}
    for name, value in vars(state).items():
        if name == "runs":
            found |= {f"r{number}": _ENCODER.encode(run) for number, run in value.items()}
        elif name not in _DERIVED and not name.startswith("_"):
            found[name] = _ENCODER.encode(value)
    found["live"] = _ENCODER.encode(sorted(key for held in state.live.values() for key in held))
    return found
