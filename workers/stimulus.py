"""Everything that can happen to a worker's machine: its only inputs.

Frozen values; the daemon makes them from frames, from its hosts and from the clock. They carry no handle, no path of a
process and no socket.
"""

from __future__ import annotations

import msgspec

from protocol.frame import Staged, ToWorker
from protocol.ids import AttemptId
from protocol.outcome import Outcome, Usage


class _Stimulus(msgspec.Struct, frozen=True, gc=False):
    pass


class Connected(_Stimulus, frozen=True):
    """A stream is open; nothing has been said yet."""


class Received(_Stimulus, frozen=True):
    """Items of one frame from the orchestrator, in order."""

    items: tuple[ToWorker, ...]


class Broken(_Stimulus, frozen=True):
    """The stream is gone, whatever the reason."""


class Result(msgspec.Struct, frozen=True, gc=False):
    """How an attempt ended here; its process is known to be idle or gone."""

    attempt: AttemptId
    outcome: Outcome
    usage: Usage = Usage()


class Ended(_Stimulus, frozen=True):
    """Attempts that ended in this turn of the loop."""

    results: tuple[Result, ...]


class Saved(_Stimulus, frozen=True):
    """Reports that are on disk now (fsynced)."""

    attempts: tuple[AttemptId, ...]


class Stored(_Stimulus, frozen=True):
    """The orchestrator has confirmed the artifact that this report names."""

    attempt: AttemptId


class Asked(_Stimulus, frozen=True):
    """The k-th call of a running attempt, as its host sent it. `body` is JSON."""

    attempt: AttemptId
    k: int
    what: str
    body: bytes


class FileStaged(_Stimulus, frozen=True):
    """Answer to an Upload."""

    staged: Staged


class DrainRequested(_Stimulus, frozen=True):
    """This machine wants to leave (SIGTERM, or the client it serves is gone)."""

    deadline_s: float = 30.0


class Slept(_Stimulus, frozen=True):
    """The machine was suspended for so long: nothing ran meanwhile, so nobody's time limit came nearer."""

    seconds: float


class DiskFilled(_Stimulus, frozen=True):
    """The disk of this worker takes no more, or (`full` False) takes more again."""

    full: bool


class CardsLost(_Stimulus, frozen=True):
    """These cards, by their place, no longer answer."""

    gone: frozenset[int]


class Tick(_Stimulus, frozen=True):
    """Time has passed (`Machine.next_wake`)."""


Stimulus = (
    Connected
    | Received
    | Broken
    | Ended
    | Saved
    | Stored
    | Asked
    | FileStaged
    | DrainRequested
    | Slept
    | DiskFilled
    | CardsLost
    | Tick
)
