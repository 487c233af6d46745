"""Durable facts, past tense: what the journal keeps and `State.apply` consumes.

Everything the orchestrator must still know after a crash is one of these; anything else is fleet state, rebuilt from
Hello. Fields are appended, never reordered (the journal stores them as arrays; missing trailing fields default).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from protocol.artifact import ArtifactRef, Value
from protocol.ids import Fence
from protocol.outcome import Outcome, Usage
from protocol.patch import Patch
from protocol.profile import Policy
from protocol.resource import Resources
from protocol.skill import SkillSpec
from protocol.task import RunSettings

SettledState = Literal["succeeded", "failed", "skipped", "cancelled"]


class _Event(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    pass


# The orchestrator and its fleet


class EpochStarted(_Event, frozen=True):
    """Committed before any dispatch of this start; fences of this epoch are greater than all before."""

    epoch: int
    journal: str


class WorkerEnrolled(_Event, frozen=True):
    """An identity was bought with a token. `secret_hash`: SHA-256 hex of its credential."""

    worker: int
    name: str
    secret_hash: str
    serves: str = ""


class SkillsAnnounced(_Event, frozen=True):
    """What a worker can do; replaces what it announced before. By `capacity` a task may wait for it while away."""

    worker: int
    skills: tuple[SkillSpec, ...]
    labels: dict[str, str] = {}
    devices: tuple[str, ...] = ()
    capacity: Resources = Resources()
    policies: tuple[tuple[str, Policy], ...] = ()


class WorkerForgotten(_Event, frozen=True):
    """A temporary worker (`here`) is gone for good with its client, or an admin removed it."""

    worker: int


# Runs and graphs


class RunSubmitted(_Event, frozen=True):
    """`key` makes it idempotent; `inputs` are JSON by name; `home` is the worker name `here` stands for."""

    run: int
    request: str
    key: str
    author: str
    settings: RunSettings
    inputs: dict[str, bytes]
    home: str = ""
    fork_of: int = 0
    labels: dict[str, str] = {}
    at: float = 0.0


class PatchAccepted(_Event, frozen=True):
    """`version` is the graph's number after it; parts of one streamed plan share one. `key` names a spawned child
    under `patch.parent`; `reused`: results by pin that a fork may take over."""

    run: int
    version: int
    patch: Patch
    at: float = 0.0
    key: str = ""
    reused: tuple[tuple[bytes, Value], ...] = ()


class PatchRefused(_Event, frozen=True):
    run: int
    author: str
    problems: tuple[tuple[str, str, str, str], ...]
    why: str = ""


class PlanClosed(_Event, frozen=True):
    """No more parts of the first plan will come; `code` is empty when it is complete."""

    run: int
    code: str = ""
    message: str = ""


class FilePinned(_Event, frozen=True):
    """Another machine's file, moved into the artifact store for this run."""

    run: int
    uri: str
    ref: ArtifactRef


class MapExpanded(_Event, frozen=True):
    """A map (or `on: ["all"]`) became `children` child tasks over `items` elements, in `chunk`s.

    `workers` (ids) for `all`: child k runs on workers[k].
    """

    run: int
    task: int
    items: int
    chunk: int = 1
    workers: tuple[int, ...] = ()
    at: float = 0.0


class WhenJudged(_Event, frozen=True):
    run: int
    task: int
    held: bool
    why: str = ""
    at: float = 0.0


class AttemptDispatched(_Event, frozen=True):
    """Attempt `number` of the task goes to `worker` under `fence`. `hedge`: beside another live attempt."""

    run: int
    task: int
    number: int
    worker: int
    fence: Fence
    pin: bytes
    device: str = "cpu"
    skill: str = ""
    why: str = ""
    hedge: bool = False
    start: bool = True
    at: float = 0.0


class AttemptEnded(_Event, frozen=True):
    """Changes only the attempt. A `lost` one may still win later (core.lease.admissible)."""

    run: int
    task: int
    number: int
    outcome: Outcome
    usage: Usage = Usage()
    lost: bool = False
    at: float = 0.0


class TaskRequeued(_Event, frozen=True):
    """The core decided on another attempt, not before `until`; `counted` uses up a retry; `skill` is the next alt."""

    run: int
    task: int
    until: float
    why: str
    counted: bool = True
    skill: str = ""
    avoid: int = -1
    at: float = 0.0


class ResultReused(_Event, frozen=True):
    """A fork took over the result of an equal pin; TaskSettled(succeeded) follows."""

    run: int
    task: int
    pin: bytes


class TaskSettled(_Event, frozen=True):
    """Final. `winner` is the attempt number whose outcome counts (0: none, as for maps and skips).

    `open`: a failure that its run has not dealt with yet; `FailureSettled` follows.
    """

    run: int
    task: int
    state: SettledState
    winner: int = 0
    code: str = ""
    message: str = ""
    open: bool = False
    at: float = 0.0


class FailureSettled(_Event, frozen=True):
    """An open failure was dealt with (`how`: handled, continued, given_up, stopped); what needs it is skipped."""

    run: int
    task: int
    how: str
    at: float = 0.0


