"""The life of a task, an attempt and a run, as literal tables: `(state, decided fact) -> state`.

States carry their data. A pair that is not in a table is an `InvalidTransition`: facts are decided by the machine
before they are emitted, so an impossible one is a defect, never input. The diagrams in docs/reference are generated
from these tables. This module knows events only by type.
"""

from __future__ import annotations

from typing import Final

import msgspec

from . import event as e
from .event import SettledState


class InvalidTransition(Exception):
    """A fact that does not fit the state it met; the text carries the task's story."""


class _State(msgspec.Struct, frozen=True, tag=True, gc=False, array_like=True):
    pass


class Pending(_State, frozen=True):
    """Upstreams are not final, or the condition is not judged yet."""


class Ready(_State, frozen=True):
    """May be dispatched from `not_before` on. `approved`: a person allowed it for the pin in the approval."""

    not_before: float = 0.0
    avoid: int = -1
    approved: bool = False
    why: str = ""


class AwaitingApproval(_State, frozen=True):
    """Asked with `pin`; the answer counts only for that pin."""

    pin: bytes
    why: str
    deadline: float


class Running(_State, frozen=True):
    """At least one attempt is live, or was lost and may still report."""


class Expanded(_State, frozen=True):
    """A map whose children exist (`Task.spread` says which); shown as running."""


class Waiting(_State, frozen=True):
    """Attempt `number` is in a `join`, an `ask` or a `propose`; `plan` is a plan.next, which has none (0)."""

    number: int
    what: str
    detail: str
    deadline: float


class Unknown(_State, frozen=True):
    """A `once` attempt was lost after its effect began. Only a person ends this."""

    number: int


class Settled(_State, frozen=True):
    """Final. `open`: a failure its run has not dealt with; a retry may still take it back."""

    state: SettledState
    winner: int = 0
    code: str = ""
    message: str = ""
    open: bool = False
    at: float = 0.0


TaskState = Pending | Ready | AwaitingApproval | Running | Expanded | Waiting | Unknown | Settled
PENDING: Final = Pending()
RUNNING: Final = Running()
EXPANDED: Final = Expanded()

TASK: Final[dict[tuple[type, type], type]] = {
    (Pending, e.WhenJudged): Pending,  # held: the state then becomes Ready or Expanded by its inputs
    (Pending, e.MapExpanded): Expanded,
    (Pending, e.TaskSettled): Settled,  # skipped, cancelled, or failed before any attempt (WhenType, MapType)
    (Ready, e.ApprovalAsked): AwaitingApproval,
    (Ready, e.AttemptDispatched): Running,
    (Ready, e.AttemptRegained): Running,  # its worker is back with it
    (Ready, e.TaskWaited): Waiting,  # plan.next: served here, by no attempt
    (Ready, e.MapExpanded): Expanded,  # `on: ["all"]` expands when it is ready
    (Ready, e.ResultReused): Ready,
    (Ready, e.TaskSettled): Settled,
    (Ready, e.AttemptEnded): Ready,  # a late report of an attempt that was lost
    (AwaitingApproval, e.ApprovalGiven): Ready,
    (AwaitingApproval, e.ApprovalRefused): AwaitingApproval,  # TaskSettled(failed) follows
    (AwaitingApproval, e.TaskRequeued): Ready,  # its spec or inputs changed: the question lapses
    (AwaitingApproval, e.TaskSettled): Settled,
    (AwaitingApproval, e.AttemptEnded): AwaitingApproval,
    (Running, e.AttemptDispatched): Running,  # a hedge
    (Running, e.AttemptRegained): Running,  # beside its copy
    (Running, e.AttemptEnded): Running,
    (Running, e.EffectBegun): Running,
    (Running, e.CallAnswered): Running,
    (Running, e.Emitted): Running,
    (Running, e.TaskRequeued): Ready,
    (Running, e.TaskWaited): Waiting,
    (Running, e.TaskUnknown): Unknown,
    (Running, e.TaskSettled): Settled,
    (Waiting, e.TaskResumed): Running,
    (Waiting, e.CallAnswered): Waiting,
    (Waiting, e.SubPlanFinished): Waiting,  # TaskSettled(succeeded) follows
    (Waiting, e.AttemptEnded): Waiting,
    (Waiting, e.Emitted): Waiting,
    (Waiting, e.TaskRequeued): Ready,
    (Waiting, e.TaskUnknown): Unknown,
    (Waiting, e.TaskSettled): Settled,
    (Unknown, e.AttemptEnded): Unknown,
    (Unknown, e.AttemptRegained): Running,  # it was not cut off after all
    (Unknown, e.UnknownResolved): Unknown,  # TaskSettled(succeeded) follows
    (Unknown, e.TaskRequeued): Ready,
    (Unknown, e.TaskSettled): Settled,
    (Expanded, e.TaskSettled): Settled,
    (Settled, e.AttemptEnded): Settled,  # the loser of a hedge, or a cancelled attempt, confirms its exit
    (Settled, e.CallAnswered): Settled,
    (Settled, e.Emitted): Settled,
    (Settled, e.FailureSettled): Settled,
    (Settled, e.TaskRequeued): Ready,  # only an open failure, by a retry
}

SHOWN: Final[dict[type, str]] = {
    Pending: "pending",
    Ready: "ready",
    AwaitingApproval: "awaiting_approval",
    Running: "running",
    Expanded: "running",
    Waiting: "waiting",
    Unknown: "unknown",
}


def shown(state: TaskState) -> str:
    """The word people see: one of graph.md's task states."""
    return state.state if isinstance(state, Settled) else SHOWN[type(state)]


class Open(_State, frozen=True):
    """Tasks may start."""


class Paused(_State, frozen=True):
    """Nothing new starts; what runs goes on."""


class Closed(_State, frozen=True):
    """Settled as `state`: succeeded, failed or cancelled."""

    state: str
    code: str = ""
    message: str = ""


RunState = Open | Paused | Closed
OPEN: Final = Open()
PAUSED: Final = Paused()

RUN: Final[dict[tuple[type, type], type]] = {
    (Open, e.RunPaused): Paused,
    (Paused, e.RunResumed): Open,
    (Open, e.RunSetAside): Paused,
    (Paused, e.RunSetAside): Paused,
    (Open, e.RunSettled): Closed,
    (Paused, e.RunSettled): Closed,
}


def next_state(table: dict[tuple[type, type], type], state: object, fact: object, story: str) -> type:
    """The type of the next state. Raises: InvalidTransition with `story`."""
    found = table.get((type(state), type(fact)))
    if found is None:
        raise InvalidTransition(f"{type(fact).__name__} met {state}: {story}")
    return found
