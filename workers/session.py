"""One conversation over one stream: items in and out, batched by turns of the loop.

Invariant: one task writes and one reads; whatever is ready in a turn of the loop leaves together, and nothing ever
waits for time. It decides nothing: items go to `heard`, the machine's answers come back through `put`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from protocol.bell import Bell
from protocol.errors import AsterismError, WireError
from protocol.frame import Frame, FromWorker, Heartbeat, Item
from protocol.link import Fault, Link
from protocol.port import FrameStream

from .shaping import ShapedStream


class Session:
    """`heard` is called with the items of each frame. After `finish` the session ends once all is sent."""

    def __init__(self, stream: FrameStream, heard: Callable[[tuple[Item, ...]], None], *, edge: bool = False) -> None:
        self._stream = stream
        self._heard = heard
        self._link = Link("worker", edge=edge)
        self._ready: deque[Frame] = deque()
        self._wake = Bell()
        self._finishing = False
        self._scope = anyio.CancelScope()
        self._pumps = (stream.pump,) if isinstance(stream, ShapedStream) else ()
        self._error: AsterismError | None = None

    def put(self, item: FromWorker) -> None:
        """Queue an item. One that the link may not carry now is dropped: state, not sequence, makes the link whole."""
        if self._link.put(item) is not None:
            return
        if isinstance(item, Heartbeat):
            # What it says of the inventory is true of the frames seen up to now: number it before another arrives.
            while (frame := self._link.cut()) is not None:
                self._ready.append(frame)
        self._wake.ring()

    def finish(self) -> None:
        """Send what is queued, then end the stream."""
        self._finishing = True
        self._wake.ring()

    def hang_up(self) -> None:
        """End at once."""
        self._scope.cancel()

    async def run(self) -> None:
        """Until the stream ends, however it ends. Raises: the typed refusal of the server, WireError."""
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    for one in (self._write, self._read, *self._pumps):
                        group.start_soon(self._until_it_ends, one)
        finally:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
        if self._error is not None:
            raise self._error

    async def _until_it_ends(self, task: Callable[[], Awaitable[None]]) -> None:
        """Whichever task ends first ends the conversation; its error is the conversation's."""
        try:
            await task()
        except AsterismError as error:
            self._error = self._error or error
        self._scope.cancel()

    async def _read(self) -> None:
        while (frame := await self._stream.receive()) is not None:
            taken = self._link.take(frame)
            if isinstance(taken, Fault):
                raise WireError(f"{taken.code}: {taken.message}")
            if taken.items:
                self._heard(taken.items)

    async def _write(self) -> None:
        while True:
            while (frame := self._ready.popleft() if self._ready else self._link.cut()) is not None:
                await self._stream.send(frame)
            if self._finishing:
                return
            self._wake.still()
            await self._wake.wait()  # everything that is ready in this turn goes along
