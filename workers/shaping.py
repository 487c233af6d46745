"""A simulated device on a real machine: slower runs, a narrower and longer link.

`--simulate speed=0.5,start=50ms,bandwidth=20Mbit,latency=20ms`. A worker under it says so in its labels and
device profiles. It shapes what passes through it and decides nothing.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from typing import Final, TypeVar

import anyio
import msgspec

from protocol.errors import AsterismError, UsageError
from protocol.frame import Frame
from protocol.port import FrameStream
from protocol.resource import size_bytes, span_s

T = TypeVar("T")
_SHORTEST_S: Final = 0.0012
"""So long asyncio sleeps at least: it counts whole milliseconds, and wakes up a little later."""


class Shape(msgspec.Struct, frozen=True):
    """`speed` relative to this machine, `bandwidth` in bytes/s (0: as it is), `latency_s` one way.

    `start_s`: what an attempt in a process takes before it does anything, as where programs come from a slow disk.
    """

    speed: float = 1.0
    bandwidth: float = 0.0
    latency_s: float = 0.0
    start_s: float = 0.0

    @property
    def is_plain(self) -> bool:
        return self == Shape()

    def extra_s(self, run_s: float) -> float:
        """How much longer the simulated device takes for what took `run_s` here."""
        return self.start_s + (run_s / self.speed - run_s)


def parse_shape(text: str) -> Shape:
    """Raises: UsageError naming the words there are."""
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            if name == "speed":
                found["speed"] = float(value)
            elif name == "bandwidth":
                found["bandwidth"] = _bandwidth(value)
            elif name in ("latency", "start"):
                found[f"{name}_s"] = span_s(value)
            else:
                raise ValueError(name)
        except ValueError:
            raise UsageError(
                f"--simulate {part!r} is not understood", hint="speed=0.5,start=50ms,bandwidth=20Mbit,latency=20ms"
            ) from None
    shape = Shape(**found)
    if not 0 < shape.speed <= 1 or min(shape.bandwidth, shape.latency_s, shape.start_s) < 0:
        raise UsageError("--simulate can only slow down", hint="speed from 0 to 1, the others from 0")
    return shape


async def sleep_until(due: float) -> None:
    """As exactly as the event loop can, on average.

    A long sleep ends some milliseconds too late, depending on its length, so the end of it is made of short ones.
    """
    await anyio.sleep_until(due - 4 * _SHORTEST_S)
    step, now = _SHORTEST_S, anyio.current_time()
    while due - now > step / 2:  # one more comes closer than none
        began = now
        await anyio.sleep(_SHORTEST_S / 4)
        now = anyio.current_time()
        step = min(step, now - began)


def _bandwidth(text: str) -> float:
    return size_bytes(text[:-3]) / 8 if text.endswith("bit") else float(size_bytes(text))


class ShapedStream:
    """A stream whose frames arrive `latency_s` later, in order, in both directions."""

    def __init__(self, inner: FrameStream, shape: Shape) -> None:
        self._inner = inner
        self._delay = shape.latency_s
        self._arrived: deque[tuple[float, Frame | None]] = deque()
        self._more = anyio.Event()
        self._sent: deque[tuple[float, Frame]] = deque()
        self._unsent = anyio.Event()
        self._error: AsterismError | None = None

    @property
    def peer(self) -> Mapping[str, str]:
        return self._inner.peer

    async def pump(self) -> None:
        """Carries frames in both directions until the stream ends; run it beside the session."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._carry)
            frame: Frame | None = Frame(0, 0, ())
            while frame is not None:
                try:
                    frame = await self._inner.receive()
                except AsterismError as error:
                    self._error, frame = error, None
                self._arrived.append((anyio.current_time() + self._delay, frame))
                self._more.set()
            await anyio.sleep_forever()

    async def _carry(self) -> None:
        while True:
            await self._unsent.wait()
            self._unsent = anyio.Event()
            while self._sent:
                due, frame = self._sent.popleft()
                await sleep_until(due)
                with contextlib.suppress(
                    AsterismError
                ):  # a frame that can't travel was cut wrong: the inventory heals it
                    await self._inner.send(frame)

    async def send(self, frame: Frame) -> None:
        self._sent.append((anyio.current_time() + self._delay, frame))
        self._unsent.set()

    async def receive(self) -> Frame | None:
        while not self._arrived:
            self._more = anyio.Event()
            await self._more.wait()
        due, frame = self._arrived.popleft()
        await sleep_until(due)
        if frame is None and self._error is not None:
            raise self._error
        return frame

    async def aclose(self) -> None:
        await self._inner.aclose()


class Lane:
    """One direction of the link: everything that goes over it at once shares its bandwidth, part by part."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._free_at = 0.0

    async def slowed(self, parts: AsyncIterable[T], size: Callable[[T], int]) -> AsyncGenerator[T, None]:
        """The parts of a transfer at the shape's pace, after its latency: once, as they follow each other closely."""
        shape = self._shape
        if shape.latency_s:
            await sleep_until(anyio.current_time() + shape.latency_s)
        async for part in parts:
            if shape.bandwidth:
                self._free_at = max(self._free_at, anyio.current_time()) + size(part) / shape.bandwidth
                await sleep_until(self._free_at)
            yield part
