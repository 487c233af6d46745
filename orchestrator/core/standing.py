"""What a run's user has of the fleet, and which runs go first: for people. Reads, and makes nobody count."""

from __future__ import annotations

from typing import Final

from protocol.share_row import ShareRow

from .graph import Run
from .ledger import amounts_of
from .lifecycle import Open
from .round import ORDER
from .turn import Turn

_SHOWN: Final = 3


def standing(turn: Turn, run: Run) -> ShareRow:
    """The run's share, and whose turn it is while its own tasks wait."""
    fairness = turn.ledger.fairness
    fairness.measure(session.profile for session in turn.fleet.sessions.values())
    held = [0.0] * len(fairness.capacity)
    for session in turn.fleet.sessions.values():
        for key, load in session.loads.items():
            other = turn.state.runs.get(key[0])
            if other is not None and other.author == run.author and load.started:
                held = [had + one for had, one in zip(held, amounts_of(session, load), strict=True)]
    resource, holds = fairness.largest(held)
    lately = None
    if turn.ledger.counts and run.author in fairness.users:
        resource, lately = fairness.dominant(fairness.users[run.author], turn.now)
    ready, weight = _waiting(turn).get(run.ix, 0), fairness.weights.get(run.author, 1.0)
    first = turns_before(turn, run) if ready else ""
    return ShareRow(run.author, run.settings.sla, weight, resource, holds, lately, ready, first)


def turns_before(turn: Turn, run: Run) -> str:
    """Who goes first while this run waits, in words: "" if nobody does."""
    found = _first(turn, run, _waiting(turn))
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    goes = "goes" if len(found) == 1 else "go"
    return f"{', '.join(found[:_SHOWN])}{more} {goes} first"


def _waiting(turn: Turn) -> dict[int, int]:
    """Tasks in the queue by run, of those that may start tasks."""
    found: dict[int, int] = {}
    for bucket in turn.queue.buckets.values():
        for number, lane in bucket.lanes.items():
            run = turn.state.runs.get(number)
            if lane.heap and run is not None and type(run.state) is Open and not run.cancelled:
                found[number] = found.get(number, 0) + len(lane.heap)
    return found


def _first(turn: Turn, run: Run, waiting: dict[int, int]) -> list[str]:
    mine, found = _key(turn, run), []
    for number in waiting:
        other = turn.state.runs[number]
        theirs = _key(turn, other)
        if other is run or theirs >= mine:
            continue
        if theirs[0] < mine[0]:
            why: str = other.settings.sla
        elif theirs[1] < mine[1]:
            why = f"{other.author} has had less"
        else:
            why = f"priority {other.settings.priority}" if theirs[2] < mine[2] else "it has had less"
        found.append((theirs, f"{other.name} ({why})"))
    return [words for _, words in sorted(found)]


def _key(turn: Turn, run: Run) -> tuple[int, int, int, int]:
    """As core.round orders runs, but for the tasks at their heads."""
    ledger = turn.ledger
    users = runs = 0
    if ledger.counts and run.ix in ledger.fairness.runs:
        users, runs = ledger.step_of_user(run.author), ledger.step_of_run(run.ix)
    return ORDER[run.settings.sla], users, -run.settings.priority, runs
