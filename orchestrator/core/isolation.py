"""Tasks that were there when daemons died, each sent to a worker that has nothing else (core.poison says which)."""

from __future__ import annotations

from .approval import ask_approval
from .eligibility import eligible, kind_of, policy_of
from .intake import file_worker
from .lifecycle import Open, Ready
from .poison import cell, release, suspect
from .sending import bind, send
from .trust import doubt
from .turn import Turn
from .urgency import urgency_s


def alone(turn: Turn) -> None:
    """Tasks that were there when daemons died, each on a worker that has nothing else."""
    for key in list(turn.suspects):
        run = turn.state.runs.get(key[0])
        task = run.tasks[key[1]] if run is not None else None
        if run is None or task is None or type(task.state) is not Ready or not suspect(turn, task):
            release(turn, key)
            continue
        spec = turn.contract(task)
        if type(run.state) is not Open or run.cancelled or spec is None or run.held(task.ix):
            release(turn, key)  # what brings it back queues it again
            continue
        turn.focus = run.ix
        kind = kind_of(turn.state, run, task, spec, file_worker(turn, run, task, spec))
        found = eligible(turn.state, turn.fleet, kind, spec)
        sessions = turn.fleet.sessions
        offered = [(sessions[worker], device, needs) for worker, device, needs in found]
        why = doubt(turn, run, task, spec)
        asks = task.spec.approve or why or turn.ruling(spec.name) == "ask"
        if asks or any(policy_of(one, spec) == "ask" for one, _, _ in offered):
            bound = bind(turn, run, task)
            if bound is None or bound.pin != task.approved:
                release(turn, key)
                if bound is not None:
                    ask_approval(turn, run, task, spec, why, bound)
                continue
        if not offered:
            release(turn, key)
            turn.queue.push(
                kind, spec, run, task, urgency_s(turn, run, task)
            )  # it waits for a worker as any other task does
            continue
        free = cell(turn, run, task, offered)
        if free is not None:
            session, device, needs = free
            del turn.suspects[key]
            why = f"alone: it was there when {task.deaths} daemons died"
            send(turn, run, task, session, spec, device, needs, why, False, None)
