"""Whose turn it is while several runs wait: one entry at a time, so that nobody's queue goes before everybody else's.

Lanes are ordered by the class of their run, the share of its user, its priority, its own share, then as the entries of
one run are: latest start, rank, arrival. Within a flush shares only grow, so a key that was stored is a lower bound,
and only what comes to the top is computed again: a step costs the logarithm of what waits. One per flush.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any, Final

from protocol.task import SLA_CLASSES, Sla

from .expectation import typical_s
from .queue import Lane
from .turn import Turn

ORDER: Final[dict[Sla, int]] = {word: place for place, word in enumerate(SLA_CLASSES)}


class _Group:
    """The lanes of one user's runs of one class, the first on top."""

    def __init__(self, user: str, order: int) -> None:
        self.user = user
        self.order = order
        self.lanes: list[tuple[Any, int, Lane]] = []


class Round:
    """See the module."""

    def __init__(self, turn: Turn, lanes: Iterable[Lane]) -> None:
        ledger = self._ledger = turn.ledger
        ledger.follow(turn.fleet, lambda load: typical_s(turn, load), turn.now)
        self._priority: dict[int, int] = {}
        groups: dict[tuple[str, int], _Group] = {}
        for n, lane in enumerate(lanes):
            run = turn.state.runs.get(lane.run)
            if run is None or not lane.heap:
                continue
            self._priority[run.ix] = run.settings.priority
            key = run.author, ORDER[run.settings.sla]
            group = groups.get(key)
            if group is None:
                group = groups[key] = _Group(*key)
            ledger.open(run)
            group.lanes.append((self._key_of(lane), n, lane))
        self._groups: list[tuple[Any, int, _Group]] = []
        for n, group in enumerate(groups.values()):
            heapq.heapify(group.lanes)
            self._groups.append((self._key(group, group.lanes[0][2]), n, group))
        heapq.heapify(self._groups)

    def first(self) -> Lane | None:
        """The lane whose next entry goes first; None when no lane has both an entry and room."""
        groups = self._groups
        while groups:
            key, n, group = groups[0]
            lane = self._first_of(group)
            if lane is None:
                heapq.heappop(groups)
                continue
            now = self._key(group, lane)
            if now == key:
                return lane
            heapq.heapreplace(groups, (now, n, group))
        return None

    def _first_of(self, group: _Group) -> Lane | None:
        lanes = group.lanes
        while lanes:
            key, n, lane = lanes[0]
            if not lane.heap or lane.over:
                heapq.heappop(lanes)
                continue
            now = self._key_of(lane)
            if now == key:
                return lane
            heapq.heapreplace(lanes, (now, n, lane))
        return None

    def _key(self, group: _Group, lane: Lane) -> Any:
        return group.order, self._ledger.step_of_user(group.user), lane.heap[0]

    def _key_of(self, lane: Lane) -> Any:
        return -self._priority[lane.run], self._ledger.step_of_run(lane.run), lane.heap[0]
