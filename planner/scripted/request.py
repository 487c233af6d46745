"""HTTP/1.1 requests, read from bytes as they come: sans-I/O, linear in what is fed, bounded in what is kept.

It refuses what two readers could read differently (two lengths, a length beside chunks, folded headers). It must not
know sockets, nor what a request asks for.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import Final

import msgspec

from protocol.errors import UsageError

HEAD_LIMIT: Final = 64 * 1024
BODY_LIMIT: Final = 64 * 1024 * 1024
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.1")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_Reading = Generator[None, None, bytes]


class HttpRequest(msgspec.Struct, frozen=True):
    """`headers` by their names in lower case; `body` is whole. `last`: the client wants the connection closed."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def last(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class RequestReader:
    """`feed` it bytes, get the requests that they complete. Raises: UsageError, after which it is of no further use."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._found: list[HttpRequest] = []
        self._reading = self._read()

    def feed(self, data: bytes) -> list[HttpRequest]:
        self._buffer += data
        next(self._reading, None)
        found, self._found = self._found, []
        return found

    def _read(self) -> Generator[None, None, None]:
        while True:
            line, *rows = (yield from self._until(b"\r\n\r\n")).split(b"\r\n")
            start = _LINE.fullmatch(line)
            if start is None:
                raise UsageError(f"no HTTP/1.1 request line: {line[:80]!r}")
            headers = _headers(rows)
            if "transfer-encoding" in headers:
                body = yield from self._chunks()
            else:
                body = yield from self._take(int(headers.get("content-length", "0")))
            self._found.append(HttpRequest(start[1].decode("ascii"), start[2].decode("ascii"), headers, body))

    def _until(self, end: bytes) -> _Reading:
        """What comes before `end`, which is taken away with it."""
        scanned = 0
        while (at := self._buffer.find(end, scanned)) < 0:
            scanned = max(0, len(self._buffer) - len(end) + 1)
            if scanned > HEAD_LIMIT:
                raise UsageError(f"a header of more than {HEAD_LIMIT} bytes")
            yield
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return found

    def _take(self, size: int) -> _Reading:
        while len(self._buffer) < size:
            yield
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def _chunks(self) -> _Reading:
        body = bytearray()
        while True:
            row = yield from self._until(b"\r\n")
            match = _SIZE.fullmatch(row)
            size = int(match[1], 16) if match is not None else -1
            if not 0 <= size <= BODY_LIMIT - len(body):
                raise UsageError(f"no size of a chunk: {row[:20]!r}")
            body += yield from self._take(size)
            if (yield from self._until(b"\r\n")):
                raise UsageError("a chunk is longer than it says, or trailers follow")
            if size == 0:
                return bytes(body)


def _headers(rows: list[bytes]) -> dict[str, str]:
    """Raises: UsageError for what is no header, and for a body whose end is not certain."""
    headers: dict[str, str] = {}
    for row in rows:
        match = _HEADER.fullmatch(row)
        if match is None:
            raise UsageError(f"no HTTP header: {row[:80]!r}")
        name = match[1].decode("ascii").lower()
        if name in headers and name in ("content-length", "transfer-encoding", "host"):
            raise UsageError(f"the header {name} comes twice")
        headers[name] = match[2].decode("latin-1").rstrip()
    coding, length = headers.get("transfer-encoding", ""), headers.get("content-length", "0")
    if "transfer-encoding" in headers and (coding.lower() != "chunked" or "content-length" in headers):
        raise UsageError(f"a body that is {coding[:20]!r} can't be read")
    if not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > BODY_LIMIT:
        raise UsageError(f"a body of {length[:20]!r} bytes is not taken, {BODY_LIMIT} at most")
    return headers
