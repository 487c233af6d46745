"""One client's connection to the scripted server: requests in, replies out, one at a time, until either side leaves.

A client that goes away ends the reply it was getting at once. It must not know where requests are kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import anyio
import msgspec
from anyio.abc import SocketStream
from anyio.streams.memory import MemoryObjectSendStream

from protocol.clock import Clock
from protocol.errors import UsageError

from .asked import Asked
from .refusal import Refusal
from .request import HttpRequest, RequestReader

_GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
_DEEP: Final = 16
_PHRASES: Final = {one.value: one.phrase for one in HTTPStatus}


class Connection:
    """`serve` it; `answer` is called for each request and says whether the connection can be used on.

    `asked` is the chat request that is being answered, set by `answer`.
    """

    def __init__(self, stream: SocketStream, clock: Clock, software: str = "") -> None:
        self._clock = clock
        self.stream = stream
        self.asked: Asked | None = None
        self._software = software

    async def serve(self, answer: Callable[[Connection, HttpRequest], Awaitable[bool]]) -> None:
        send, receive = anyio.create_memory_object_stream[HttpRequest | Refusal](_DEEP)
        async with self.stream, receive, anyio.create_task_group() as group:
            group.start_soon(self._hear, send, group.cancel_scope)
            try:
                async for request in receive:
                    if isinstance(request, Refusal):
                        await self.reply(request.status, request.document())
                        break
                    if not await answer(self, request) or request.last:
                        break
                # Not closed but ended: closing at once could take back what is still on its way out.
                await self.stream.send_eof()
            except _GONE:
                group.cancel_scope.cancel()

    async def _hear(self, send: MemoryObjectSendStream[HttpRequest | Refusal], scope: anyio.CancelScope) -> None:
        """Read requests, and notice when the client leaves."""
        reader = RequestReader()
        with send:
            try:
                while True:
                    for request in reader.feed(await self.stream.receive()):
                        await send.send(request)
            except UsageError as error:
                await send.send(Refusal(400, error.message))
            except _GONE:
                if self.asked is not None:
                    self.asked.end("closed", self._clock.now())
                scope.cancel()

    async def reply(self, status: int, body: Mapping[str, Any] | str, headers: Mapping[str, str] | None = None) -> None:
        """A whole reply: JSON, or a text as it is."""
        data = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
        kind = "text/plain" if isinstance(body, str) else "application/json"
        rows = {"content-type": kind, "content-length": str(len(data)), **(headers or {})}
        await self.stream.send(self.head(status, rows) + data)

    def head(self, status: int, headers: Mapping[str, str]) -> bytes:
        phrase = _PHRASES.get(status, "")
        named = {"server": self._software} if self._software else {}
        rows = "".join(f"{name}: {value}\r\n" for name, value in {**named, **headers}.items())
        return f"HTTP/1.1 {status} {phrase}\r\n{rows}\r\n".encode()
