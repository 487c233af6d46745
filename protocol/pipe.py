"""One direction of a network as data: what is sent, and when which copies of it arrive.

A Fate decides for each message: lost, delayed, doubled, overtaken by later ones. With a virtual clock this is the
network of the simulator; loopback builds its streams on it. It must not know what is sent, nor any clock.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from typing import Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")
Direction = Literal["to_server", "to_worker"]
Fate = Callable[[Direction, int], Sequence[float]]
"""(direction, k-th frame from 1) -> the delay in seconds of each copy that arrives; () is a lost frame."""


def faithful(_: Direction, __: int) -> Sequence[float]:
    return (0.0,)


class Weather(msgspec.Struct, frozen=True):
    """How bad the network is: chances per frame, and the bounds of a uniform delay, long enough to overtake."""

    loss: float = 0.0
    double: float = 0.0
    late: float = 0.0
    delay_s: tuple[float, float] = (0.001, 0.05)

    def fate(self, seed: int) -> Fate:
        """The same seed gives every frame the same fate, in whatever order they are asked for."""

        def decide(direction: Direction, k: int) -> Sequence[float]:
            draw = random.Random(f"{seed}/{direction}/{k}")
            if draw.random() < self.loss:
                return ()
            copies = 2 if draw.random() < self.double else 1
            return [draw.uniform(*self.delay_s) if draw.random() < self.late else 0.0 for _ in range(copies)]

        return decide


class Pipe(Generic[T]):
    """One direction of a network as pure data: push what is sent, pull what has arrived by now."""

    def __init__(self, direction: Direction, fate: Fate = faithful) -> None:
        self._direction: Direction = direction
        self._fate = fate
        self._sent = 0
        self._order = 0
        self._under_way: list[tuple[float, int, T]] = []

    def push(self, what: T, now: float) -> None:
        self._sent += 1
        for delay_s in self._fate(self._direction, self._sent):
            self._order += 1
            heapq.heappush(self._under_way, (now + delay_s, self._order, what))

    def pull(self, now: float) -> list[T]:
        """Everything due, in order of arrival."""
        due = []
        while self._under_way and self._under_way[0][0] <= now:
            due.append(heapq.heappop(self._under_way)[2])
        return due

    @property
    def next_at(self) -> float | None:
        return self._under_way[0][0] if self._under_way else None

    def __len__(self) -> int:
        return len(self._under_way)
