"""The fleet as it is now: sessions, free resources, leases, inventories. Never journaled, rebuilt from Hello.

Changed only by the machine's reactors, from stimuli. A session is one worker stream; an attempt that is `started`
holds its resources, a queued (prefetched) one holds none until an earlier one ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

import msgspec

from protocol.card import Dealt, cards_of
from protocol.frame import Held
from protocol.ids import Fence
from protocol.link import timing
from protocol.profile import DeviceProfile, Policy, WorkerProfile, device_class

from ..placement.predictor import Prediction
from .health import Health

Key = tuple[int, int, int]
"""(run, task, attempt number)"""
LIGHT_WINDOW: Final = 1024
"""Attempts without cpu a session may hold: the dispatch credit of inline skills."""


ANNOUNCED_MOST: Final = 20
ANNOUNCED_S: Final = 600.0
"""A worker says something new of itself at most so often within that time."""
FLAPPING_S: Final = 60.0
FLAPS: Final = 4
"""So many daemons that take a stream over from each other within that time are not restarts."""
_PLAIN: Final = DeviceProfile("cpu")


class Displacement(msgspec.Struct, frozen=True, gc=False):
    """Why an attempt is to make room, the worker that its task had better not come back to (-1: any may be), and the
    run that it makes room for (0: none)."""

    why: str
    avoid: int = -1
    room_for: int = 0


class Load(msgspec.Struct, gc=False):
    """An attempt a session holds. `delivered`: the worker has seen its Assign; `resent`: missed, so sent again."""

    needs: dict[str, float]
    fence: Fence
    skill: str
    device: str
    at: float
    """When it was sent; once it has started there, when it could."""
    started: bool
    delivered: bool = False
    resent: bool = False
    cancelled_at: float = -1.0
    """When it was last asked to stop; -1: never."""
    paused: bool = False
    """It waits for others: its cpu and its slot are returned."""
    predicted: Prediction | None = None
    """What was said of it when it left; None for short ones, and where that is not known any more."""
    counted: tuple[tuple[float, float, float, float], float] | None = None
    """What core.ledger holds its user for: amounts and part; None while nobody counts."""
    dealt: Dealt = ()
    """Its cards, once it has started."""
    charged_s: float = 0.0
    """It is a copy, of which its run's share for copies was charged so much."""
    beside: int = -1
    """How many others were expected on its device when it left; -1: nobody knows, or they don't matter."""
    warm_s: float = 0.0
    """For how long what it loads serves the next of its run there (core.warmth)."""
    late: bool = False
    """It has run over its time, and has a copy."""
    resumed: bool = False
    """It went on from a checkpoint: the time that it takes is not that of a whole run."""
    displaced: Displacement | None = None
    """It was asked to make room."""
    recalled: Displacement | None = None
    """It was asked back, should it not have begun."""


class Shelf(Protocol):
    """Where a device is found again that has room again."""

    def reopen(self, berth: Any) -> None: ...


def _classed(edge: bool) -> tuple[float, float, float]:
    """(lease, heartbeat, suspect) of a worker's class, in seconds."""
    times = timing(edge)
    return times.lease_s, times.heartbeat_s, times.suspect_s


