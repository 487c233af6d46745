"""Durable facts, past tense: what the journal keeps and `State.apply` consumes.

Everything the orchestrator must still know after a crash is one of these; anything else is fleet state, rebuilt from
Hello. Fields are appended, never reordered (the journal stores them as arrays; missing trailing fields default).
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from protocol.artifact import ArtifactRef, Value
from protocol.ids import Fence
from protocol.outcome import Outcome, Usage
from protocol.patch import Patch
from protocol.task import RunSettings

from .event_fleet import DecisionFailed as DecisionFailed
from .event_fleet import Durable
from .event_fleet import EpochStarted as EpochStarted
from .event_fleet import PeerRefused as PeerRefused
from .event_fleet import SkillsAnnounced as SkillsAnnounced
from .event_fleet import TokenCreated as TokenCreated
from .event_fleet import TokenRevoked as TokenRevoked
from .event_fleet import TokenUsed as TokenUsed
from .event_fleet import WorkerCleared as WorkerCleared
from .event_fleet import WorkerEnrolled as WorkerEnrolled
from .event_fleet import WorkerForgotten as WorkerForgotten
from .event_fleet import WorkerLost as WorkerLost
from .event_fleet import WorkerQuarantined as WorkerQuarantined
from .event_fleet import WorkerReturned as WorkerReturned
from .event_planner import ClaimReleased as ClaimReleased
from .event_planner import ClaimTaken as ClaimTaken
from .event_planner import PlannerCallClosed as PlannerCallClosed
from .event_planner import PlannerCallLost as PlannerCallLost
from .event_planner import PlannerCallOpened as PlannerCallOpened
from .event_planner import SubPlanFinished as SubPlanFinished

SettledState = Literal["succeeded", "failed", "skipped", "cancelled"]


# Runs and graphs


class RunSubmitted(Durable, frozen=True):
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


class PatchAccepted(Durable, frozen=True):
    """`version` is the graph's number after it; parts of one streamed plan share one. `key` names a spawned child
    under `patch.parent`; `reused`: results by pin that a fork may take over; `written`: (task, origin) of those that
    are restored, so that who undoes or forks is not taken for who wrote them; `call`: the planner call it came from."""

    run: int
    version: int
    patch: Patch
    at: float = 0.0
    key: str = ""
    reused: tuple[tuple[bytes, Value], ...] = ()
    written: tuple[tuple[str, int], ...] = ()
    call: int = 0


class PatchRefused(Durable, frozen=True):
    run: int
    author: str
    problems: tuple[tuple[str, str, str, str], ...]
    why: str = ""


class PlanClosed(Durable, frozen=True):
    """No more parts of the first plan will come; `code` is empty when it is complete. `partial`: it has parts, and
    more was meant."""

    run: int
    code: str = ""
    message: str = ""
    partial: bool = False


class FilePinned(Durable, frozen=True):
    """Another machine's file, moved into the artifact store for this run."""

    run: int
    uri: str
    ref: ArtifactRef


class MapExpanded(Durable, frozen=True):
    """A map (or `on: ["all"]`) became `children` child tasks over `items` elements, in `chunk`s.

    `workers` (ids) for `all`: child k runs on workers[k].
    """

    run: int
    task: int
    items: int
    chunk: int = 1
    workers: tuple[int, ...] = ()
    at: float = 0.0


class WhenJudged(Durable, frozen=True):
    run: int
    task: int
    held: bool
    why: str = ""
    at: float = 0.0


class AttemptDispatched(Durable, frozen=True):
    """Attempt `number` of the task goes to `worker` under `fence`. `hedge`: beside another live attempt. `tokens` and
    `price`: what it is lent of the run's budget."""

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
    tokens: int = 0
    price: float = 0.0


class AttemptEnded(Durable, frozen=True):
    """Changes only the attempt. A `lost` one may still win later (core.lease.admissible).

    `death`: its worker's daemon died, or was given up for dead.
    """

    run: int
    task: int
    number: int
    outcome: Outcome
    usage: Usage = Usage()
    lost: bool = False
    at: float = 0.0
    death: bool = False


class AttemptRegained(Durable, frozen=True):
    """An attempt that was lost still runs at its worker, which is back, and is live again. `hedge`: beside another."""

    run: int
    task: int
    number: int
    hedge: bool = False
    at: float = 0.0


class TaskRequeued(Durable, frozen=True):
    """The core decided on another attempt, not before `until`; `counted` uses up a retry; `skill` is the next alt.

    Not `lost`: the worker handed it back unstarted, which is nobody's failure.
    """

    run: int
    task: int
    until: float
    why: str
    counted: bool = True
    skill: str = ""
    avoid: int = -1
    at: float = 0.0
    lost: bool = True


class ResultReused(Durable, frozen=True):
    """A fork took over the result of an equal pin; TaskSettled(succeeded) follows."""

    run: int
    task: int
    pin: bytes


class TaskSettled(Durable, frozen=True):
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


class FailureSettled(Durable, frozen=True):
    """An open failure was dealt with (`how`: handled, continued, given_up, stopped; unaffordable: the budget allows no
    re-plan); what needs it is skipped."""

    run: int
    task: int
    how: str
    at: float = 0.0


