"""Why a task is where it is: waiting for what, refused by whom for which reason, placed by which estimate."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocol.builtin_model import MODEL_SKILLS, NO_MODEL_FIX
from protocol.errors import NotFound

from ..placement.policy import WAIT
from .eligibility import could_return, eligible, kind_of, matches, refusal, where
from .graph import Run, Task
from .lifecycle import AwaitingApproval, Paused, Pending, Ready, Running, Settled, Unknown, Waiting, shown
from .offering import choice
from .queue import Kind
from .settlement import budget_of
from .standing import turns_before
from .subplan import standing
from .trust import barred
from .turn import Turn

ALIKE: Final = "no device with room was better"
"""The reason of a placement that has none of its own."""
_ARGS: Final = 1000
_SHORT: Final = {"DiskFull": "disk full", "OutboxFull": "too many reports wait for an acknowledgement"}
"""Why a worker that is there announces no free slot."""


def explain(turn: Turn, number: int, name: str) -> dict[str, Any]:
    """A plain record: state, why, waits_for, workers with their reasons, attempts with theirs. Raises: NotFound."""
    run = turn.state.runs.get(number)
    task = run.find(name) if run is not None else None
    if run is None or task is None:
        raise NotFound(f"there is no task r{number}/{name}", hint=f"see asterism tasks r{number}")
    return {
        "run": run.name,
        "task": run.name_of(task),
        "skill": task.skill,
        "state": shown(task.state),
        "why": _why(turn, run, task),
        "budget": _budget(turn, run) if len(task.attempts) > 1 else "",
        "waits_for": [run.name_of(run.tasks[ix]) for ix in _open_upstreams(turn, run, task)],
        "workers": _workers(turn, run, task) if type(task.state) in (Pending, Ready) else [],
        "attempts": [
            {
                "number": attempt.number,
                "worker": turn.state.workers[attempt.worker].name,
                "device": attempt.device,
                "state": attempt.ended or "running",
                "why": attempt.why or ALIKE,
                "hedge": attempt.hedge,
                "code": attempt.code,
                "message": attempt.message,
            }
            for attempt in task.attempts
        ],
    }


def _budget(turn: Turn, run: Run) -> str:
    """What the run has used of what it may do again."""
    spend = run.spend
    over = [budget_of(turn, run, what) for what in ("retries", "losses")]
    used = f"the run had {spend.retries} retries and {spend.losses} losses, {spend.successes} tasks succeeded"
    return "; ".join(filter(None, (used, *over)))


def _open_upstreams(turn: Turn, run: Run, task: Task) -> list[int]:
    if type(task.state) is not Pending:
        return []
    if task.parent >= 0:
        return [ix for ix in turn.state.elements(run, task) if not run.tasks[ix].final]
    wiring = task.wiring
    chained = (ix for ix in wiring.chain if not (run.tasks[ix].final or run.tasks[ix].spread))
    return [*sorted(ix for ix in wiring.upstreams() if not run.tasks[ix].final), *chained]


def _kind(turn: Turn, run: Run, task: Task) -> Kind | None:
    spec = turn.contract(task)
    return kind_of(turn.state, run, task, spec, "") if spec is not None else None


def waiting_for(turn: Turn, run: Run, task: Task) -> str:
    """One line on a ready task: the worker or the resource it waits for."""
    if turn.disk_full:
        return "the disk of the server is full or far behind: nothing is started"
    spec, kind = turn.contract(task), _kind(turn, run, task)
    if spec is None or kind is None:
        return f"nobody offers {task.skill}"
    if run.aside:
        return f"{run.name} was set aside after a failure of the server ({run.aside}); asterism resume {run.name}"
    if type(run.state) is Paused:
        return f"{run.name} is paused; asterism resume {run.name}"
    if run.held(task.ix):
        return "held by a re-plan"
    if task.ix in turn.dry.get(run.ix, ()):
        return f"the budget is used up but for what is lent to others ({run.spend.spent(run.settings.budget)})"
    if barred(run, task, spec):
        return "waiting until the plan is whole: it acts once, and more of the plan is to come"
    state = task.state
    if isinstance(state, Ready) and state.not_before > turn.now:
        return f"retry in {state.not_before - turn.now:.1f} s after {state.why}"
    found = eligible(turn.state, turn.fleet, kind, spec)
    if found:
        sessions = [turn.fleet.sessions[worker] for worker in sorted({worker for worker, _, _ in found})]
        if all(session.phase == "full" for session in sessions):
            why = ", ".join(
                sorted({f"{session.name} ({_SHORT.get(session.short, session.short)})" for session in sessions})
            )
            return f"waiting for room on {why}, which takes no new work"
        first = turns_before(turn, run)
        free = f"waiting for a free slot on {', '.join(sorted(session.name for session in sessions))}"
        free = _prefers(turn, run, task, kind) or free
        return f"{free}; {first}" if first else free
    away = could_return(turn.state, turn.fleet, kind, spec)
    if away:
        return f"waiting for {' or '.join(record.name for record in away)}, which is away"
    if kind.on == ("here",) and not kind.home:
        return f"{task.skill} runs `here` by default and this run has no `here`; give it an on, or run.home"
    fix = f"; fix: {NO_MODEL_FIX}" if task.skill in MODEL_SKILLS else ""
    return f"no worker can run it: NoEligibleWorker after {run.settings.schedule_grace_s:g} s{fix}"


def _prefers(turn: Turn, run: Run, task: Task, kind: Kind) -> str:
    """The busy device that a ready task waits for although another one has room: "" where it isn't so."""
    bucket, sessions = turn.queue.buckets.get(kind), turn.fleet.sessions
    plan = turn.plans.get(run.ix)
    where = plan.sites.get(task.ix) if plan is not None else None
    if where is not None and where[0] in sessions and not task.attempts:
        return f"waiting for its turn on {sessions[where[0]].name}, where the plan of {run.name} has it"
    if bucket is None or bucket.roster.era != turn.fleet.changes:
        return ""
    _, offers, chosen = choice(turn, run, task, bucket, None, bucket.roster.asking, 0)
    ends = sorted((max(one.start_s, one.transfer_s) + one.run_s, n) for n, one in enumerate(offers))
    other = next(((end, offers[n]) for end, n in ends if offers[n].room), None)
    if chosen != WAIT or other is None or offers[ends[0][1]].room:
        return ""
    best, room = sessions[offers[ends[0][1]].worker].name, sessions[other[1].worker].name
    return f"waiting for {best}, which ends it in {ends[0][0]:.3g} s; {room} has room and would take {other[0]:.3g} s"