class EffectBegun(_Event, frozen=True):
    """User code of a `once` attempt is about to act; from here its loss means Unknown."""

    run: int
    task: int
    number: int


class TaskUnknown(_Event, frozen=True):
    """A `once` attempt was lost after its effect began; only a person resolves it."""

    run: int
    task: int
    number: int


class UnknownResolved(_Event, frozen=True):
    """A person knows that the effect happened; TaskSettled(succeeded) follows with this value."""

    run: int
    task: int
    by: str
    value: bytes


class TaskWaited(_Event, frozen=True):
    """A running attempt waits for others: `what` is join, ask or plan. Its cpu is returned."""

    run: int
    task: int
    number: int
    what: str
    detail: str = ""
    deadline: float = 0.0


class TaskResumed(_Event, frozen=True):
    run: int
    task: int
    number: int


class CallAnswered(_Event, frozen=True):
    """The k-th call of an attempt was answered: the same answer is given to every repetition."""

    run: int
    task: int
    number: int
    k: int
    value: bytes
    error: bytes = b""


class Emitted(_Event, frozen=True):
    """`ctx.emit`: an event of the skill's own kind."""

    run: int
    task: int
    number: int
    kind: str
    body: bytes


class ApprovalAsked(_Event, frozen=True):
    """Bound to `pin` (spec and inputs); lapses with any change; `deadline` in run time."""

    run: int
    task: int
    pin: bytes
    why: str
    deadline: float


class ApprovalGiven(_Event, frozen=True):
    run: int
    task: int
    by: str
    pin: bytes
    message: str = ""


class ApprovalRefused(_Event, frozen=True):
    run: int
    task: int
    by: str
    message: str = ""


class CancelAsked(_Event, frozen=True):
    """`task` -1: the whole run; then `code` (TimedOut, BudgetSpent, ...) makes its verdict failed, not cancelled."""

    run: int
    task: int
    by: str
    why: str = ""
    code: str = ""


class ClaimTaken(_Event, frozen=True):
    """A re-plan holds these tasks back from dispatch until `deadline`."""

    run: int
    claim: int
    tasks: tuple[int, ...]
    deadline: float


class ClaimReleased(_Event, frozen=True):
    run: int
    claim: int


class BudgetReserved(_Event, frozen=True):
    run: int
    call: int
    tokens: int
    price: float = 0.0


class BudgetSpent(_Event, frozen=True):
    run: int
    call: int
    tokens_in: int
    tokens_out: int
    price: float = 0.0


class PlannerCallOpened(_Event, frozen=True):
    """`kind`: plan or replan; `claim` is what a re-plan holds."""

    run: int
    call: int
    kind: str
    claim: int = 0
    deadline: float = 0.0
    why: str = ""
    planner: str = ""
    at: float = 0.0


class PlannerCallClosed(_Event, frozen=True):
    run: int
    call: int
    outcome: str
    message: str = ""
    first_task_s: float = -1.0


class PlannerCallLost(_Event, frozen=True):
    run: int
    call: int


class RunPaused(_Event, frozen=True):
    run: int
    by: str


class RunResumed(_Event, frozen=True):
    run: int
    by: str


class RunSettled(_Event, frozen=True):
    run: int
    state: Literal["succeeded", "failed", "cancelled"]
    code: str = ""
    message: str = ""
    at: float = 0.0


class RunRemoved(_Event, frozen=True):
    run: int


class TokenCreated(_Event, frozen=True):
    """A join token that buys identities of `role`: `uses` of them (0: any number), until `until` (0: for ever).

    `secret_hash`: SHA-256 hex of the token, empty for the owner's own, which is gone when the server ends.
    """

    token: int
    secret_hash: str
    role: str
    uses: int = 1
    until: float = 0.0
    by: str = ""
    at: float = 0.0


class TokenUsed(_Event, frozen=True):
    """It bought an identity: a worker (WorkerEnrolled follows), or a client, whose credential has `secret_hash`."""

    token: int
    name: str
    secret_hash: str = ""
    at: float = 0.0


class TokenRevoked(_Event, frozen=True):
    """It buys nothing more, and the credentials of clients that it bought end."""

    token: int
    by: str = ""
    at: float = 0.0


# fmt: off
Event = (
    EpochStarted | WorkerEnrolled | SkillsAnnounced | WorkerForgotten | RunSubmitted | PatchAccepted
    | PatchRefused | PlanClosed | FilePinned | MapExpanded | WhenJudged | AttemptDispatched | AttemptEnded
    | TaskRequeued | ResultReused | TaskSettled | FailureSettled | EffectBegun | TaskUnknown | UnknownResolved
    | TaskWaited | TaskResumed | CallAnswered | Emitted | ApprovalAsked | ApprovalGiven | ApprovalRefused
    | CancelAsked | ClaimTaken | ClaimReleased | BudgetReserved | BudgetSpent | PlannerCallOpened
    | PlannerCallClosed | PlannerCallLost | RunPaused | RunResumed | RunSettled | RunRemoved | TokenCreated
    | TokenUsed | TokenRevoked
)
# fmt: on


def run_of(event: Event) -> int:
    """The run the event belongs to, 0 for those of the orchestrator itself."""
    return getattr(event, "run", 0)
