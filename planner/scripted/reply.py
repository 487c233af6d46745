"""One streamed reply on its way out: SSE events in HTTP chunks, at the turn's pace, with the turn's faults.

The n-th token leaves at its own time after the start, so lateness doesn't add up. It must not know what was asked for,
nor how a connection is kept.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from itertools import chain, repeat
from typing import Any, Final

import anyio
import msgspec
from anyio.abc import SocketAttribute, SocketStream

from protocol.clock import Clock

from .asked import Asked
from .completion import Completion
from .dialogue import HEAD, Fault

_BEAT_S: Final = 0.05
_RESET: Final = struct.pack("ii", 1, 0)
_END: Final = 1 << 62


class Reply:
    """`begin` it, then send it as a `stream` or get it `whole`."""

    def __init__(self, stream: SocketStream, asked: Asked, said: Completion, clock: Clock) -> None:
        self._stream = stream
        self._asked = asked
        self._said = said
        self._turn = said.turn
        self._clock = clock
        self._start = 0.0
        self._left = [(fault, self._place(fault)) for fault in self._turn.faults if fault.kind != "drip"]

    async def begin(self) -> bool:
        """What goes wrong before the first byte of any reply; whether there will be one."""
        return await self._faults(HEAD)

    async def whole(self) -> Mapping[str, Any]:
        """The reply as one document, when a stream would have come to its end."""
        turn = self._turn
        took = len(self._said.deltas()[0]) / turn.rate if turn.rate else 0.0
        await self._clock.sleep_until(self._clock.now() + turn.first_s + took)
        return self._said.whole()

    async def stream(self, head: bytes) -> bool:
        """Send `head` and the stream; whether both got to their end."""
        await self._open(head)
        deltas, cut = self._said.deltas()
        if not await self._tokens(deltas):
            return False
        finish = self._said.finish(cut)
        rows: list[Mapping[str, Any] | str] = [] if finish is None else [self._said.chunk({}, finish)]
        if self._said.reports_usage:
            rows.append(self._said.usage_chunk(len(deltas)))
        if self._turn.done:
            rows.append("[DONE]")
        self._asked.ended = "complete"  # a client that has what it wants may be gone before the last byte
        await self._send(*rows)
        await self._stream.send(b"0\r\n\r\n")
        return True

    async def _open(self, head: bytes) -> None:
        for fault in self._turn.faults:
            if fault.kind == "drip":
                for byte in head[:-1]:
                    await self._stream.send(bytes([byte]))
                    await self._pause(fault.seconds)
                head = head[-1:]
        await self._stream.send(head)

    async def _tokens(self, deltas: list[tuple[str, dict[str, Any]]]) -> bool:
        """All tokens, each at its time; over and over if there is no end. Whether the reply goes on."""
        turn, rate, written = self._turn, self._turn.rate, 0
        self._start = self._clock.now() + turn.first_s
        rounds = chain.from_iterable(repeat(deltas)) if turn.endless and deltas else deltas
        for index, (part, delta) in enumerate(rounds):
            if not await self._faults(index, written):
                return False
            await self._clock.sleep_until(self._start + (index / rate if rate else 0.0))
            if index == 0:
                await self._send(self._said.chunk({"role": "assistant", "content": ""}))
            leaves = self._clock.now()
            await self._send(self._said.chunk(delta))
            self._asked.written.append((leaves, part))
            written += len(part) if "content" in delta else 0
        return await self._faults(_END, written)

    def _place(self, fault: Fault) -> tuple[int, int]:
        """The token before which it comes, or else how much text: the other one is never reached."""
        if isinstance(fault.at, int):
            return fault.at, _END
        at = self._said.text.find(fault.at)
        return _END, at + len(fault.at) if at >= 0 else _END

    async def _faults(self, index: int, written: int = 0) -> bool:
        """What goes wrong before token `index`, with so many characters of text out; whether the reply goes on."""
        while due := [row for row in self._left if row[1][0] <= index or row[1][1] <= written]:
            self._left.remove(due[0])
            began = self._clock.now()
            if not await self._fail(due[0][0]):
                self._asked.end("cut", self._clock.now())
                return False
            self._start += self._clock.now() - began
        return True

    async def _fail(self, fault: Fault) -> bool:
        kind = fault.kind
        if kind == "stall":
            await self._pause(fault.seconds)
        elif kind == "hold":
            await self._asked.hold()
        elif kind in ("heartbeat", "hollow"):
            row = b": keep-alive" if kind == "heartbeat" else self._event(self._said.chunk({"content": ""}))
            until = self._clock.now() + fault.seconds
            while not fault.seconds or self._clock.now() < until:
                await self._write(row + self._turn.newline.encode() * 2 if kind == "heartbeat" else row)
                await self._pause(_BEAT_S)
        elif kind == "garbage":
            await self._send(fault.text or "{nonsense")
        elif kind == "broken":
            await self._stream.send((fault.text or "no chunk at all\r\n").encode())
        elif kind == "error":
            await self._send({"error": {"message": fault.text or "the engine is gone", "type": "server_error"}})
            await self._stream.send(b"0\r\n\r\n")
        elif kind == "reset":
            raw = self._stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            await self._stream.aclose()
        return kind not in ("cut", "reset", "broken", "error")

    async def _pause(self, seconds: float) -> None:
        """For ever if 0."""
        if not seconds:
            await anyio.sleep_forever()
        await self._clock.sleep_until(self._clock.now() + seconds)

    async def _send(self, *rows: Mapping[str, Any] | str) -> None:
        if rows:
            await self._write(b"".join(map(self._event, rows)))

    def _event(self, row: Mapping[str, Any] | str) -> bytes:
        text = row if isinstance(row, str) else msgspec.json.encode(row).decode()
        return f"data: {text}{self._turn.newline * 2}".encode()

    async def _write(self, data: bytes) -> None:
        step = self._turn.split or len(data)
        for start in range(0, len(data), step):
            part = data[start : start + step]
            await self._stream.send(b"%x\r\n%b\r\n" % (len(part), part))