def _why(turn: Turn, run: Run, task: Task) -> str:
    state = task.state
    if isinstance(state, Ready):
        return waiting_for(turn, run, task)
    if isinstance(state, Settled):
        return f"{state.code}: {state.message}" if state.code else state.message
    if isinstance(state, AwaitingApproval):
        return f"{state.why}; it runs {task.skill} with {_shown_args(task)}; asterism approve {turn.name(run, task)}"
    if isinstance(state, Unknown):
        return (
            f"its effect began in attempt {state.number}, and what became of it is unknown; "
            f"asterism resolve {turn.name(run, task)} --succeeded VALUE, --retry or --fail"
        )
    if isinstance(state, Waiting):
        return standing(run, task) or f"in {state.what}: {state.detail}"
    if type(state) is Pending:
        names = [run.name_of(run.tasks[ix]) for ix in _open_upstreams(turn, run, task)]
        return f"waiting for {', '.join(names[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if type(state) is Running and (gone := _workers_away(turn, task)):
        wait = waiting_for(turn, run, task)
        return wait if "away" in wait else f"given to {' and '.join(gone)}, which is away; {wait}"
    winner = task.winner()
    return winner.why or ALIKE if winner is not None else ""


def _shown_args(task: Task) -> str:
    """The arguments as written, for whoever has to allow them: a child's stand in no plan that could be looked at."""
    args = msgspec.json.decode(task.spec.args)
    plain = args["literal"] if isinstance(args, dict) and set(args) == {"literal"} else args
    text = msgspec.json.encode(plain).decode()
    return text if len(text) <= _ARGS else f"{text[:_ARGS]} ... ({len(text)} characters)"


def _workers_away(turn: Turn, task: Task) -> list[str]:
    """The workers of its live attempts, if none of them is connected."""
    held = [attempt.worker for attempt in task.live()]
    if any(worker in turn.fleet.sessions for worker in held):
        return []
    return [turn.state.workers[worker].name for worker in held]


def _workers(turn: Turn, run: Run, task: Task) -> list[dict[str, str]]:
    spec, kind = turn.contract(task), _kind(turn, run, task)
    if spec is None or kind is None:
        return []
    found = []
    for session in sorted(turn.fleet.sessions.values(), key=lambda one: one.name):
        why = refusal(turn.state, session, kind, spec)
        if not why and not any(matches(session, kind, word) for word in kind.on):
            why = f"is not {where(turn.state, kind)}"
        if not why and session.phase != "up":
            short = _SHORT.get(session.short, session.short)
            why = f"takes no new work: {short}" if short else f"is {session.phase}"
        if not why and session.sick:
            tried = "is tried with one task at a time" if session.probing else "gets only what nobody else may do"
            why = f"is in quarantine and {tried}: {session.sick}"
        found.append({"worker": session.name, "verdict": "refused" if why else "eligible", "why": why})
    away = {record.ix for record in could_return(turn.state, turn.fleet, kind, spec)}
    for record in turn.state.workers.values():
        if record.ix not in turn.fleet.sessions and not record.gone and not record.serves:
            verdict = "away" if record.ix in away else "refused"
            found.append({"worker": record.name, "verdict": verdict, "why": "is away"})
    return found
