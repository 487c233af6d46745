"""How urgent a ready task is: the seconds from its start until all that hangs on it has ended, if everything takes what
its skill typically does.

Counted once for a graph and again when it has grown by an eighth, so that one that grows task by task costs a few times
what it would have cost at once. What was never measured takes as long as a hop: a graph of such tasks is ordered by
hops. Of a large graph only the hops are counted, each as long as the task itself. Not durable.
"""

from __future__ import annotations

from typing import Final

from .graph import Run, Task
from .turn import Turn

HOP_S: Final = 0.001
"""What lies between the end of a task and the start of the next."""
MOST: Final = 2_000
"""Tasks of a graph that is walked: some milliseconds of the loop."""
_GROWN: Final = 8


def urgency_s(turn: Turn, run: Run, task: Task) -> float:
    """See the module: the larger goes first."""
    own_s = (turn.predictor.measured(task.skill) or 0.0) + HOP_S
    if len(run.tasks) > MOST:
        return (run.rank[task.ix] + 1.0) * own_s
    return below_s(turn, run, task) + own_s


def below_s(turn: Turn, run: Run, task: Task) -> float:
    """Seconds that what hangs on the task typically takes, one after the other."""
    count, below = turn.below.get(run.ix, (0, []))
    if not count or len(run.tasks) - count > count // _GROWN:
        below = [0.0] * len(run.tasks)
        typical = turn.predictor.measured
        for ix in sorted(range(len(run.tasks)), key=run.order.__getitem__, reverse=True):
            after = run.tasks[ix]
            path = below[ix] + (typical(after.skill) or 0.0) + HOP_S
            wiring = after.wiring
            for up in (*wiring.upstreams(), *wiring.chain):
                if below[up] < path:
                    below[up] = path
        turn.below[run.ix] = len(run.tasks), below
    return below[task.ix] if task.ix < len(below) else 0.0
