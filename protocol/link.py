"""One end of one worker stream, without I/O: what may be said when, how frames are numbered, filled and confirmed.

Rules, in the order of the table below. The worker says Hello first; the orchestrator answers Welcome or Bye; then both
say what they have until one says its last word (Goodbye, Bye), after which it is silent and what is still in flight
from the other is let pass. Frames are numbered from 1 per direction and each tells the last number seen; a number that
was passed already is stale and dropped, a gap is let through: nothing is sent again by number, because both sides
compare inventories anyway. A wrong frame is a Fault, a value, and ends at most its session. `put` what there is to
say, `cut` it into frames, `take` what arrives. It must not know streams, clocks or what the items mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal, get_args

import msgspec

from .frame import (
    PACKED,
    Ack,
    Assign,
    Bye,
    Call,
    Cancel,
    Drain,
    Drained,
    Frame,
    FromWorker,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Input,
    Item,
    Progress,
    Rejected,
    Report,
    Return,
    Stage,
    Staged,
    ToWorker,
    Welcome,
)
from .ids import AttemptId
from .outcome import Success

MESSAGE_LIMIT: Final = 2 * 1024 * 1024
"""Bytes of one message, whatever it is."""
ITEMS_LIMIT: Final = 64
FRAME_BYTES: Final = 256 * 1024
EDGE_FRAME_BYTES: Final = 64 * 1024
"""A frame is full at this size; one item that is larger travels alone."""
ITEM_BYTES: Final = MESSAGE_LIMIT - 16 * 1024
PROGRESS_KEPT: Final = 256
"""Progress items that wait; the oldest give way."""
ACKS_PER_FRAME: Final = 4096
_GROWTH: Final = 1.4
_ORDERED_SHARE: Final = 16
"""Places in a frame that work in order keeps while results and answers crowd in."""

End = Literal["worker", "orchestrator"]


class Phase(Enum):
    __hash__ = object.__hash__  # Enum's own is a Python function: every item looks a phase up

    OPENING = "opening"  # nothing said
    GREETED = "greeted"  # Hello
    OPEN = "open"  # Welcome
    WORKER_LEFT = "worker left"  # Goodbye
    SERVER_LEFT = "server left"  # Bye
    CLOSED = "closed"  # both


_NEWS: Final = (Heartbeat, Rejected, Progress, Report, Call, Staged, Drained)
_ORDERS: Final = (HeartbeatAck, Assign, Cancel, Ack, Return, Stage, Drain)

TABLE: Final[Mapping[tuple[Phase, type], Phase]] = MappingProxyType(
    {
        (Phase.OPENING, Hello): Phase.GREETED,
        (Phase.OPENING, Bye): Phase.SERVER_LEFT,
        (Phase.GREETED, Welcome): Phase.OPEN,
        (Phase.GREETED, Bye): Phase.SERVER_LEFT,
        (Phase.GREETED, Goodbye): Phase.WORKER_LEFT,
        **{(Phase.OPEN, kind): Phase.OPEN for kind in (*_NEWS, *_ORDERS)},
        (Phase.OPEN, Goodbye): Phase.WORKER_LEFT,
        (Phase.OPEN, Bye): Phase.SERVER_LEFT,
        **{(Phase.WORKER_LEFT, kind): Phase.WORKER_LEFT for kind in (Welcome, *_ORDERS)},
        (Phase.WORKER_LEFT, Bye): Phase.CLOSED,
        **{(Phase.SERVER_LEFT, kind): Phase.SERVER_LEFT for kind in (Hello, *_NEWS)},
        (Phase.SERVER_LEFT, Goodbye): Phase.CLOSED,
    }
)
"""(phase, item said by whoever may say it) -> phase. What isn't here is out of place."""

SAYS: Final[Mapping[str, frozenset[type]]] = MappingProxyType(
    {"worker": frozenset(get_args(FromWorker)), "orchestrator": frozenset(get_args(ToWorker))}
)

