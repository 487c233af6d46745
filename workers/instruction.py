"""What a worker's machine asks its daemon to do, in order. Each may repeat; none is answered except by a stimulus."""

from __future__ import annotations

import msgspec

from protocol.artifact import ArtifactRef
from protocol.card import Dealt
from protocol.frame import Assign, FromWorker, Report, Stage, WorkSpec
from protocol.ids import AttemptId
from protocol.skill import SkillSpec


class _Instruction(msgspec.Struct, frozen=True, gc=False):
    pass


class Send(_Instruction, frozen=True):
    """Put the item on the stream; it leaves with whatever else is ready in this turn of the loop."""

    item: FromWorker


class Start(_Instruction, frozen=True):
    """Run the attempt: inline skills on the loop, all others in a host, which sees these cards. Answered by Ended."""

    assign: Assign
    work: WorkSpec
    skill: SkillSpec
    dealt: Dealt = ()


class Fetch(_Instruction, frozen=True):
    """Bring the artifacts that an attempt names here while it waits for room: when it starts, less is missing."""

    assign: Assign


class Kill(_Instruction, frozen=True):
    """Stop a started attempt: SIGTERM to its process group, grace, SIGKILL. Answered by Ended after the exit."""

    attempt: AttemptId
    grace_s: float


class Append(_Instruction, frozen=True):
    """Append these to the outbox, before anything that follows is sent. `durable`: answer Saved once fsynced."""

    reports: tuple[Report, ...]
    durable: bool = False


class Store(_Instruction, frozen=True):
    """Put the value that the report names into the artifact store; answered by Stored once it is confirmed there."""

    attempt: AttemptId
    ref: ArtifactRef


class Offer(_Instruction, frozen=True):
    """Send these reports (again) from the outbox."""

    attempts: tuple[AttemptId, ...]


class Forget(_Instruction, frozen=True):
    """Drop these reports from the outbox, and the values of the `spilled` ones that lie beside it."""

    attempts: tuple[AttemptId, ...]
    spilled: tuple[AttemptId, ...] = ()


class Answer(_Instruction, frozen=True):
    """Hand the answer of the k-th call to the attempt. `error` is a wire error as JSON, empty for none."""

    attempt: AttemptId
    k: int
    value: bytes = b"null"
    error: bytes = b""


class Upload(_Instruction, frozen=True):
    """Put a file of this machine into the artifact store; answered by FileStaged."""

    stage: Stage


class Adopt(_Instruction, frozen=True):
    """From here the outbox belongs to this journal; remember the epoch."""

    journal: str
    epoch: int


class HangUp(_Instruction, frozen=True):
    """End the stream and dial again after `retry_after_s`."""

    retry_after_s: float


class Leave(_Instruction, frozen=True):
    """Nothing is left to do: close the stream and end the daemon. `code` is empty for a clean end."""

    code: str = ""
    reason: str = ""


Instruction = Send | Start | Fetch | Kill | Append | Store | Offer | Forget | Answer | Upload | Adopt | HangUp | Leave
