"""What becomes of an attempt that a worker has and says so: kept, held, ended; unknown ones may be adopted.

After a crash a worker may hold attempts whose dispatch never reached the disk. Such a one is adopted iff it is what
would be dispatched now; while that can't be known it is on hold, and judged again at every heartbeat.
"""

from __future__ import annotations

from typing import Final

from protocol.frame import Held, Verdict

from . import event as e
from .eligibility import amounts
from .fleet import Key, Load, Session
from .graph import Attempt, Run, Task
from .lease import verdict
from .lifecycle import Waiting
from .turn import Turn

REFUSED_KEPT: Final = 20_000
HOLDS_KEPT: Final = 20_000
NUMBERS_PASSED: Final = 64
HELD_LEASES: Final = 2
"""So many leases an attempt on hold may run in a slot that the work it waits for may need itself."""
"""What is remembered of one worker's attempts; whoever invents more is refused unheard."""


def judged(turn: Turn, session: Session, held: Held) -> Verdict:
    """The verdict on one attempt; keep and resend put it on the session's books, hold on its list of holds."""
    found = verdict(turn.state, turn.binder, session.worker, held, turn.refused)
    ident = held.attempt
    key = (ident.run, ident.task, ident.number)
    refused = turn.refusals.get(session.worker, 0)
    if (found == "hold" and len(session.holds) >= HOLDS_KEPT) or (
        refused >= REFUSED_KEPT and found in ("hold", "keep", "resend") and not _known(turn, key)
    ):
        found = "drop" if held.digest else "kill"
    if found == "hold" and not held.digest and _in_the_way(turn, session, key):
        found = "kill"
    if found == "keep" and vanished(turn, session, key):
        found = "kill"
    if found != "hold":
        session.held_since.pop(key, None)
    if found in ("hold", "kill", "drop"):
        _pass_over(turn, key)
    if found == "hold":
        session.holds[key] = held
        turn.holds[ident.run, ident.task] = session.worker
    elif found in ("kill", "drop"):
        if refused < REFUSED_KEPT and (*key, held.fence) not in turn.refused:
            turn.refused.add((*key, held.fence))
            turn.refusals[session.worker] = refused + 1
        turn.count(f"verdict_{found}")
    else:
        run = turn.state.runs[ident.run]
        _keep(turn, session, run, run.tasks[ident.task], held)
    return found


def vanished(turn: Turn, session: Session, key: Key) -> bool:
    """Whether its worker no longer has what the attempt was given: a card fell off, the machine was cut down."""
    run = turn.state.runs.get(key[0])
    task = run.tasks[key[1]] if run is not None and 0 <= key[1] < len(run.tasks) else None
    attempt = task.attempt(key[2]) if task is not None else None
    return task is not None and attempt is not None and not session.could_hold(_needs(turn, task, attempt))


def _needs(turn: Turn, task: Task, attempt: Attempt) -> dict[str, float]:
    """What the attempt takes of its worker."""
    spec = turn.contract(task)
    variants = {one.device: one for one in reversed(spec.variants)} if spec is not None else {}
    variant = variants.get(attempt.device) or (spec.variants[0] if spec is not None else None)
    return amounts(task.spec.needs, variant) if variant is not None else {"cpu": 1.0}


def _in_the_way(turn: Turn, session: Session, key: Key) -> bool:
    """It runs where every slot is spoken for: what must be done again before it can be judged may wait for its slot."""
    since = session.held_since.setdefault(key, turn.now)
    return session.slots_free <= 0 and turn.now - since > HELD_LEASES * session.lease_s


def _pass_over(turn: Turn, key: Key) -> None:
    """A verdict names an attempt by its number: no new attempt of the task may get the number of one that is judged.

    An Assign may leave ahead of the commit that a verdict waits for, and the verdict would then be taken for one on it.
    """
    run = turn.state.runs.get(key[0])
    task = run.tasks[key[1]] if run is not None and 0 <= key[1] < len(run.tasks) else None
    if run is not None and task is not None and 0 <= key[2] - run.next_attempt(task) < NUMBERS_PASSED:
        turn.passed[key[:2]] = max(key[2], turn.passed.get(key[:2], 0))


def _known(turn: Turn, key: Key) -> bool:
    run = turn.state.runs.get(key[0])
    task = run.tasks[key[1]] if run is not None and 0 <= key[1] < len(run.tasks) else None
    return task is not None and task.attempt(key[2]) is not None


def _keep(turn: Turn, session: Session, run: Run, task: Task, held: Held) -> None:
    number = held.attempt.number
    spec = turn.contract(task)
    if task.attempt(number) is None:
        device = spec.variants[0].device if spec is not None else "cpu"
        turn.emit(
            e.AttemptDispatched(
                run.ix, task.ix, number, session.worker, held.fence, held.pin, device, task.skill,
                why="found at its worker after a restart", at=turn.now,
            )
        )  # fmt: skip
        turn.count("adopted")
    attempt = task.attempt(number)
    if attempt is not None and attempt.ended == "lost" and not held.digest:
        turn.emit(e.AttemptRegained(run.ix, task.ix, number, bool(task.live()), turn.now))
        turn.hedges.discard((run.ix, task.ix))
        turn.count("regained")
    if attempt is not None and attempt.live and (run.ix, task.ix, number) not in session.loads:
        book(turn, session, run, task, attempt)


def book(turn: Turn, session: Session, run: Run, task: Task, attempt: Attempt) -> None:
    """A live attempt that the session's worker has, on the session's books."""
    needs = _needs(turn, task, attempt)
    waits = isinstance(task.state, Waiting) and task.state.number == attempt.number and bool(needs.get("cpu"))
    load = Load(needs, attempt.fence, task.skill, attempt.device, attempt.at, False, delivered=True, paused=waits)
    session.take((run.ix, task.ix, attempt.number), load)


def adopted(turn: Turn, run: Run, task: Task) -> bool:
    """A task became ready whose attempt a worker has held since before a crash: it counts if its pin is right."""
    session = turn.fleet.sessions.get(turn.holds.pop((run.ix, task.ix), -1))
    if session is None:
        return False
    for key, held in list(session.holds.items()):
        if key[:2] == (run.ix, task.ix) and judged(turn, session, held) in ("keep", "resend"):
            return True
    return False
