"""The free time of one slot, as gaps: what list scheduling with insertion looks through.

Invariant: gaps are disjoint, sorted, and the last one never ends. A dense slot has few gaps however much runs on it,
so a look costs next to nothing. It must not know tasks.
"""

from __future__ import annotations

from bisect import bisect_left

from .problem import INF


class Timeline:
    """One slot."""

    __slots__ = ("begins", "ends")

    def __init__(self, free_s: float = 0.0) -> None:
        self.begins = [free_s]
        self.ends = [INF]

    def earliest(self, ready_s: float, run_s: float) -> float:
        """When something that is ready then and takes so long can start: in the first gap that holds it."""
        begins, ends = self.begins, self.ends
        at = bisect_left(ends, ready_s) if ready_s < begins[-1] else len(ends) - 1
        begin = begins[at]
        start = begin if begin > ready_s else ready_s
        while start + run_s > ends[at]:
            at += 1
            start = begins[at]
            if start < ready_s:
                start = ready_s
        return start

    def take(self, start_s: float, finish_s: float) -> None:
        """Use time that `earliest` has found. An instant takes none."""
        if finish_s <= start_s:
            return
        begins, ends = self.begins, self.ends
        at = bisect_left(ends, finish_s)
        if start_s == begins[at]:
            if finish_s >= ends[at]:
                del begins[at], ends[at]
            else:
                begins[at] = finish_s
            return
        end = ends[at]
        ends[at] = start_s
        if finish_s < end:
            begins.insert(at + 1, finish_s)
            ends.insert(at + 1, end)
