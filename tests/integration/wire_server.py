"""A server of bytes: what a connection gets is written by the test, and what it sent is kept."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.abc
from anyio.streams.tls import TLSListener

Play = Callable[["Wire"], Awaitable[None]]


class Wire:
    """One connection: the request it sent, and how to answer."""

    def __init__(self, stream: anyio.abc.ByteStream, request: bytes) -> None:
        self.path = request.split(b" ", 2)[1].decode(errors="replace")
        self._stream = stream

    async def send(self, data: bytes | str) -> None:
        await self._stream.send(data.encode() if isinstance(data, str) else data)

    async def answer(self, body: bytes | str, status: str = "200 OK", *headers: str) -> None:
        """A whole answer that says how long it is."""
        data = body.encode() if isinstance(body, str) else body
        lines = "".join(f"{line}\r\n" for line in ("content-type: application/json", *headers))
        await self.send(f"HTTP/1.1 {status}\r\n{lines}content-length: {len(data)}\r\n\r\n".encode() + data)

    async def begin(self) -> None:
        """The head of a stream that ends with its connection."""
        await self.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")


class WireServer:
    """Where it is and what it saw."""

    def __init__(self, port: int, scheme: str) -> None:
        self.base_url = f"{scheme}://127.0.0.1:{port}/v1"
        self.requests: list[bytes] = []
        self.left = anyio.Event()
        """A client has gone while it was being answered."""


@asynccontextmanager
async def wire_server(play: Play, tls: ssl.SSLContext | None = None) -> AsyncIterator[WireServer]:
    """Runs `play` for each request on loopback until the block ends."""
    listener: anyio.abc.Listener[anyio.abc.ByteStream] = await anyio.create_tcp_listener(local_host="127.0.0.1")  # type: ignore[assignment]
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    server = WireServer(port, "https" if tls else "http")

    async def serve(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            try:
                data = b""
                while not _whole(data):
                    data += await stream.receive()
                server.requests.append(data)
                await play(Wire(stream, data))
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                server.left.set()

    async with anyio.create_task_group() as group:
        group.start_soon((TLSListener(listener, tls) if tls else listener).serve, serve)
        try:
            yield server
        finally:
            group.cancel_scope.cancel()
    await listener.aclose()


def _whole(data: bytes) -> bool:
    """Whether this is a request with its body, or the beginning of a TLS handshake that nobody expects here."""
    head, blank, body = data.partition(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return data.startswith(b"\x16") or bool(blank and len(body) >= int(lengths[0] if lengths else 0))