class Session:
    """One worker's current stream."""

    def __init__(self, conn: int, worker: int, name: str, boot_id: str, profile: WorkerProfile, now: float) -> None:
        self.conn = conn
        self.worker = worker
        self.name = name
        self.boot_id = boot_id
        self.profile = profile
        self.capacity = profile.capacity.amounts()
        self.welcomed = False
        """It has spoken after its Hello, so the Welcome has reached it; until then nothing may overtake that."""
        self.phase: Literal["up", "suspect", "draining", "full"] = "up"
        self.lease_s, self.heartbeat_s, self.suspect_s = _classed(profile.edge)
        self.heard_at = now
        self.clear()
        self.holds: dict[Key, Held] = {}
        """What it has and the orchestrator can't judge yet: judged again at every heartbeat."""
        self.held_since: dict[Key, float] = {}
        """Of those that run there: since when."""
        self.graced = False
        """It has had the moment after a stall of our loop, and was not heard since."""
        self.junk = 0
        """What it said that doesn't count."""
        self.health = Health()
        """All of its streams share one (`Fleet.health`)."""
        self.sick = ""
        """Why it is in quarantine (core.quarantine)."""
        self.probing = False
        """It is tried: with one task at a time."""
        self.short = ""
        """Why it takes no new work although it is there (phase full)."""
        self.device = {device.kind: device for device in reversed(profile.devices)} or {"cpu": _PLAIN}
        """The first device of each kind: what placement takes all of that kind for."""
        self.speed = {kind: device.speed for kind, device in self.device.items()}
        self.device_class = {kind: device_class(device) for kind, device in self.device.items()}
        self.policies: tuple[tuple[str, Policy], ...] = profile.policies
        self.shut: list[tuple[Shelf, Any]] = []
        """Shelves (core.roster) that one of its devices was taken off, because it had no room."""
        self.shut_in = -1
        """The fleet's `changes` that those shelves belong to."""
        self.tell: Callable[[Session, Key, Load, int], None] | None = None
        """Who counts what gets onto the books (1) and off them (-1), while somebody does."""

    def clear(self) -> None:
        """Empty books, as if it held nothing."""
        self.free: dict[str, float] = dict(self.capacity)
        self.cards = cards_of(self.profile.devices, self.profile.capacity)
        self.slots_free = self.profile.slots
        self.light = 0
        self.loads: dict[Key, Load] = {}
        self.queue: deque[Key] = deque()
        self.resuming: deque[Key] = deque()
        """Attempts whose wait is over and that need their cpu again: they go before everything queued."""
        self.paused = 0
        self.kept_for: tuple[int, int] | None = None
        """The one task (run, task) that it is kept empty for (core.poison)."""

    @property
    def open(self) -> bool:
        """May be given new work."""
        return self.phase == "up"

    def could_hold(self, needs: dict[str, float]) -> bool:
        """Whether the amounts would be free if nothing was taken."""
        capacity = self.profile.capacity.amounts()
        if not all(capacity.get(name, 0.0) + 1e-9 >= amount for name, amount in needs.items()):
            return False
        return self.cards is None or self.cards.could_ever_hold(needs.get("gpu", 0.0), needs.get("vram", 0.0))

    def fits(self, needs: dict[str, float]) -> bool:
        """Whether the amounts are free now."""
        if not needs:
            return True
        free = self.free
        for name, amount in needs.items():
            if free.get(name, 0.0) + 1e-9 < amount:
                return False
        return self.cards is None or self.cards.fits(needs.get("gpu", 0.0), needs.get("vram", 0.0))

    def has_slot(self, needs: dict[str, float]) -> bool:
        """Whether an attempt with these needs would start at once."""
        if self.kept_for is not None:
            return False
        if not needs.get("cpu"):
            return self.light < LIGHT_WINDOW and self.fits(needs)
        if self.probing and self.slots_free < self.profile.slots:
            return False
        return self.slots_free > 0 and not self.resuming and self.fits(needs)

    def has_queue(self, needs: dict[str, float], window: int) -> bool:
        """Whether an attempt with these needs may wait there, in a prefetch of `window`."""
        return self.kept_for is None and len(self.queue) < window and bool(needs.get("cpu")) and not self.probing

    def has_room(self, needs: dict[str, float], window: int) -> bool:
        """Whether an attempt with these needs may be sent."""
        return self.has_slot(needs) or self.has_queue(needs, window)

    def beside(self, needs: dict[str, float]) -> int:
        """How many attempts would share its cores with one more of these needs; -1 for one that wants none."""
        if not needs.get("cpu"):
            return -1
        slots = self.profile.slots
        return min(slots - self.slots_free, slots - 1)

    def keep_for(self, key: tuple[int, int] | None) -> None:
        """Keep it empty for this one task, or for none any more."""
        self.kept_for = key
        self.loosen()

    def loosen(self) -> None:
        """It has given something back: whoever found no room here may look again."""
        for shelf, berth in self.shut:
            shelf.reopen(berth)
        self.shut.clear()

    def take(self, key: Key, load: Load) -> None:
        """The attempt is on its way to the worker, or there already (`paused`: in a wait)."""
        self.loads[key] = load
        if self.tell is not None:
            self.tell(self, key, load, 1)
        held = self.holds.get(key)
        if held is not None and held.fence != load.fence:
            self.held_since.pop(key, None)
            del self.holds[key]  # an older one of this number: a verdict on it would be taken for one on this
        if not load.needs.get("cpu"):
            self.light += 1
            self._reserve(load)
        elif load.paused:
            self.paused += 1
            self._reserve(load)
            self.free["cpu"] = self.free.get("cpu", 0.0) + load.needs["cpu"]
        else:
            self.queue.append(key)
            self._start_queued()

    def drop(self, key: Key) -> Load | None:
        """The attempt is over here; the first queued ones that fit now start."""
        if self.kept_for == key[:2]:
            self.kept_for = None
        if self.shut:
            self.loosen()
        load = self.loads.pop(key, None)
        if load is None:
            return None
        if self.tell is not None:
            self.tell(self, key, load, -1)
        if not load.started:
            self.queue.remove(key)
            return load
        free = self.free
        for name, amount in load.needs.items():
            if name != "cpu" or not load.paused:
                free[name] = free.get(name, 0.0) + amount
        if load.dealt:
            self._return_cards(load)
        if not load.needs.get("cpu"):
            self.light -= 1
        elif load.paused:
            self.paused -= 1
            if key in self.resuming:
                self.resuming.remove(key)
        else:
            self.slots_free += 1
        if self.queue or self.resuming:
            self._start_queued()
        return load

    def yield_cpu(self, key: Key) -> None:
        """A waiting attempt returns its cpu and its slot, and keeps the rest."""
        load = self.loads.get(key)
        if load is None or load.paused or not load.needs.get("cpu"):
            return
        if not load.started and not self._overtakes(key, load):
            return
        load.paused = True
        self.paused += 1
        self.keep_for(None)  # what it waits for may need the room
        self.free["cpu"] = self.free.get("cpu", 0.0) + load.needs["cpu"]
        self.slots_free += 1
        self._start_queued()

    def _overtakes(self, key: Key, load: Load) -> bool:
        """Its worker has begun it before what was to begin first, whose Assign came late: that waits now."""
        busy = [
            one for one, other in self.loads.items() if other.started and not other.paused and other.needs.get("cpu")
        ]
        while busy and not (self.slots_free > 0 and self.fits(load.needs)):
            late = busy.pop()
            other = self.loads[late]
            other.started = False
            self.slots_free += 1
            for name, amount in other.needs.items():
                self.free[name] = self.free.get(name, 0.0) + amount
            self._return_cards(other)
            self.queue.appendleft(late)
        if self.slots_free <= 0 or not self.fits(load.needs):
            return False
        self.queue.remove(key)
        self.slots_free -= 1
        self._reserve(load)
        return True

    def reclaim_cpu(self, key: Key) -> None:
        """Its wait is over: it takes its cpu and its slot again as soon as they are free, before all others."""
        load = self.loads.get(key)
        if load is not None and load.paused and key not in self.resuming:
            self.resuming.append(key)
            self._start_queued()
            self.loosen()

    def _start_queued(self) -> None:
        while self.resuming and self.slots_free > 0:
            load = self.loads[self.resuming[0]]
            if self.free.get("cpu", 0.0) + 1e-9 < load.needs["cpu"]:
                return
            self.resuming.popleft()
            load.paused = False
            self.paused -= 1
            self.slots_free -= 1
            self.free["cpu"] -= load.needs["cpu"]
        while self.queue and self.slots_free > 0 and self.fits(self.loads[self.queue[0]].needs):
            first = self.loads[self.queue.popleft()]
            self.slots_free -= 1
            self._reserve(first)

    def _reserve(self, load: Load) -> None:
        load.started = True
        load.at = max(load.at, self.heard_at)  # what waited for another's end was told with it
        for name, amount in load.needs.items():
            self.free[name] = self.free.get(name, 0.0) - amount
        if self.cards is not None:
            load.dealt = self.cards.take(load.needs.get("gpu", 0.0), load.needs.get("vram", 0.0)) or ()

    def _return_cards(self, load: Load) -> None:
        if self.cards is not None:
            self.cards.give(load.dealt, load.needs.get("gpu", 0.0), load.needs.get("vram", 0.0))
        load.dealt = ()

    def check(self) -> None:
        """G7: resources in use never exceed capacity, and each is released exactly once."""
        capacity = self.capacity
        for name, amount in self.free.items():
            assert -1e-6 <= amount <= capacity.get(name, 0.0) + 1e-6, f"G7: {self.name} has {amount} of {name} free"
        busy = [load for load in self.loads.values() if load.started and load.needs.get("cpu") and not load.paused]
        assert self.slots_free == self.profile.slots - len(busy) >= 0, (
            f"G7: {self.name} has {self.slots_free} slots free, runs {len(busy)} of {self.profile.slots}"
        )
        if self.cards is not None:
            self.cards.check()
        assert self.paused == sum(load.paused for load in self.loads.values()), f"G7: {self.name} {self.paused} wait"


