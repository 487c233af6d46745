"""Standing mutants: each takes one rule of the link or of durability out of the real code, while it is applied.

A simulation that does not notice one of them proves nothing about that rule. Nothing in production knows of them: a
mutant replaces a function of a module or a class and puts it back. `seed` is the first schedule that kills it, found
by `make mutants` and kept so that the tests need only that one; any other change of the real code may shift it, so the
first 200 stand behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from orchestrator.core import dispatch, edit, lease, machine, reconcile, state, straggler
from orchestrator.core.binding import Binder
from orchestrator.core.lifecycle import Ready, Running
from orchestrator.core.state import State
from orchestrator.core.turn import Turn
from protocol.frame import Ack, Assign, HeartbeatAck, Report, WorkSpec
from protocol.ids import Fence
from workers import instruction as do
from workers.machine import Machine as WorkerMachine

from .simulation import Outcome, simulate_seed

SEEDS: Final = 200
_SPEC: Final = msgspec.json.Decoder(WorkSpec)


class Mutant(msgspec.Struct, frozen=True):
    """One rule less: `owner.name` becomes what `make` makes of it."""

    title: str
    owner: Any
    name: str
    make: Callable[[Any], Any]
    seed: int

    def seeds(self) -> Iterator[int]:
        """The schedules it must fall in, the likeliest first."""
        yield self.seed
        yield from range(SEEDS)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The rule is gone meanwhile."""
        real = self.owner.__dict__[self.name]
        setattr(self.owner, self.name, self.make(real))
        try:
            yield
        finally:
            setattr(self.owner, self.name, real)


def killed(mutant: Mutant, seeds: Iterable[int]) -> Outcome | None:
    """The first of these schedules that notices it, and what it noticed."""
    with mutant.applied():
        return next((outcome for outcome in map(simulate_seed, seeds) if outcome.error), None)


def _by_task_id(admissible: Any) -> Any:
    def mutant(worker: int, task: Any, attempt: Any, report: Any, effect: str) -> Any:
        if attempt is not None:
            report = msgspec.structs.replace(report, fence=attempt.fence, pin=attempt.pin)
        return admissible(worker, task, attempt, report, effect)

    return mutant


def _unchecked_sender(admissible: Any) -> Any:
    def mutant(worker: int, task: Any, attempt: Any, report: Any, effect: str) -> Any:
        return admissible(attempt.worker if attempt is not None else worker, task, attempt, report, effect)

    return mutant


def _volatile_fence(fence: Any) -> Any:
    return lambda turn: Fence(1, fence(turn).counter)


def _early_ack(send: Any) -> Any:
    def mutant(turn: Turn, session: Any, item: Any, *, after_commit: bool = False) -> None:
        send(turn, session, item, after_commit=after_commit and not isinstance(item, Ack))

    return mutant


def _early_once(send: Any) -> Any:
    def mutant(turn: Turn, session: Any, item: Any, *, after_commit: bool = False) -> None:
        once = isinstance(item, Assign) and _SPEC.decode(item.spec).effect == "once"
        send(turn, session, item, after_commit=after_commit and not once)

    return mutant


def _no_inventory(heartbeat: Any) -> Any:
    def mutant(turn: Turn, session: Any, beat: Any) -> None:
        turn.send(session, HeartbeatAck(beat.at))

    return mutant


def _adopts_anything(adoptable: Any) -> Any:
    def mutant(state: Any, binder: Any, run: Any, task: Any, held: Any, goon: Any, stop: Any) -> Any:
        found = adoptable(state, binder, run, task, held, goon, stop)
        return goon if found == stop and type(task.state) is Ready else found

    return mutant


def _pin_without_spec(pin: Any) -> Any:
    def mutant(task: Any, *rest: Any) -> Any:
        bare = msgspec.structs.replace(task, spec=msgspec.structs.replace(task.spec, args=b""))
        return pin.__func__(bare, *rest)

    return staticmethod(mutant)


def _patch_alone(upstreams: Any) -> Any:
    def mutant(run: Any, patch: Any) -> Any:
        names = {spec.id for spec in patch.tasks}
        return {name: ups & names for name, ups in upstreams(run, patch).items() if name in names}

    return mutant


def _cleared_outbox(handle: Any) -> Any:
    def mutant(self: WorkerMachine, stimulus: Any, now: float) -> Any:
        out = handle(self, stimulus, now)
        sent = [one.item.attempt for one in out if isinstance(one, do.Send) and isinstance(one.item, Report)]
        sent += [attempt for one in out if isinstance(one, do.Offer) for attempt in one.attempts]
        self._delivery.forget(tuple(sent), out)
        return out

    return mutant


def _hasty_recovery(start: Any) -> Any:
    def mutant(self: Any, turn: Turn, item: Any) -> None:
        start(self, turn, item)
        for worker in turn.fleet.away:
            turn.fleet.away[worker] = turn.now
            turn.wake(turn.now, "lease", worker)

    return mutant


def _forgetful_snapshot(part: Any) -> Any:
    def mutant(self: State, number: int) -> Any:
        made, self.runs_made = self.runs_made, self.runs_made if number else 0
        try:
            return part(self, number)
        finally:
            self.runs_made = made

    return mutant


def _any_session(received: Any) -> Any:
    def mutant(turn: Turn, conn: int, worker: int, items: Any, delivered: Any) -> None:
        session = turn.fleet.sessions.get(worker)
        received(turn, session.conn if session is not None else conn, worker, items, delivered)

    return mutant


def _copies_anything(real: Any) -> Any:
    def mutant(turn: Turn, run: Any, task: Any, spec: Any) -> bool:
        return type(task.state) is Running and len(task.live()) == 1 and not task.cancelling

    return mutant


MUTANTS: Final = (
    Mutant("accept by task id", reconcile, "admissible", _by_task_id, 13),
    Mutant("attempt counter not durable", Turn, "fence", _volatile_fence, 1),
    Mutant("ack before commit", Turn, "send", _early_ack, 0),
    Mutant("once dispatched before commit", Turn, "send", _early_once, 0),
    Mutant("no inventory", reconcile, "_heartbeat", _no_inventory, 0),
    Mutant("orphan adopted without its pin", lease, "adoptable", _adopts_anything, 18),
    Mutant("pin without the spec", Binder, "_pin", _pin_without_spec, 18),
    Mutant("no base check on patches", edit, "conflicts", lambda real: lambda run, patch: [], 21),
    Mutant("patch touches a dispatched task", edit, "editable", lambda real: lambda task: not task.final, 6),
    Mutant("cycle check only inside the patch", edit, "_upstreams", _patch_alone, 6),
    Mutant("outbox cleared on send", WorkerMachine, "handle", _cleared_outbox, 0),
    Mutant("recovery redispatches before the lease", machine.Machine, "_start", _hasty_recovery, 3),
    Mutant("sender not checked", reconcile, "admissible", _unchecked_sender, 19),
    Mutant("snapshot misses a counter", State, "part", _forgetful_snapshot, 0),
    Mutant("old session's frames accepted", machine, "received", _any_session, 97),
    Mutant("once before the plan is whole", dispatch, "barred", lambda real: lambda *_: False, 58),
    Mutant("once of a plan that is not whole", dispatch, "doubt", lambda real: lambda *_: "", 58),
    Mutant("stragglers copied whatever they do", straggler, "may_double", _copies_anything, 76),
    Mutant("every patch widens the envelope", state, "origins_of", lambda real: lambda *_: lambda name: 0, 74),
)