class EffectBegun(Durable, frozen=True):
    """User code of a `once` attempt is about to act; from here its loss means Unknown."""

    run: int
    task: int
    number: int


class TaskUnknown(Durable, frozen=True):
    """A `once` attempt ended after its effect began, and nobody can say how; a person resolves it, or its own late
    report."""

    run: int
    task: int
    number: int
    why: str = ""
    at: float = 0.0


class UnknownResolved(Durable, frozen=True):
    """A person said what became of the effect: it succeeded (with `value`), is to be tried again, or failed.

    TaskSettled or TaskRequeued follows.
    """

    run: int
    task: int
    by: str
    value: bytes
    how: Literal["succeeded", "retry", "fail"] = "succeeded"
    number: int = 0


class TaskWaited(Durable, frozen=True):
    """A running attempt waits for others: `what` is join, ask or plan. Its cpu is returned."""

    run: int
    task: int
    number: int
    what: str
    detail: str = ""
    deadline: float = 0.0


class TaskResumed(Durable, frozen=True):
    run: int
    task: int
    number: int


class CallAnswered(Durable, frozen=True):
    """The k-th call of an attempt was answered: the same answer is given to every repetition."""

    run: int
    task: int
    number: int
    k: int
    value: bytes
    error: bytes = b""


class Emitted(Durable, frozen=True):
    """`ctx.emit`: an event of the skill's own kind."""

    run: int
    task: int
    number: int
    kind: str
    body: bytes


class ApprovalAsked(Durable, frozen=True):
    """Bound to `pin` (spec and inputs); lapses with any change; `deadline` in run time."""

    run: int
    task: int
    pin: bytes
    why: str
    deadline: float


class ApprovalGiven(Durable, frozen=True):
    run: int
    task: int
    by: str
    pin: bytes
    message: str = ""


class ApprovalRefused(Durable, frozen=True):
    run: int
    task: int
    by: str
    message: str = ""


class CancelAsked(Durable, frozen=True):
    """`task` -1: the whole run; then `code` (TimedOut, BudgetSpent, ...) makes its verdict failed, not cancelled."""

    run: int
    task: int
    by: str
    why: str = ""
    code: str = ""


class BudgetReserved(Durable, frozen=True):
    """A planner call may use so much; what it does not use is free again when it ends."""

    run: int
    call: int
    tokens: int
    price: float = 0.0


class BudgetSpent(Durable, frozen=True):
    """A planner call ended with `calls` requests and this use."""

    run: int
    call: int
    tokens_in: int
    tokens_out: int
    price: float = 0.0
    calls: int = 1


class RunForeseen(Durable, frozen=True):
    """What was expected of the run when its plan was complete: seconds from submission, the median, the 10th and the
    90th percentile; `late`: nine times in ten it misses its deadline. Nothing is decided by it."""

    run: int
    policy: str
    makespan_s: float
    low_s: float
    high_s: float
    price: float = 0.0
    energy_j: float = 0.0
    at: float = 0.0
    late: bool = False


class RunPaused(Durable, frozen=True):
    run: int
    by: str


class RunResumed(Durable, frozen=True):
    run: int
    by: str


class RunDetached(Durable, frozen=True):
    """It goes on when nobody watches it."""

    run: int
    by: str


class RunSetAside(Durable, frozen=True):
    """Deciding on it failed again and again: nothing more is decided for it until a person resumes or cancels it."""

    run: int
    reference: str
    why: str = ""
    at: float = 0.0


class RunSettled(Durable, frozen=True):
    run: int
    state: Literal["succeeded", "failed", "cancelled"]
    code: str = ""
    message: str = ""
    at: float = 0.0


class RunRemoved(Durable, frozen=True):
    run: int


# fmt: off
Event = (
    EpochStarted | WorkerEnrolled | SkillsAnnounced | WorkerForgotten | RunSubmitted | PatchAccepted
    | PatchRefused | PlanClosed | FilePinned | MapExpanded | WhenJudged | AttemptDispatched | AttemptEnded
    | TaskRequeued | ResultReused | TaskSettled | FailureSettled | EffectBegun | TaskUnknown | UnknownResolved
    | TaskWaited | TaskResumed | CallAnswered | Emitted | ApprovalAsked | ApprovalGiven | ApprovalRefused
    | CancelAsked | ClaimTaken | ClaimReleased | BudgetReserved | BudgetSpent | PlannerCallOpened
    | PlannerCallClosed | PlannerCallLost | RunPaused | RunResumed | RunSetAside | RunDetached
    | DecisionFailed | RunSettled | RunRemoved | TokenCreated | TokenUsed | TokenRevoked | PeerRefused
    | WorkerLost | WorkerReturned | AttemptRegained | SubPlanFinished
    | WorkerQuarantined | WorkerCleared | RunForeseen
)
# fmt: on


def run_of(event: Event) -> int:
    """The run the event belongs to, 0 for those of the orchestrator itself."""
    return getattr(event, "run", 0)


FLEET: Final = frozenset(kind.__name__ for kind in get_args(Event) if kind.__module__.endswith(".event_fleet"))
"""The names of the events that are about the orchestrator and its fleet."""
