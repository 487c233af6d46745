"""Asking a person whether a task may run: for the very work, inputs and all, that would be sent."""

from __future__ import annotations

from protocol.skill import SkillSpec

from . import event as e
from .binding import Bound
from .graph import Run, Task
from .settlement import fail
from .trust import asked, shown
from .turn import Turn


def ask_approval(turn: Turn, run: Run, task: Task, spec: SkillSpec, doubts: str, bound: Bound) -> None:
    """Ask a person for this very work; `doubts`: what the rules of trust have against it."""
    if doubts and turn.settings.untrusted == "deny":
        fail(turn, run, task, "PolicyDenied", f"this server's policy lets nobody be asked: {doubts}")
        return
    why = doubts or asked(turn, task, spec) or f"{spec.name} asks before it runs"
    if filled := shown(turn, task, spec, bound):
        why += f" ({filled})"
    deadline = turn.now + turn.settings.approval_s
    turn.emit(e.ApprovalAsked(run.ix, task.ix, bound.pin, why, deadline))
    turn.wake(deadline, "approval", run.ix, task.ix)
