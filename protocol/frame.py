"""The items of one worker link (wire.md section 4), as nouns. The codec turns them into protobuf and back.

A frame is `n` (its number in this stream, from 1), `seen` (the last `n` received from the peer) and a batch of
items. Both sides are at-least-once by state: seen `n` plus inventory, no sequence numbers per item.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from .artifact import ArtifactRef, Value
from .ids import AttemptId, Fence
from .outcome import Outcome, Usage
from .profile import WorkerProfile

PROTOCOL_VERSIONS = (1, 1)
"""The range of protocol versions this build speaks, inclusive."""
SHORT: Final = 1
APPROVAL: Final = 2
PACKED: Final = 4
FEATURES: Final = SHORT | APPROVAL | PACKED
"""What this build can do within its versions, as bits: Heartbeat says why no slot is free; an approval names its pin;
Assigns and Reports travel in MessagePack. A stream uses what both ends have (Welcome says it); an end that is older
says 0."""

Verdict = Literal["keep", "hold", "kill", "resend", "drop"]
CallKind = Literal["spawn", "propose", "join", "ask", "begin_effect", "checkpoint", "restore", "emit"]


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attempt a worker has: running, queued or, with its outcome's `digest`, spooled in the outbox."""

    attempt: AttemptId
    fence: Fence
    pin: bytes
    digest: bytes = b""


class Hello(msgspec.Struct, frozen=True):
    """First item of a stream, worker to orchestrator. `last_epoch` is the highest epoch seen of `journal`."""

    worker: str
    boot_id: str
    profile: WorkerProfile
    journal: str = ""
    last_epoch: int = 0
    running: tuple[Held, ...] = ()
    spooled: tuple[Held, ...] = ()
    versions: tuple[int, int] = PROTOCOL_VERSIONS
    features: int = 0


class Heartbeat(msgspec.Struct, frozen=True):
    """Sent every `heartbeat_s`. `inventory` is every attempt the worker holds (running, queued, spooled). `short`: why
    it takes no new work although slots may be free (`OutboxFull`, `DiskFull`). `moved`: bytes and seconds of
    the last fetched artifacts, in turns."""

    at: float
    inventory: tuple[AttemptId, ...] = ()
    loop_lag_s: float = 0.0
    free: float = 0.0
    load: float = 0.0
    cached: tuple[str, ...] = ()
    uncached: tuple[str, ...] = ()
    short: str = ""
    moved: tuple[float, ...] = ()


class Rejected(msgspec.Struct, frozen=True):
    """The worker will not run this Assign (`NoSuchSkill`, `OutboxFull`, `Draining`, `Fenced`, `BadSpec`)."""

    attempt: AttemptId
    code: str
    message: str = ""


class Progress(msgspec.Struct, frozen=True):
    """Lossy. `kind`: progress (body: JSON), log (body: text of `stream`), cached."""

    attempt: AttemptId
    seq: int
    kind: Literal["progress", "log"]
    body: bytes
    stream: str = ""
    at: float = 0.0


class Report(msgspec.Struct, frozen=True, gc=False):
    """The outcome of an attempt. Kept in the worker's outbox until an Ack names it."""

    attempt: AttemptId
    fence: Fence
    pin: bytes
    outcome: Outcome
    usage: Usage = Usage()


class Call(msgspec.Struct, frozen=True):
    """The k-th call (from 1) an attempt makes of the orchestrator; sent again until its Return. `body` is JSON."""

    attempt: AttemptId
    fence: Fence
    k: int
    what: CallKind
    body: bytes = b"null"


class Staged(msgspec.Struct, frozen=True):
    """Answer to Stage: the file's content is in the artifact store, or why not."""

    run: int
    uri: str
    ref: ArtifactRef | None = None
    code: str = ""
    message: str = ""


class Drained(msgspec.Struct, frozen=True):
    """The worker holds nothing more: no attempt, no spooled report."""


class Goodbye(msgspec.Struct, frozen=True):
    """A clean end. A stream that ends without it is a fault."""

    reason: str = ""


class HeldVerdict(msgspec.Struct, frozen=True, array_like=True):
    attempt: AttemptId
    verdict: Verdict


