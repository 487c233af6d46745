"""Bytes on their way, links shared max-min fairly: what transfers get when they compete.

Each worker has one link, full duplex. A flow takes the uplink of its source and the downlink of its target; rates are
those of progressive filling (Bertsekas and Gallager, Data Networks, 6.5.2): nobody can get more without somebody who
has no more getting less. All flows of one pair have one rate, so the books are kept by pair: what each of its flows
has been given so far, and a heap of what each wants.

Time only moves forward: `advance` before every `begin`. It must not know tasks: a flow carries any value as its name.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Generic, TypeVar

from .problem import INF

T = TypeVar("T")


class _Pair(Generic[T]):
    """All flows from one worker to another."""

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target
        self.rate = 0.0
        self.given = 0.0
        """Bytes each of its flows has been given since the pair was last empty."""
        self.wants: list[tuple[float, int, T]] = []


class Flows(Generic[T]):
    """`bandwidth` by worker in bytes/s, for each direction. `relayed`: nobody's uplink is in the way."""

    def __init__(self, bandwidth: Sequence[float], relayed: bool = False) -> None:
        self._bandwidth = bandwidth
        self._relayed = relayed
        self._pairs: dict[tuple[int, int], _Pair[T]] = {}
        self._now_s = 0.0
        self._begun = 0
        self._stale = False

    def begin(self, source: int, target: int, size_bytes: float, name: T) -> None:
        """From now on `size_bytes` go from worker to worker; `advance` gives the name back when they are there."""
        pair = self._pairs.get((source, target))
        if pair is None:
            pair = self._pairs[source, target] = _Pair(source, target)
        self._begun += 1
        heapq.heappush(pair.wants, (pair.given + size_bytes, self._begun, name))
        self._stale = True

    def next_s(self) -> float:
        """When the next flow ends if none begins before; INF without any."""
        if self._stale:
            self._share()
        found = INF
        for pair in self._pairs.values():
            left = pair.wants[0][0] - pair.given
            if left <= 0:
                return self._now_s
            if pair.rate > 0:
                found = min(found, self._now_s + left / pair.rate)
        return found

    def advance(self, now_s: float) -> list[T]:
        """Let time pass to `now_s`; the names of the flows that end at it, in the order in which they began per pair.

        Never past `next_s`: rates change there.
        """
        if self._stale:
            self._share()
        passed, self._now_s = now_s - self._now_s, now_s
        ended: list[T] = []
        for key, pair in list(self._pairs.items()):
            if passed > 0:
                pair.given += pair.rate * passed
            slack = pair.rate * (1e-9 + now_s * 1e-12)  # a nanosecond: what rounding may have left
            while pair.wants and pair.wants[0][0] <= pair.given + slack:
                ended.append(heapq.heappop(pair.wants)[2])
                self._stale = True
            if not pair.wants:
                del self._pairs[key]
        return ended

    def rate(self, source: int, target: int) -> float:
        """Bytes/s that each flow of this pair has now; 0 where there is none."""
        pair = self._pairs.get((source, target))
        return pair.rate if pair is not None else 0.0

    def _share(self) -> None:
        """Progressive filling: the tightest link fixes the rate of all flows on it, then what is left is shared."""
        self._stale = False
        left: dict[tuple[bool, int], float] = {}
        on: dict[tuple[bool, int], list[_Pair[T]]] = {}
        flows: dict[tuple[bool, int], int] = {}
        for pair in self._pairs.values():
            for link in ((False, pair.source), (True, pair.target)):
                left.setdefault(link, self._bandwidth[link[1]] if link[0] or not self._relayed else INF)
                on.setdefault(link, []).append(pair)
                flows[link] = flows.get(link, 0) + len(pair.wants)
        fixed: set[int] = set()
        while flows:
            tightest = min(flows, key=lambda link: left[link] / flows[link])
            rate = max(left[tightest], 0.0) / flows[tightest]
            for pair in on[tightest]:
                if id(pair) in fixed:
                    continue
                fixed.add(id(pair))
                pair.rate = rate
                for link in ((False, pair.source), (True, pair.target)):
                    if link in flows:
                        left[link] -= rate * len(pair.wants) if left[link] < INF else 0.0
                        flows[link] -= len(pair.wants)
                        if not flows[link]:
                            del flows[link]
            flows.pop(tightest, None)
