"""Everything that can happen to the core: its only inputs.

`reply` is an opaque number of the engine's: the core answers it with a `Reply` command. `conn` numbers a worker
stream; frames of a conn that is not a worker's current one are stale and change nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from protocol.frame import FromWorker, Hello
from protocol.ids import AttemptId
from protocol.patch import Patch
from protocol.task import RunSettings, TaskSpec

from .state import State


class _Stimulus(msgspec.Struct, frozen=True, gc=False):
    pass


class Started(_Stimulus, frozen=True):
    """The orchestrator has replayed its journal and begins epoch `epoch` of `journal`."""

    epoch: int
    journal: str


class Enrolled(_Stimulus, frozen=True):
    """A token was good: give `name` an identity with this credential hash."""

    reply: int
    name: str
    secret_hash: str
    serves: str = ""
    token: int = 0
    """The join token that is used for it; 0: somebody who needs none."""


class ClientEnrolled(_Stimulus, frozen=True):
    """A client buys a credential with this hash; `token` 0: with the owner's own token."""

    reply: int
    token: int
    name: str
    secret_hash: str


class TokenAsked(_Stimulus, frozen=True):
    """An admin wants a join token: `uses` 0 is any number, `ttl_s` 0 for ever."""

    reply: int
    secret_hash: str
    role: str
    uses: int = 1
    ttl_s: float = 0.0
    by: str = ""


class TokenRevocation(_Stimulus, frozen=True):
    reply: int
    token: int
    by: str = ""


class WorkerJoined(_Stimulus, frozen=True):
    """A stream's Hello, its sender authenticated as `worker` (an id from WorkerEnrolled)."""

    conn: int
    worker: int
    hello: Hello


class WorkerSent(_Stimulus, frozen=True):
    """Items of one frame. `delivered`: Assigns the worker has confirmed to have seen since the last time."""

    conn: int
    worker: int
    items: tuple[FromWorker, ...]
    delivered: tuple[AttemptId, ...] = ()


class WorkerGone(_Stimulus, frozen=True):
    """The stream ended. `clean`: after Goodbye."""

    conn: int
    worker: int
    clean: bool = False


class WorkerDismissed(_Stimulus, frozen=True):
    """A client's temporary worker will not come back (its client left), or an admin removed it."""

    worker: int


class StageAsked(_Stimulus, frozen=True):
    """Worker `worker` needs files of other machines for a task of `run`: answered with {uri: [digest, media, size]}."""

    reply: int
    worker: int
    run: int
    uris: tuple[str, ...]


class DrainAsked(_Stimulus, frozen=True):
    reply: int
    worker: str
    deadline_s: float = 60.0


class Submitted(_Stimulus, frozen=True):
    """A new run. With `patch` the whole plan is in it (refused: no run is made, nothing is journaled). Else with `plan`
    the engine asks its planner, or patches follow as PatchProposed and then PlanFinished."""

    reply: int
    request: str
    key: str
    author: str
    settings: RunSettings
    inputs: dict[str, bytes] = {}
    home: str = ""
    plan: bool = False
    planner: str = ""
    labels: dict[str, str] = {}
    patch: Patch | None = None


class PlanJudged(_Stimulus, frozen=True):
    """What is wrong with each of these tasks by itself? Answered with the problems; nothing is made of them."""

    reply: int
    tasks: tuple[TaskSpec, ...]
    settings: RunSettings
    inputs: dict[str, bytes] = {}
    home: str = ""


class PatchProposed(_Stimulus, frozen=True):
    """`call`: the planner call it belongs to (0: none). A first plan streams as several of these.

    `whole`: refused = the run is settled as failed (a plan file must be accepted whole).
    """

    reply: int
    run: int
    patch: Patch
    call: int = 0
    whole: bool = False


class PlanFinished(_Stimulus, frozen=True):
    """The planner returned, or the last chunk of a plan was proposed. `outcome`: complete, truncated, refused,
    abstained, failed."""

    run: int
    call: int = 0
    outcome: str = "complete"
    message: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    price: float = 0.0
    planner: str = ""
    calls: int = 1