class Welcome(msgspec.Struct, frozen=True):
    """Answer to Hello. `session` numbers the stream; `verdicts` cover everything Hello said it holds; `features` are
    those that both ends have."""

    journal: str
    epoch: int
    session: int
    version: int = 1
    lease_s: float = 5.0
    heartbeat_s: float = 1.0
    verdicts: tuple[HeldVerdict, ...] = ()
    features: int = 0


class HeartbeatAck(msgspec.Struct, frozen=True):
    """Echoes `at` of the heartbeat: the worker's lease runs from then. Verdicts for what was on hold."""

    at: float
    verdicts: tuple[HeldVerdict, ...] = ()


class Input(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The value of one reference, by its text. An artifact is read by the worker, `pointer` applied to its JSON.

    `parts`, when not None, is a list value kept as a manifest: each part a value of its own, in order; with `flat`
    each part is itself a list, and the value is their concatenation.
    """

    key: str
    value: Value = b"null"
    pointer: tuple[str, ...] = ()
    parts: tuple[Value, ...] | None = None
    flat: bool = False


class StagedFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `file://` of another machine, moved for this attempt: read it from the artifact store by digest."""

    uri: str
    ref: ArtifactRef


class WorkSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What Assign.spec decodes to (JSON). The same bytes serve all children of a map."""

    skill: str
    digest: str
    args: msgspec.Raw
    device: str = "cpu"
    effect: str = "once"
    timeout_s: float = 3600.0
    cpu: float = 1.0
    memory: int = 0
    gpu: float = 0.0
    vram: int = 0
    tokens: int = 0
    """What it may use of a language model at most, and at which `price`; 0 is no cap."""
    price: float = 0.0


class Assign(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Run this. `name` is for people (`r7/scan#2`). `inputs` resolve the references of the spec's args.

    With `items`, the skill is called once per entry (each resolves the element references) and the value is the list
    of results. `approval`: the pin that a person approved, empty if none did. `idempotency_key` is handed to the skill.
    """

    attempt: AttemptId
    fence: Fence
    pin: bytes
    spec: bytes
    name: str
    inputs: tuple[Input, ...] = ()
    items: tuple[tuple[Input, ...], ...] = ()
    files: tuple[StagedFile, ...] = ()
    idempotency_key: str = ""
    approval: bytes = b""
    deadline_s: float = 0.0

    @property
    def approved(self) -> bool:
        """A person has approved exactly this work."""
        return bool(self.approval) and self.approval == self.pin


class Cancel(msgspec.Struct, frozen=True):
    """Stop the attempt: SIGTERM, grace, SIGKILL; its Report confirms. `if_not_started` only takes it off a queue."""

    attempt: AttemptId
    grace_s: float = 2.0
    if_not_started: bool = False


class Ack(msgspec.Struct, frozen=True, gc=False):
    """These reports are on disk at the orchestrator (or will never be wanted): drop them from the outbox."""

    attempts: tuple[AttemptId, ...]


class Return(msgspec.Struct, frozen=True):
    """Answer to the k-th Call: `value` is JSON, or `error` a wire error."""

    attempt: AttemptId
    k: int
    value: bytes = b"null"
    error: bytes = b""


class Stage(msgspec.Struct, frozen=True):
    """Put this file of yours into the artifact store and answer Staged. `named`: the person's plan names it itself."""

    run: int
    uri: str
    named: bool = False


class Drain(msgspec.Struct, frozen=True):
    deadline_s: float = 60.0


class Bye(msgspec.Struct, frozen=True):
    """The orchestrator ends the stream; dial again after `retry_after_s` unless it is negative (never)."""

    retry_after_s: float = 0.1
    reason: str = ""
    code: str = ""


FromWorker = Hello | Heartbeat | Rejected | Progress | Report | Call | Staged | Drained | Goodbye
ToWorker = Welcome | HeartbeatAck | Assign | Cancel | Ack | Return | Stage | Drain | Bye
Item = FromWorker | ToWorker


class Frame(msgspec.Struct, frozen=True):
    """One message of the stream. `packed`: the far end is known to read PACKED; what has arrived doesn't say."""

    n: int
    seen: int
    items: tuple[Item, ...]
    packed: bool = False
