"""Who may run a kind of task, arranged so that a decision looks at few of them, however many there are.

Devices that are alike (in kind, speed, link, price) form a group; a decision looks at the next of each group that has
room. Invariant: a device with room is on its group's shelf. It leaves the shelf when it is looked at and turns out to
have none, and is back with the first thing its session gives back (`Session.loosen`). Fleet knowledge, for as long as
the fleet doesn't change; which of them a task takes is not decided here.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from protocol.profile import DeviceProfile

from .fleet import Session

MOST_GROUPS: Final = 8
_UNKNOWN: Final = DeviceProfile("")
"""What a label names that is no device."""
_STEPS: Final = (0.0, 1.2, 1.5, 2.0, 4.0, 16.0, math.inf)
"""Devices whose speeds are within such a factor are alike, their links within its square: the first step at which there
are few enough groups."""
_LATE: Final = 3
"""Devices that are busy for longer than expected, of which a decision asks again how long they may be."""


class Berth:
    """One device of one session, and what a task would take of it."""

    __slots__ = ("device", "free", "group", "needs", "profile", "session", "speed")

    def __init__(self, session: Session, device: str, needs: dict[str, float]) -> None:
        self.session = session
        self.device = device
        self.needs = needs
        self.speed = session.speed.get(device, 1.0)
        self.profile = session.device.get(device) or _UNKNOWN
        self.group: Group
        self.free = True
        """It is on the shelf of those that could start a task at once."""

    @property
    def slots(self) -> int:
        """How many such tasks it runs at once."""
        return self.session.profile.slots


class Shelf:
    """Berths that may have room, in turns. `queue`: in a prefetch, else at once."""

    __slots__ = ("_at", "_era", "_queue", "berths")

    def __init__(self, berths: Iterable[Berth], era: int, *, queue: bool) -> None:
        self.berths = list(berths)
        self._era = era
        self._queue = queue
        self._at = -1

    def next(self, window: int, skip: Callable[[Berth], bool] | None = None) -> Berth | None:
        """One with room, in turns; those that are skipped stay."""
        berths, skipped = self.berths, 0
        while skipped < len(berths):
            self._at = at = (self._at + 1) % len(berths)
            berth = berths[at]
            session = berth.session
            if not (session.has_queue(berth.needs, window) if self._queue else session.has_slot(berth.needs)):
                self._take_off(at)
            elif skip is not None and skip(berth):
                skipped += 1
            else:
                return berth
        return None

    def _take_off(self, at: int) -> None:
        berth, last = self.berths[at], self.berths.pop()
        if last is not berth:
            self.berths[at] = last
        self._at -= 1
        session = berth.session
        if session.shut_in != self._era:  # rosters of a fleet that was otherwise
            session.shut_in = self._era
            session.shut.clear()
        session.shut.append((self, berth))
        if not self._queue:
            berth.free = False
            berth.group.unsure.append(berth)

    def reopen(self, berth: Berth) -> None:
        """Its session has given something back."""
        self.berths.append(berth)
        if not self._queue:
            berth.free = True


class Group:
    """Berths that are alike."""

    def __init__(self, berths: Sequence[Berth], era: int) -> None:
        self.berths = berths
        self.free = Shelf(berths, era, queue=False)
        self.slots = sum(berth.slots for berth in berths)
        self.unsure: list[Berth] = []
        """Taken off the shelf, and nobody has asked yet for how long."""
        self.promised = 0
        """Tasks that chose in this flush to wait for one of them."""
        self.flush = -1
        self._era = era
        self._light = not any(berth.needs.get("cpu") for berth in berths)
        self._queued = Shelf((), era, queue=True)
        self._window = 0
        self._due: list[tuple[float, int, Berth]] = []
        self._asked = 0
        for berth in berths:
            berth.group = self

    def next(self, window: int, skip: Callable[[Berth], bool] | None = None) -> Berth | None:
        """One that could be sent a task now: those that start it at once come first, the less busy of the next two.

        (The power of two choices: Mitzenmacher, TPDS 2001.) What takes no slot goes to each in turn.
        """
        found = self.free.next(0, skip)
        if found is not None:
            if self._light or len(self.free.berths) == 1:
                return found
            other = self.free.next(0, skip)
            assert other is not None
            return other if len(other.session.loads) < len(found.session.loads) else found
        if not window:
            return None
        if window > self._window:
            self._queued = Shelf(self.berths, self._era, queue=True)
        self._window = window
        return self._queued.next(window, skip)

    def soonest(self, now: float, busy_s: Callable[[Session], float]) -> tuple[Berth, float]:
        """The one that is expected to have a free slot first, and in how many seconds."""
        due = self._due
        for berth in self.unsure:
            if not berth.free:
                self._expect(berth, now + busy_s(berth.session))
        self.unsure.clear()
        late = 0
        while due:
            at, _, berth = due[0]
            if not berth.free and (at > now or late == _LATE):
                return berth, max(0.0, at - now)
            heapq.heappop(due)
            if not berth.free:
                late += 1
                self._expect(berth, now + busy_s(berth.session))
        return self.berths[0], 0.0

    def _expect(self, berth: Berth, at: float) -> None:
        self._asked += 1  # every entry is unique, so that berths are never compared
        heapq.heappush(self._due, (at, self._asked, berth))


class Roster:
    """All berths of a kind of task. `asking`: workers of these that ask a person before they run it."""

    def __init__(
        self, found: Iterable[tuple[Session, str, dict[str, float]]], asking: frozenset[int], era: int
    ) -> None:
        self.berths = [Berth(*one) for one in found]
        self.asking = asking
        self.era = era
        """The fleet's `changes` that it belongs to."""
        self.up = up = [berth for berth in self.berths if berth.session.phase == "up"]
        self.by_worker: dict[int, list[Berth]] = {}
        for berth in up:
            self.by_worker.setdefault(berth.session.worker, []).append(berth)
        for step in _STEPS:
            groups: dict[tuple[object, ...], list[Berth]] = {}
            for berth in up:
                groups.setdefault(_likeness(berth, step), []).append(berth)
            if len(groups) <= MOST_GROUPS:
                break
        self.groups = [Group(berths, era) for berths in groups.values()]
        self.exact = step == 0.0
        """The members of a group don't differ at all."""
        self.workers = len({berth.session.worker for berth in self.berths})
        self.alike = self.exact and len(self.groups) == 1 and not asking
        self._drawn = 0

    def next(self, window: int) -> Berth | None:
        """Any with room."""
        for group in self.groups:
            berth = group.next(window)
            if berth is not None:
                return berth
        return None

    def drawn(self, count: int) -> Iterator[Berth]:
        """So many of all, other ones each time."""
        for _ in range(count):
            self._drawn = (self._drawn * 6364136223846793005 + 1442695040888963407) % 2**64  # Knuth's MMIX
            yield self.up[(self._drawn >> 33) % len(self.up)]


NOBODY: Final = Roster((), frozenset(), -1)


def _likeness(berth: Berth, step: float) -> tuple[object, ...]:
    """Equal for berths that are alike."""
    session, device, speed = berth.session, berth.profile, berth.speed
    link = session.profile.link
    if not step:
        kind = session.device_class.get(berth.device, berth.device)
        shared = session.profile.edge, link.bandwidth, link.latency_s
        return kind, speed, device.price_per_s, device.watts, shared, tuple(sorted(berth.needs.items()))
    if step == math.inf:
        return ()
    fine, wide = math.log(step), 2.0 * math.log(step)
    return (
        berth.device,
        round(math.log(speed) / fine),
        round(math.log(link.bandwidth) / wide),
        round(math.log(max(link.latency_s, 1e-4)) / wide),
        round(math.log1p(device.price_per_s) / fine),
    )
