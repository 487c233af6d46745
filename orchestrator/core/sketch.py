"""A run that is not there: what a plan would become if it were submitted now.

Made by the same events as any other, in a state of its own, so that references, maps and order mean here what they
will mean there. Nothing of it is journaled, and nobody else sees it. Its number is 0, which no run has.
"""

from __future__ import annotations

from protocol.patch import Patch
from protocol.task import RunSettings, TaskSpec

from . import event as e
from .graph import Run
from .state import State


def sketch(
    tasks: tuple[TaskSpec, ...], settings: RunSettings, inputs: dict[str, bytes], home: str, now_s: float = 0.0
) -> Run:
    """The graph of tasks that were judged sound. Raises: KeyError for a reference to a task that is not there."""
    state = State()
    state.apply(e.RunSubmitted(0, "", "", "", settings, inputs, home, 0, {}, now_s))
    state.apply(e.PatchAccepted(0, 1, Patch("person:sketch", tasks), now_s))
    return state.runs[0]