class Resolved(_Stimulus, frozen=True):
    """Answer to Resolve: JSON at the pointer (`what` value), or how many elements a list has (`what` length)."""

    run: int
    task: int
    key: str
    value: bytes = b"null"
    found: bool = True
    error: str = ""


class Foreseen(_Stimulus, frozen=True):
    """Answer to Foresee, in seconds from submission: the median makespan, the 10th and the 90th percentile."""

    run: int
    policy: str
    makespan_s: float
    low_s: float
    high_s: float
    price: float = 0.0
    energy_j: float = 0.0


class CancelRequested(_Stimulus, frozen=True):
    """`task` "" cancels the run."""

    reply: int
    run: int
    task: str
    by: str
    why: str = ""


class PauseRequested(_Stimulus, frozen=True):
    reply: int
    run: int
    by: str
    resume: bool = False


class DetachRequested(_Stimulus, frozen=True):
    reply: int
    run: int
    by: str


class ApprovalDecided(_Stimulus, frozen=True):
    reply: int
    run: int
    task: str
    by: str
    approved: bool
    message: str = ""


class AnswerGiven(_Stimulus, frozen=True):
    """A person's answer to `human.ask` or `ctx.ask`; `value` is JSON."""

    reply: int
    run: int
    task: str
    by: str
    value: bytes


class UnknownResolved(_Stimulus, frozen=True):
    """A person settled an Unknown task. `value` (JSON) only with `succeeded`."""

    reply: int
    run: int
    task: str
    by: str
    how: Literal["succeeded", "retry", "fail"]
    value: bytes = b"null"


class ForkRequested(_Stimulus, frozen=True):
    """A new run with the graph of `run` at version `at` (-1: the last). Results of equal pins are reused."""

    reply: int
    run: int
    at: int = -1
    by: str = ""
    key: str = ""
    home: str = ""


class UndoRequested(_Stimulus, frozen=True):
    reply: int
    run: int
    version: int
    by: str


class RemoveRequested(_Stimulus, frozen=True):
    """Forget a settled run and its events."""

    reply: int
    run: int


class Refused(_Stimulus, frozen=True):
    """Peers were refused, as the refusal desk tells it: as the event PeerRefused."""

    source: str
    code: str
    message: str = ""
    count: int = 1
    run: int = 0
    task: int = -1


class DiskState(_Stimulus, frozen=True):
    """The journal can't commit (`full`) or can again: dispatching pauses."""

    full: bool


class TakenBack(_Stimulus, frozen=True):
    """Deciding on something failed, so that the state was read again from the journal: go on from there.

    `run`: what the core was busy with (0: not known), to be set aside if `aside`. `conn`: a stream that is over.
    """

    state: State
    reference: str
    stimulus: str
    error: str
    run: int = 0
    aside: bool = False
    conn: int = 0


class Tick(_Stimulus, frozen=True):
    """Time has passed; the machine had asked to be woken (`Machine.next_wake`)."""


class Flush(_Stimulus, frozen=True):
    """All streams are drained for this turn of the loop: placement runs once, over everything ready.

    `brief`: what only later decisions need may wait for a Lull (`Machine.owes`), but not for long.
    """

    brief: bool = False


class Lull(_Stimulus, frozen=True):
    """What was decided has left, and nobody waits: what is owed to later decisions can be seen to."""


Stimulus = (
    Started
    | Enrolled
    | ClientEnrolled
    | TokenAsked
    | TokenRevocation
    | WorkerJoined
    | WorkerSent
    | WorkerGone
    | WorkerDismissed
    | StageAsked
    | DrainAsked
    | Submitted
    | PlanJudged
    | PatchProposed
    | PlanFinished
    | Resolved
    | Foreseen
    | CancelRequested
    | PauseRequested
    | DetachRequested
    | ApprovalDecided
    | AnswerGiven
    | UnknownResolved
    | ForkRequested
    | UndoRequested
    | RemoveRequested
    | Refused
    | DiskState
    | TakenBack
    | Tick
    | Flush
    | Lull
)
