"""The fleet as it is now: sessions, free resources, leases, inventories. Never journaled, rebuilt from Hello.

Changed only by the machine's reactors, from stimuli. A session is one worker stream; an attempt that is `started`
holds its resources, a queued (prefetched) one holds none until an earlier one ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from protocol.ids import Fence
from protocol.profile import Policy, WorkerProfile

Key = tuple[int, int, int]
"""(run, task, attempt number)"""
LIGHT_WINDOW: Final = 1024
"""Attempts without cpu a session may hold: the dispatch credit of inline skills."""


class Load(msgspec.Struct, gc=False):
    """An attempt a session holds. `delivered`: the worker has seen its Assign; `resent`: missed, so sent again."""

    needs: dict[str, float]
    fence: Fence
    skill: str
    device: str
    at: float
    started: bool
    delivered: bool = False
    resent: bool = False
    cancelled: bool = False


class Session:
    """One worker's current stream."""

    def __init__(self, conn: int, worker: int, name: str, boot_id: str, profile: WorkerProfile, now: float) -> None:
        self.conn = conn
        self.worker = worker
        self.name = name
        self.boot_id = boot_id
        self.profile = profile
        self.phase: Literal["up", "suspect", "draining"] = "up"
        self.lease_s, self.heartbeat_s, self.suspect_s = (30.0, 5.0, 12.0) if profile.edge else (5.0, 1.0, 2.5)
        self.heard_at = now
        self.free: dict[str, float] = profile.capacity.amounts()
        self.slots_free = profile.slots
        self.light = 0
        self.loads: dict[Key, Load] = {}
        self.queue: deque[Key] = deque()
        self.draining_until = 0.0
        self.speed = {device.kind: device.speed for device in profile.devices} or {"cpu": 1.0}
        self.policies: tuple[tuple[str, Policy], ...] = profile.policies

    @property
    def open(self) -> bool:
        """May be given new work."""
        return self.phase == "up"

    def fits(self, needs: dict[str, float]) -> bool:
        """Whether the amounts are free now."""
        free = self.free
        return all(free.get(name, 0.0) + 1e-9 >= amount for name, amount in needs.items())

    def has_room(self, needs: dict[str, float], window: int) -> bool:
        """Whether an attempt with these needs may be sent: it starts at once, or waits in a prefetch of `window`."""
        if not needs.get("cpu"):
            return self.light < LIGHT_WINDOW and self.fits(needs)
        if self.slots_free > 0 and self.fits(needs):
            return True
        return len(self.queue) < window

    def take(self, key: Key, load: Load) -> None:
        """The attempt is on its way to the worker."""
        self.loads[key] = load
        if not load.needs.get("cpu"):
            self.light += 1
            self._reserve(load)
        elif self.slots_free > 0 and not self.queue and self.fits(load.needs):
            self.slots_free -= 1
            self._reserve(load)
        else:
            self.queue.append(key)

    def drop(self, key: Key) -> Load | None:
        """The attempt is over here; the first queued ones that fit now start."""
        load = self.loads.pop(key, None)
        if load is None:
            return None
        if load.started:
            for name, amount in load.needs.items():
                self.free[name] = self.free.get(name, 0.0) + amount
            if load.needs.get("cpu"):
                self.slots_free += 1
            else:
                self.light -= 1
        else:
            self.queue.remove(key)
        while self.queue and self.slots_free > 0 and self.fits(self.loads[self.queue[0]].needs):
            first = self.loads[self.queue.popleft()]
            self.slots_free -= 1
            self._reserve(first)
        return load

    def yield_cpu(self, key: Key) -> None:
        """A joining attempt returns its cpu and its slot, and keeps the rest."""
        load = self.loads.get(key)
        if load is None or not load.started or not load.needs.get("cpu"):
            return
        self.free["cpu"] = self.free.get("cpu", 0.0) + load.needs["cpu"]
        self.slots_free += 1
        load.needs = {name: amount for name, amount in load.needs.items() if name != "cpu"}
        self.light += 1

    def _reserve(self, load: Load) -> None:
        load.started = True
        for name, amount in load.needs.items():
            self.free[name] = self.free.get(name, 0.0) - amount

    def busy_s(self, now: float, run_s: Iterable[tuple[Load, float]]) -> float:
        """Seconds until the first started attempt is expected to end."""
        left = [max(expected - (now - load.at), expected * 0.1) for load, expected in run_s if load.started]
        return min(left, default=0.0)

    def check(self) -> None:
        """G7: resources in use never exceed capacity, and each is released exactly once."""
        capacity = self.profile.capacity.amounts()
        for name, amount in self.free.items():
            assert -1e-6 <= amount <= capacity.get(name, 0.0) + 1e-6, f"G7: {self.name} has {amount} of {name} free"
        assert 0 <= self.slots_free <= self.profile.slots, f"G7: {self.name} has {self.slots_free} slots free"


class Fleet:
    """Every session by worker, and when the leases of those that are away run out."""

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self.by_conn: dict[int, Session] = {}
        self.away: dict[int, float] = {}
        """Worker -> run time at which its lease ends; then its live attempts are lost."""
        self.broken_at: dict[int, float] = {}
        self.last_boot: dict[int, str] = {}
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
        self.last_boot[session.worker] = session.boot_id
        self.changes += 1

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
