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

MOST_GROUPS: Final = 6
_UNKNOWN: Final = DeviceProfile("")
"""What a label names that is no device."""
_STEPS: Final = ((1.1, 4.0), (1.1, 64.0), (1.1, math.inf), (1.3, math.inf), (1.7, math.inf), (3.0, math.inf))
"""Devices whose speeds are within such a factor count as alike, and links within such a one: the first pair that makes
few enough groups."""
_LATE: Final = 3
"""Devices that are busy for longer than expected, of which a decision asks again how long they may be."""


class Berth:
    """One device of one session, and what a task would take of it."""

    __slots__ = ("asked_at", "device", "free", "group", "needs", "profile", "session", "speed")

    def __init__(self, session: Session, device: str, needs: dict[str, float]) -> None:
        self.session = session
        self.device = device
        self.needs = needs
        self.speed = session.speed.get(device, 1.0)
        self.profile = session.device.get(device) or _UNKNOWN
        self.group: Group
        self.free = True
        """It is on the shelf of those that could start a task at once."""
        self.asked_at = -1.0
        """When it was asked last for how long it is full."""

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
        self._due: list[tuple[float, int, Berth, float, float]] = []
        """(when, number, who, when it was asked, what it was expected then)"""
        self._asked = 0
        self.predicted_of = (-1, 0, 0, -1)
        """(fits of the predictor, bytes of input, elements) that `predicted_s` is the run time of."""
        self.predicted_s = 0.0
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

    def soonest(self, now: float, wait_s: Callable[[Session], float]) -> tuple[Berth, float]:
        """The one that is expected to have a free slot first, and in how many seconds.

        Each is asked once, when it is found full. What is late is expected to take as long again as it is late: waiting
        for it gets ever less attractive.
        """
        due = self._due
        for berth in self.unsure:
            if not berth.free:
                self._expect(berth, now, now + wait_s(berth.session))
        self.unsure.clear()
        late = 0
        while due:
            at, _, berth, asked_at, first = due[0]
            if berth.free or berth.asked_at != asked_at:
                heapq.heappop(due)
            elif at > now or late == _LATE:
                return berth, max(0.0, at - now)
            else:
                late += 1
                heapq.heapreplace(due, (now + max(now - first, (first - asked_at) * 0.1, 1e-3), *due[0][1:]))
        return self.berths[0], 0.0

    def _expect(self, berth: Berth, now: float, at: float) -> None:
        berth.asked_at = now
        self._asked += 1  # every entry is unique, so that berths are never compared
        heapq.heappush(self._due, (at, self._asked, berth, now, at))


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
        groups = _exactly(up)
        self.exact = len(groups) <= MOST_GROUPS
        """The members of a group don't differ at all."""
        steps = iter((*_STEPS, (math.inf, math.inf)))
        while len(groups) > MOST_GROUPS:
            groups = _similar(up, *next(steps))
        self.groups = [Group(berths, era) for berths in groups]
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


def _exactly(berths: Iterable[Berth]) -> list[list[Berth]]:
    """Those that differ in nothing that placement knows of."""
    groups: dict[object, list[Berth]] = {}
    for berth in berths:
        session, device = berth.session, berth.profile
        link = session.profile.link
        alike = session.device_class.get(berth.device, berth.device), berth.speed, tuple(sorted(berth.needs.items()))
        other = session.profile.edge, link.bandwidth, link.latency_s, device.price_per_s, device.watts
        groups.setdefault((alike, other), []).append(berth)
    return list(groups.values())


def _similar(berths: Iterable[Berth], speed: float, link: float) -> list[list[Berth]]:
    """Those whose speeds and links are within these factors of each other, and whose price is."""
    groups: dict[object, list[Berth]] = {}
    first: dict[tuple[str, int], float] = {}
    for berth in sorted(berths, key=lambda one: one.speed):
        way, price = berth.session.profile.link, berth.profile.price_per_s
        steps = (
            (math.log(way.bandwidth) // math.log(link), math.log1p(price) // math.log(2.0)) if link < math.inf else ()
        )
        number = sum(device == berth.device for device, _ in first)
        if not number or berth.speed > first[berth.device, number - 1] * speed:
            first[berth.device, number] = berth.speed
            number += 1
        groups.setdefault((berth.device, number, steps), []).append(berth)
    return list(groups.values())


NOBODY: Final = Roster((), frozenset(), -1)
