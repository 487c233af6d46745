"""The simulated network: streams with the real link table at both ends, and everything that may befall a frame.

A frame may be lost, doubled, late, or overtake another of its own stream (the link then drops the older one); one
direction of a worker's line may be cut, or both. A stream ends separately at each end: a process that dies closes its
end at once, the other end hears of it after all that was on its way, or, while the line is cut or the machine had no
power to say so, only when its transport pings in vain. It must not know what frames mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from protocol.frame import Frame
from protocol.link import Link

from .fault import Faults

END_S: Final = 0.003
"""How soon an end hears that the other was closed."""
PING_S: Final = (1.0, 3.0)
"""How soon it notices by itself that nobody answers."""
LATE_S: Final = (0.1, 3.0)
"""By how much at most a frame may be late that others overtake."""


class Wire(Protocol):
    """What hears of frames and ends; `worker.number` is the place of the worker in the world."""

    def heard(self, stream: SimulatedStream, frame: Frame) -> None: ...
    def ended(self, stream: SimulatedStream) -> None: ...


class World(Protocol):
    now: float
    luck: Any
    faults: Faults
    hits: dict[str, int]

    @property
    def chaos(self) -> bool: ...
    def at(self, when: float, act: Callable[[], Any]) -> None: ...
    def hit(self, fault: str) -> None: ...
    def note(self, *what: object) -> None: ...


class SimulatedStream:
    """One stream of a worker: its two links, and which ends still live. `up` is towards the orchestrator."""

    def __init__(self, conn: int, line: int, worker: Wire, gateway: Wire, edge: bool) -> None:
        self.conn = conn
        self.line = line
        self.client = Link("worker", edge=edge)
        self.server = Link("orchestrator")
        self.ends: dict[bool, Wire | None] = {True: gateway, False: worker}
        """Who hears what goes up, and what goes down; None once that end is closed."""
        self.last = {True: 0.0, False: 0.0}

    @property
    def open(self) -> bool:
        """Both ends believe in it."""
        return self.ends[True] is not None and self.ends[False] is not None


class SimulatedNetwork:
    """All lines. A line is cut per direction."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._conns = 0
        self._cut: dict[tuple[int, bool], int] = {}
        self._streams: dict[int, SimulatedStream] = {}

    def dial(self, line: int, worker: Wire, gateway: Wire, *, edge: bool) -> SimulatedStream:
        self._conns += 1
        stream = self._streams[self._conns] = SimulatedStream(self._conns, line, worker, gateway, edge)
        return stream

    def reachable(self, line: int) -> bool:
        return not self._cut.get((line, True)) and not self._cut.get((line, False))

    def transmit(self, stream: SimulatedStream, up: bool, frame: Frame, *, late: bool = False) -> None:
        """Put a frame on its way, if luck has it so. `late`: it takes long, whatever comes after it."""
        world = self._world
        if late:
            world.at(world.now + world.luck.uniform(0.0, LATE_S[-1]), lambda: self._arrive(stream, up, frame))
            return
        if self._cut.get((stream.line, up)):
            world.hit("frame cut off")
            return
        luck, faults = world.luck, world.faults
        low, high = faults.delay_s
        at = world.now + luck.uniform(low, high)
        if world.chaos:
            if luck.random() < faults.loss:
                world.hit("frame lost")
                return
            if luck.random() < faults.duplicate:
                world.hit("frame doubled")
                world.at(at + luck.uniform(low, high), lambda: self._arrive(stream, up, frame))
            if luck.random() < faults.reorder:
                world.hit("frame delayed")
                world.at(at + luck.uniform(0.0, luck.choice(LATE_S)), lambda: self._arrive(stream, up, frame))
                return
        stream.last[up] = at = max(at, stream.last[up])
        world.at(at, lambda: self._arrive(stream, up, frame))

    def _arrive(self, stream: SimulatedStream, up: bool, frame: Frame) -> None:
        end = stream.ends[up]
        if end is not None:
            self._world.note(stream.conn, up, frame.n, frame.seen, len(frame.items))
            end.heard(stream, frame)

    def close(self, stream: SimulatedStream, up: bool, *, silently: bool = False) -> None:
        """The end that hears what goes `up` closes; the other hears of it, if there is anybody to say so."""
        if stream.ends[up] is None:
            return
        stream.ends[up] = None
        world = self._world
        if silently or self._cut.get((stream.line, not up)):
            world.at(world.now + world.luck.uniform(*PING_S), lambda: self._end(stream, not up))
        else:  # what it had sent before comes first
            at = max(world.now + END_S, stream.last[not up])
            world.at(at, lambda: self._end(stream, not up))

    def break_stream(self, stream: SimulatedStream) -> None:
        """The line breaks: both ends notice, each for itself; what was on its way is lost."""
        for up in (True, False):
            if stream.ends[up] is not None:
                self._world.at(self._world.now + END_S, lambda up=up: self._end(stream, up))  # type: ignore[misc]

    def _end(self, stream: SimulatedStream, up: bool) -> None:
        end = stream.ends[up]
        if end is not None:
            stream.ends[up] = None
            self._world.note("end", stream.conn, up)
            end.ended(stream)
        if stream.ends[not up] is None:
            self._streams.pop(stream.conn, None)

    def cut(self, line: int, length_s: float, ways: tuple[bool, ...] = (True, False)) -> None:
        """Nothing passes in these directions. Pings need both, so both ends give the stream up after a while."""
        world = self._world
        world.hit("cut" if len(ways) == 2 else "one-way cut")
        for up in ways:
            self._cut[line, up] = self._cut.get((line, up), 0) + 1
        for stream in [one for one in self._streams.values() if one.line == line]:
            for up in (True, False):
                world.at(
                    world.now + world.luck.uniform(*PING_S),
                    lambda one=stream, end=up: None if self.reachable(line) else self._end(one, end),  # type: ignore[misc]
                )

        def over() -> None:
            for up in ways:
                self._cut[line, up] = max(0, self._cut.get((line, up), 0) - 1)

        world.at(world.now + length_s, over)

    def heal(self) -> None:
        """Every line is whole."""
        self._cut.clear()
