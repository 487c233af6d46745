"""What is expected of a run is kept with it, to be held against what comes true.

Asked for once, when the run's first plan is complete and its work is long enough to be placement's rather than the
runtime's own. Nothing waits for it: the answer comes when it comes. Under `auto` it says which policy ended first in
the futures that were played, and the run is placed by that one from then on.
"""

from __future__ import annotations

from typing import Final

from . import command as c
from . import event as e
from . import stimulus as s
from .graph import Run
from .turn import Turn

MOST_TASKS: Final = 1_000
MOST_WORK: Final = 100_000
"""Tasks times sessions: what looking ahead may cost the loop."""
LEAST_WORK_S: Final = 0.5


def foresee(turn: Turn, run: Run) -> None:
    """The first plan is complete: have its course foretold, if that is worth it."""
    count = len(run.tasks)
    if not 0 < count <= min(MOST_TASKS, MOST_WORK // max(1, len(turn.fleet.sessions))) or run.expected is not None:
        return
    measured, work_s = turn.predictor.measured, 0.0
    for task in run.tasks:
        work_s += measured(task.skill) or 0.0
    if work_s >= LEAST_WORK_S:
        turn.command(c.Foresee(run.ix))


def foremost(turn: Turn, run: Run) -> str:
    """The policy that the run is expected to end first with; "" while nobody knows, or somebody else has decided."""
    return run.expected.policy if run.expected is not None and turn.settings.placement == "auto" else ""


def foreseen(turn: Turn, item: s.Foreseen) -> None:
    """The answer; of a run that is gone, or has one, it means nothing."""
    run = turn.state.runs.get(item.run)
    if run is None or run.expected is not None or run.aside:
        turn.count("stale_forecast")
        return
    late = 0 < run.settings.deadline_s < item.low_s
    turn.emit(
        e.RunForeseen(
            run.ix, item.policy, item.makespan_s, item.low_s, item.high_s, item.price, item.energy_j, turn.now, late
        )
    )