class Fleet:
    """Every session by worker, and when the leases of those that are away run out."""

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self.by_conn: dict[int, Session] = {}
        self.health: dict[int, Health] = {}
        self.away: dict[int, float] = {}
        """Worker -> run time at which its lease ends; then its live attempts are lost."""
        self.started_at = 0.0
        """When this start of the orchestrator was."""
        self.broken_at: dict[int, float] = {}
        """Worker -> when its stream ended; -1: with a Goodbye."""
        self.last_boot: dict[int, str] = {}
        self.welcomed: dict[int, int] = {}
        """Worker -> the epoch it was last welcomed in by this start."""
        self._graced: dict[int, set[str]] = {}
        self._announced: dict[int, deque[float]] = {}
        self._takeovers: dict[int, deque[tuple[float, str]]] = {}
        self.changes = 0
        """Counts what may change eligibility: joins, leaves, announcements."""

    def joined(self, session: Session) -> None:
        """A new stream; it supersedes an older one of the same worker."""
        old = self.sessions.get(session.worker)
        if old is not None:
            self.by_conn.pop(old.conn, None)
        self.sessions[session.worker] = session
        self.by_conn[session.conn] = session
        self.away.pop(session.worker, None)
        self.broken_at.pop(session.worker, None)
        self._graced.pop(session.worker, None)
        self.last_boot[session.worker] = session.boot_id
        self.changes += 1

    def grace(self, worker: int, what: str) -> bool:
        """Whether a worker that is away may have one more moment of this kind; it has each once until it is back."""
        had = self._graced.setdefault(worker, set())
        if what in had:
            return False
        had.add(what)
        return True

    def may_announce(self, worker: int, now: float) -> bool:
        """Whether a worker may say something new of itself: that is journaled, and stays in the catalog."""
        seen = self._announced.setdefault(worker, deque(maxlen=ANNOUNCED_MOST))
        if len(seen) == ANNOUNCED_MOST and seen[0] > now - ANNOUNCED_S:
            return False
        seen.append(now)
        return True

    def forget(self, worker: int) -> None:
        """It was dismissed. Somebody decides whether it is enrolled anew: then it may say who it is, as at first."""
        self.away.pop(worker, None)
        self._announced.pop(worker, None)
        self.changes += 1

    def flaps(self, old: Session, boot_id: str, now: float) -> bool:
        """Note that a daemon takes the stream of another one over. Whether two must be alive: one that was replaced is
        back, or it happens again and again."""
        seen = self._takeovers.setdefault(old.worker, deque(maxlen=FLAPS))
        seen.append((now, old.boot_id))
        recent = [boot for at, boot in seen if at > now - FLAPPING_S]
        return boot_id in recent or len(recent) == FLAPS

    def left(self, session: Session) -> None:
        """The stream is gone; the worker may come back."""
        self.by_conn.pop(session.conn, None)
        if self.sessions.get(session.worker) is session:
            del self.sessions[session.worker]
        self.changes += 1

    def check(self) -> None:
        """G7 of every session."""
        for session in self.sessions.values():
            session.check()
