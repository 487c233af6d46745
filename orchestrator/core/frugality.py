"""What a run prefers to time, once its deadline allows it: which policy chooses for a task of it.

A task must end so early that what hangs on it can end in time, as long as such tasks typically take. That is counted
once for a graph, and again when the graph has grown; runs that prefer nothing pay nothing.
"""

from __future__ import annotations

from typing import Final

from ..placement.fastest import Fastest
from ..placement.policy import Policy
from ..placement.thrift import SPARED, Thrift
from .foresight import foremost
from .graph import Run, Task
from .turn import Turn

_EVER: Final = float("inf")
_FASTEST: Final = Fastest()


def policy_for(turn: Turn, run: Run, task: Task) -> Policy:
    """The server's, or the run's own, or what was foretold to be best for it."""
    prefer = run.settings.prefer
    if prefer == "time":
        return _FASTEST if run.expected is not None and foremost(turn, run) == "fastest" else turn.policy
    if not run.settings.deadline_s:
        return Thrift(prefer, _EVER)
    end = run.submitted_at + SPARED * run.settings.deadline_s
    return Thrift(prefer, end - _below_s(turn, run, task) - turn.now)


def _below_s(turn: Turn, run: Run, task: Task) -> float:
    """Seconds that what hangs on the task takes at least, one after the other."""
    count, below = turn.below.get(run.ix, (0, []))
    if count != len(run.tasks):
        below = [0.0] * len(run.tasks)
        typical = turn.predictor.measured
        for ix in sorted(range(len(run.tasks)), key=run.order.__getitem__, reverse=True):
            after = run.tasks[ix]
            path = below[ix] + (typical(after.skill) or 0.0)
            wiring = after.wiring
            for up in (*wiring.upstreams(), *wiring.chain):
                if below[up] < path:
                    below[up] = path
        turn.below[run.ix] = len(run.tasks), below
    return below[task.ix]