Lane = Literal["first", "ordered", "acks", "lossy", "last"]
LANES: Final[Mapping[type, Lane]] = MappingProxyType(
    {
        Hello: "first",
        Heartbeat: "first",
        Rejected: "first",
        Report: "first",
        Call: "first",
        Staged: "first",
        Drained: "first",
        Progress: "lossy",
        Goodbye: "last",
        Welcome: "first",
        HeartbeatAck: "first",
        Return: "first",
        Ack: "acks",
        Assign: "ordered",
        Cancel: "ordered",
        Stage: "ordered",
        Drain: "ordered",
        Bye: "last",
    }
)
"""A Cancel never passes the Assign it is about, so both wait in one lane; last words wait for everything else."""


class Fault(msgspec.Struct, frozen=True):
    """Why something can't be said or taken. `code`: OutOfPlace, BadNumber, TooLarge."""

    code: str
    message: str


class Taken(msgspec.Struct, frozen=True):
    """What one frame brought. `delivered`: attempts of our Assigns the peer is now known to have seen.

    `stale`: the frame's number had been passed, nothing was taken. `missed`: frames lost before this one.
    """

    items: tuple[Item, ...] = ()
    delivered: tuple[AttemptId, ...] = ()
    stale: bool = False
    missed: int = 0


class Link:
    """The state of one end of one stream."""

    def __init__(self, end: End, *, edge: bool = False) -> None:
        self.end: End = end
        self.edge = edge  # the orchestrator learns it from Hello
        self.phase = Phase.OPENING
        self.sent = 0
        self.seen = 0
        self.confirmed = 0
        self.queued_bytes = 0
        self.dropped_progress = 0
        self.packed = False
        """Both ends know PACKED."""
        self._peer: End = "worker" if end == "orchestrator" else "orchestrator"
        self._first: deque[tuple[int, Item]] = deque()
        self._ordered: deque[tuple[int, Item]] = deque()
        self._lossy: deque[tuple[int, Item]] = deque()
        self._acks: deque[AttemptId] = deque()
        self._last: Item | None = None
        self._assigned: deque[tuple[int, tuple[AttemptId, ...]]] = deque()

    @property
    def only_acks(self) -> bool:
        """Nothing but acknowledgements waits: nobody is kept up by them, so they may travel with what comes next."""
        return bool(self._acks) and len(self._acks) == self.queued

    @property
    def queued(self) -> int:
        """Items that wait to be cut, without Progress, which gives way by itself. An Ack counts by its attempts."""
        return len(self._first) + len(self._ordered) + len(self._acks) + (self._last is not None)

    @property
    def left(self) -> bool:
        """Whether this end has said its last word (or is about to, once the rest is cut)."""
        mine = Phase.WORKER_LEFT if self.end == "worker" else Phase.SERVER_LEFT
        return self.phase in (mine, Phase.CLOSED)

    @property
    def peer_left(self) -> bool:
        """Whether the peer's end was clean: it said its last word."""
        theirs = Phase.SERVER_LEFT if self.end == "worker" else Phase.WORKER_LEFT
        return self.phase in (theirs, Phase.CLOSED)

    @property
    def unconfirmed(self) -> int:
        """Frames with work that the peer has not said it has seen."""
        return len(self._assigned)

    def put(self, item: Item) -> Fault | None:
        """Queue what this end has to say; a Fault (and nothing queued) where it may not be said."""
        kind = type(item)
        after = TABLE.get((self.phase, kind))
        if after is None or kind not in SAYS[self.end]:
            return Fault("OutOfPlace", f"the {self.end} can't say {kind.__name__} while the link is {self.phase.value}")
        if isinstance(item, Ack):
            self._acks.extend(item.attempts)
            self.queued_bytes += 16 * len(item.attempts)
            return None
        size = weight(item)
        if size > ITEM_BYTES:
            return Fault("TooLarge", f"{kind.__name__} of {size} bytes, {ITEM_BYTES} are allowed")
        self.phase = after
        if type(item) is Welcome:
            self.packed = bool(item.features & PACKED)
        lane = LANES[kind]
        if lane == "last":
            self._last = item
            return None
        self.queued_bytes += size
        if lane == "lossy":
            self._lossy.append((size, item))
            if len(self._lossy) > PROGRESS_KEPT:
                self.queued_bytes -= self._lossy.popleft()[0]
                self.dropped_progress += 1
        else:
            (self._first if lane == "first" else self._ordered).append((size, item))
        return None

    def cut(self) -> Frame | None:
        """The next frame, or None when nothing waits. Results and answers go first, without starving work in order."""
        if not (self._first or self._ordered or self._acks or self._lossy or self._last):
            return None
        items: list[Item] = []
        full = EDGE_FRAME_BYTES if self.edge else FRAME_BYTES
        reserve = min(len(self._ordered), _ORDERED_SHARE)
        acks = 1 if self._acks else 0
        used = self._fill(items, self._first, ITEMS_LIMIT - acks - reserve, full * 3 // 4 if reserve else full, 0)
        if self._acks and used < full:
            batch = [self._acks.popleft() for _ in range(min(len(self._acks), ACKS_PER_FRAME))]
            items.append(Ack(tuple(batch)))
            self.queued_bytes -= 16 * len(batch)
            used += 16 * len(batch)
        used = self._fill(items, self._ordered, ITEMS_LIMIT, full, used)
        self._fill(items, self._lossy, ITEMS_LIMIT, full, used)
        if self._last is not None and len(items) < ITEMS_LIMIT and not self.queued - 1:
            items.append(self._last)
            self._last = None
        if not items:
            return None
        self.sent += 1
        assigned = tuple([item.attempt for item in items if type(item) is Assign])
        if assigned:
            self._assigned.append((self.sent, assigned))
        return Frame(self.sent, self.seen, tuple(items), self.packed)

    def _fill(self, items: list[Item], lane: deque[tuple[int, Item]], most: int, full: int, used: int) -> int:
        """Move items over while they fit; the first item of a frame always does."""
        while lane and len(items) < most:
            size = lane[0][0]
            if items and used + size > full:
                break
            items.append(lane.popleft()[1])
            used += size
            self.queued_bytes -= size
        return used

    def take(self, frame: Frame) -> Taken | Fault:
        """What a frame of the peer means for this link. After a Fault the stream has to end: say Bye, or dial again."""
        if frame.seen > self.sent:
            return Fault("BadNumber", f"frame {frame.seen} is said to be seen, {self.sent} were sent")
        if frame.n < 1:
            return Fault("BadNumber", "frames are numbered from 1")
        if frame.n <= self.seen:
            return Taken(stale=True)
        phase = self.phase
        may = SAYS[self._peer]
        for item in frame.items:
            kind = type(item)
            after = TABLE.get((phase, kind))
            if after is None or kind not in may:
                return Fault("OutOfPlace", f"{kind.__name__} from the {self._peer} while the link is {phase.value}")
            phase = after
            if type(item) is Welcome:
                self.packed = bool(item.features & PACKED)
        missed = frame.n - self.seen - 1
        self.phase = phase
        self.seen = frame.n
        return Taken(frame.items, self._delivered(frame.seen), missed=missed)

    def _delivered(self, seen: int) -> tuple[AttemptId, ...]:
        self.confirmed = max(self.confirmed, seen)
        assigned = self._assigned
        if not assigned or assigned[0][0] > seen:
            return ()
        found: list[AttemptId] = []
        while assigned and assigned[0][0] <= seen:
            found.extend(assigned.popleft()[1])
        return tuple(found)


def weight(item: Item) -> int:
    """About how many bytes an item takes on the wire, on the safe side for ASCII. Hello is always alone, so it's 0."""
    if type(item) is Report:
        outcome = item.outcome
        if type(outcome) is Success:
            return 256 + (len(outcome.value) if type(outcome.value) is bytes else 200)
        return 256 + _texts(outcome)
    if type(item) is Assign:
        size = 256 + len(item.spec) + len(item.name)
        for one in item.inputs:
            size += _input(one)
        if item.items or item.files:
            size += sum([_input(one) for group in item.items for one in group])
            size += sum(200 + len(file.uri) for file in item.files)
        return size
    match item:
        case Progress():
            return 64 + len(item.body)
        case Call():
            return 96 + len(item.body)
        case Return():
            return 64 + len(item.value) + len(item.error)
        case Heartbeat():
            return 64 + 16 * len(item.inventory) + sum(4 + len(one) for one in (*item.cached, *item.uncached))
        case Welcome() | HeartbeatAck():
            return 128 + 20 * len(item.verdicts)
        case Hello():
            return 0
        case _:
            return 64 + _texts(item)


def _input(one: Input) -> int:
    if one.parts is None and not one.pointer:
        return 24 + len(one.key) + (len(one.value) if isinstance(one.value, bytes) else 200)
    parts = (one.value,) if one.parts is None else (one.value, *one.parts)
    size = 16 + len(one.key) + sum(4 + len(step) for step in one.pointer)
    return size + sum([8 + len(part) if isinstance(part, bytes) else 200 for part in parts])


def _texts(noun: msgspec.Struct) -> int:
    values = (getattr(noun, field) for field in noun.__struct_fields__)
    return sum(8 + len(value) for value in values if isinstance(value, str))


# Liveness: the arithmetic of heartbeats and leases (wire.md section 5)


class Timing(msgspec.Struct, frozen=True):
    """Seconds. `broken_s`: after its stream broke a worker is suspect this soon. `stretch`: the orchestrator waits
    longer than the worker does, so the worker fences itself first."""

    heartbeat_s: float = 1.0
    suspect_s: float = 2.5
    lease_s: float = 5.0
    broken_s: float = 0.3
    stretch: float = 1.2


NORMAL: Final = Timing()
EDGE: Final = Timing(heartbeat_s=5.0, suspect_s=12.0, lease_s=30.0)


def timing(edge: bool) -> Timing:
    return EDGE if edge else NORMAL


def worker_fence(acked_at: float, times: Timing) -> float:
    """When a worker's lease ends: counted from the *sending* of the last heartbeat that was acknowledged."""
    return acked_at + times.lease_s


def suspect_from(heard_at: float, broken_at: float | None, times: Timing, loop_lag_s: float = 0.0) -> float:
    """When the orchestrator starts to doubt a worker: by silence, or soon after its stream broke."""
    silent = heard_at + times.suspect_s + loop_lag_s
    return silent if broken_at is None else min(silent, broken_at + times.broken_s)


def lost_from(heard_at: float, times: Timing, loop_lag_s: float = 0.0) -> float:
    """When the orchestrator gives a worker's attempts up: from the *receipt* of its last heartbeat. Time that the
    orchestrator's own loop stood still is not the worker's silence."""
    return heard_at + times.lease_s * times.stretch + loop_lag_s


HEALTHY_S: Final = 0.3
"""A stream that lived so long after its Welcome is no failure: the waits start anew. Not shorter, so that a server
that dies at once, or never says welcome, is not dialled faster; not longer: an orchestrator that died every second had
workers wait two seconds and more for it."""


def failures_after(failures: int, lived_s: float) -> int:
    """How many of them in a row there are, after a stream that lived so long; 0 seconds if there was no Welcome."""
    return 0 if lived_s > HEALTHY_S else failures + 1


def redial_s(failures: int, luck: float) -> float:
    """How long to wait before dialling again: full jitter, 0.1 s to 5 s. `luck` is a uniform draw.

    It grows slowly, so that no wait is much longer than the outage was: after a restart of two seconds the last of 500
    workers is back two seconds later; with doubling it took five.
    """
    return 0.1 + luck * (min(5.0, 0.1 * _GROWTH ** min(failures, 16)) - 0.1)
