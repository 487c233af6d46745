"""Durable facts about planner calls: opened, closed, lost, and what they hold back meanwhile. A part of `core.event`.

Fields are appended, never reordered, as there.
"""

from __future__ import annotations

from .event_fleet import Durable


class ClaimTaken(Durable, frozen=True):
    """A re-plan holds these tasks back from dispatch until `deadline`."""

    run: int
    claim: int
    tasks: tuple[int, ...]
    deadline: float


class ClaimReleased(Durable, frozen=True):
    run: int
    claim: int


class PlannerCallOpened(Durable, frozen=True):
    """`kind`: plan, replan, review, propose or next; `claim` is what it holds back. `task`: whose goal it serves, with
    the `number` of its attempt and `k` of its call; `failed`: the open failures it is about, each with the digest that
    makes it the same failure again; `settled`: how many tasks were, for a review; `graph`: a digest of the graph."""

    run: int
    call: int
    kind: str
    claim: int = 0
    deadline: float = 0.0
    why: str = ""
    planner: str = ""
    at: float = 0.0
    task: int = -1
    number: int = 0
    k: int = 0
    failed: dict[int, bytes] = {}
    settled: int = 0
    graph: bytes = b""


class PlannerCallClosed(Durable, frozen=True):
    """`graph`: a digest of what it made of the graph, empty if it has changed no task."""

    run: int
    call: int
    outcome: str
    message: str = ""
    first_task_s: float = -1.0
    planner: str = ""
    """Who planned in the end, such as `template:errors`."""
    graph: bytes = b""


class PlannerCallLost(Durable, frozen=True):
    run: int
    call: int


class SubPlanFinished(Durable, frozen=True):
    """Everything that a plan.next task had planned is over; `value` are its outputs, and TaskSettled follows."""

    run: int
    task: int
    value: bytes
