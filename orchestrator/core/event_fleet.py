"""Durable facts about the orchestrator itself and its fleet: epochs, workers, join tokens. As event, of run 0."""

from __future__ import annotations

import msgspec

from protocol.profile import Policy
from protocol.resource import Resources
from protocol.skill import SkillSpec


class Durable(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """What every event is: a tagged array. Fields are appended with defaults, never reordered."""


class EpochStarted(Durable, frozen=True):
    """Committed before any dispatch of this start; fences of this epoch are greater than all before.

    `restored`: a worker knew a later epoch of this journal, so this is a copy of it, and what came after the copy is
    gone.
    """

    epoch: int
    journal: str
    restored: str = ""
    at: float = 0.0


class WorkerEnrolled(Durable, frozen=True):
    """An identity was bought with a token (0: the owner's). `secret_hash`: SHA-256 hex of its secret, or `key:` and
    that of its certificate's key."""

    worker: int
    name: str
    secret_hash: str
    serves: str = ""
    token: int = 0


class SkillsAnnounced(Durable, frozen=True):
    """What a worker can do; replaces what it announced before. By `capacity` a task may wait for it while away."""

    worker: int
    skills: tuple[SkillSpec, ...]
    labels: dict[str, str] = {}
    devices: tuple[str, ...] = ()
    capacity: Resources = Resources()
    policies: tuple[tuple[str, Policy], ...] = ()
    edge: bool = False


class WorkerForgotten(Durable, frozen=True):
    """A temporary worker (`here`) is gone for good with its client, or an admin removed it."""

    worker: int


class TokenCreated(Durable, frozen=True):
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


class TokenUsed(Durable, frozen=True):
    """It bought an identity: a worker (WorkerEnrolled follows), or a client, whose credential has `secret_hash`."""

    token: int
    name: str
    secret_hash: str = ""
    at: float = 0.0


class TokenRevoked(Durable, frozen=True):
    """It buys nothing more, and the credentials of clients and workers that it bought end."""

    token: int
    by: str = ""
    at: float = 0.0


class PeerRefused(Durable, frozen=True):
    """Something that a peer said or asked for was refused, `count` times since it was last told here.

    `source`: `worker:NAME`, `client:NAME`, `address:HOST`; those who are too many to name are `others`. `run` 0: no
    run's.
    """

    source: str
    code: str
    message: str = ""
    count: int = 1
    run: int = 0
    task: int = -1
    at: float = 0.0


class DecisionFailed(Durable, frozen=True):
    """The core could not decide on a `stimulus` (a defect of ours): what it had changed was taken back.

    `reference` is what the offending peer was told, and stands in the server's log with the whole story. `run` 0: no
    run is known to be at the bottom of it.
    """

    reference: str
    stimulus: str
    error: str
    run: int = 0
    at: float = 0.0


class WorkerLost(Durable, frozen=True):
    """Its lease ran out, or it was gone when the orchestrator started; its `attempts` were given up."""

    worker: int
    attempts: int = 0
    at: float = 0.0


class WorkerQuarantined(Durable, frozen=True):
    """It went wrong where others don't: it gets only what nobody else may do, and is tried again at `until`."""

    worker: int
    why: str
    until: float = 0.0
    at: float = 0.0


class WorkerCleared(Durable, frozen=True):
    """It did well when it was tried: its quarantine is over."""

    worker: int
    at: float = 0.0


class WorkerReturned(Durable, frozen=True):
    """It is back after it was lost."""

    worker: int
    at: float = 0.0
