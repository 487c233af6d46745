"""How long bytes are under way to a worker: its own transfers, else those over links like its own, else its profile.

A link is a latency and a throughput: the Theil-Sen line of seconds over bytes through the last fifty transfers. Where
they were all of one size it is the line of the profile, bent to what was seen. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from protocol.profile import LinkProfile

from .history import FLOOR_S, WINDOW
from .regression import line, median, quantile
from .score import Score, Tally

OWN: Final = 5
"""Transfers of its own that a worker must have for them to count instead of those of its class."""
_APART: Final = 65_536
"""Bytes between the smallest and the largest transfer from which they tell the throughput."""
_SETTLED: Final = 8
"""After so many transfers the line is fitted once for so many more."""


class Path:
    """Transfers that are alike: those of one worker, or over links of one class."""

    def __init__(self, link: LinkProfile) -> None:
        self.link = link
        self.count = 0
        self.latency_s, self.byte_s = link.latency_s, 1.0 / link.bandwidth
        self._seen: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._over: deque[float] = deque(maxlen=WINDOW)
        self._p95 = 1.0
        self._tally = Tally()

    def seconds(self, size_bytes: int) -> float:
        return self.latency_s + self.byte_s * size_bytes

    def score(self) -> Score:
        return self._tally.score()

    def add(self, size_bytes: int, seconds: float) -> None:
        seconds = max(seconds, FLOOR_S)
        if self.count:
            said = max(self.seconds(size_bytes), FLOOR_S)
            self._tally.add(said, said * self._p95, seconds)
            self._over.append(seconds / said)
        self.count += 1
        self._seen.append((size_bytes, seconds))
        if self.count <= _SETTLED or self.count % _SETTLED == 0:
            self._fit()

    def _fit(self) -> None:
        sizes, took = [float(size) for size, _ in self._seen], [seconds for _, seconds in self._seen]
        found = line(sizes, took) if max(sizes) - min(sizes) >= _APART else None
        if found is not None and found[1] > 0.0:
            self.latency_s, self.byte_s = max(0.0, found[0]), found[1]
        else:
            latency_s, byte_s = self.link.latency_s, 1.0 / self.link.bandwidth
            bent = median([s / max(latency_s + byte_s * b, FLOOR_S) for b, s in self._seen])
            self.latency_s, self.byte_s = latency_s * bent, byte_s * bent
        if self._over:
            self._p95 = max(1.0, quantile(sorted(self._over), 0.95))


class Passages:
    """Every path by worker and by class of link."""

    def __init__(self) -> None:
        self._own: dict[int, Path] = {}
        self._alike: dict[tuple[float, float], Path] = {}

    def note(self, worker: int, link: LinkProfile, size_bytes: int, seconds: float) -> None:
        """So many bytes took so long to or from the worker."""
        alike = link.bandwidth, link.latency_s
        for path in (
            self._own.get(worker) or self._own.setdefault(worker, Path(link)),
            self._alike.get(alike) or self._alike.setdefault(alike, Path(link)),
        ):
            path.add(size_bytes, seconds)

    def seconds(self, worker: int, link: LinkProfile, size_bytes: int) -> float:
        """What so many bytes are expected to take."""
        if self._own:
            path = self._own.get(worker)
            if path is None or path.count < OWN:
                path = self._alike.get((link.bandwidth, link.latency_s)) or path
            if path is not None:
                return path.seconds(size_bytes)
        return link.latency_s + size_bytes / link.bandwidth

    def count(self, worker: int) -> int:
        """How many transfers of that worker are known."""
        path = self._own.get(worker)
        return 0 if path is None else path.count

    def paths(self) -> list[tuple[int, Path]]:
        """Each worker that has moved something, and its path."""
        return list(self._own.items())
