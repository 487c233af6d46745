"""What a run prefers to time, once its deadline allows it: which policy chooses for a task of it.

A task must end so early that what hangs on it can end in time, as long as such tasks typically take.
"""

from __future__ import annotations

from typing import Final

from ..placement.fastest import Fastest
from ..placement.policy import Policy
from ..placement.thrift import SPARED, Thrift
from .foresight import foremost
from .graph import Run, Task
from .turn import Turn
from .urgency import below_s

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
    return Thrift(prefer, end - below_s(turn, run, task) - turn.now)
