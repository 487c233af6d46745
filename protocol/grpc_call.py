"""What both ends of a gRPC call share: channel constants, errors as trailing metadata, one worker stream.

Invariant: each stream has one reading task that nobody cancels but its owner (cancelling a read ends the call), and an
error of the far side is either rebuilt from its `to_wire` JSON or becomes ServerUnreachable. EOF is not a clean end.
Bytes are decoded here and not by gRPC, so a bad message is a WireError of its receiver. It must not know services.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import anyio.lowlevel

from .bell import Bell
from .codec import METHODS
from .errors import (
    AsterismError,
    Conflict,
    NotAllowed,
    NotFound,
    RunFailed,
    ServerUnreachable,
    Unavailable,
    UsageError,
    VersionMismatch,
    WireError,
    from_wire,
)
from .frame import Frame
from .grpc_engine import grpc
from .link import MESSAGE_LIMIT

LINK: Final[Mapping[bool, Mapping[str, int]]] = MappingProxyType(
    {
        edge: MappingProxyType(
            {
                "grpc.keepalive_time_ms": 20_000 if edge else 2_000,
                "grpc.keepalive_timeout_ms": 10_000 if edge else 1_000,
                "grpc.http2.ping_timeout_ms": 10_000 if edge else 1_000,
                "grpc.keepalive_permit_without_calls": 1,
                "grpc.http2.max_pings_without_data": 0,
                "grpc.max_metadata_size": 64 * 1024,
                "grpc.absolute_max_metadata_size": 128 * 1024,
            }
        )
        for edge in (False, True)
    }
)
"""The channel constants both sides of a link share, by class of link (edge or not)."""
_CLIENT: Final = {
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 5_000,
    "grpc.min_reconnect_backoff_ms": 5_000,  # in the core's words: the time one attempt to connect may take
    "grpc.enable_retries": 0,
    "grpc.enable_http_proxy": 0,
    "grpc.use_local_subchannel_pool": 1,  # channels never share a connection, and a new one never waits for an old one
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
}
_SERVER: Final = {
    "grpc.so_reuseport": 0,
    "grpc.server_handshake_timeout_ms": 5_000,
    "grpc.max_concurrent_streams": 1_024,
    "grpc.http2.min_ping_interval_without_data_ms": 1_000,
    "grpc.max_receive_message_length": MESSAGE_LIMIT + 64 * 1024,
}
ADMITTED: Final = ("asterism-link", "admitted")
"""Initial metadata of a worker stream once its credential is accepted; a refused call has none."""
ERROR_KEY: Final = "asterism-error-bin"
_ERROR_BYTES: Final = 48 * 1024
_READ_AHEAD: Final = 16
_READ_AHEAD_BYTES: Final = 4 * 1024 * 1024
"""What of a stream may wait here to be received, in messages and bytes, give or take one message."""
_STATUS: Final = (
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (NotAllowed, grpc.StatusCode.PERMISSION_DENIED),
    (Conflict, grpc.StatusCode.ABORTED),
    (UsageError, grpc.StatusCode.INVALID_ARGUMENT),
    (WireError, grpc.StatusCode.INVALID_ARGUMENT),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (VersionMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (RunFailed, grpc.StatusCode.FAILED_PRECONDITION),
)


def client_options(edge: bool = False) -> list[tuple[str, int]]:
    return [*LINK[edge].items(), *_CLIENT.items()]


def server_options(edge: bool = False) -> list[tuple[str, int]]:
    return [*LINK[edge].items(), *_SERVER.items()]


# Errors across the wire


def pack_error(error: AsterismError) -> bytes:
    """As much of the error as fits; the count of problems left out is said."""
    wire = error.to_wire()
    problems = wire.get("problems", [])
    packed = json.dumps(wire).encode()
    kept = len(problems)
    while len(packed) > _ERROR_BYTES and kept:
        kept //= 2
        wire["problems"] = problems[:kept]
        wire["hint"] = f"{error.hint[:1000]} ({len(problems) - kept} more problems are not shown)".strip()
        packed = json.dumps(wire).encode()
    if len(packed) > _ERROR_BYTES:
        packed = json.dumps({"code": error.code, "message": error.message[:2000], "hint": error.hint[:1000]}).encode()
    return packed


def refusal(metadata: Any) -> AsterismError | None:
    """The typed error in trailing metadata, if the far side sent one that makes sense."""
    for key, value in metadata or ():
        if key == ERROR_KEY:
            try:
                return from_wire(json.loads(value))
            except Exception as error:  # noqa: BLE001 - whatever the far side wrote there, it becomes a value
                return WireError(f"an error of the far side can't be read: {error}")
    return None


def typed(error: grpc.aio.AioRpcError, target: str) -> AsterismError:
    told = refusal(error.trailing_metadata())
    if told is not None:
        return told
    details = error.details() or ""
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            return VersionMismatch(f"{target} doesn't know this call", hint="use one version on both sides")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return WireError(f"a message is too large for the link: {details[:200]}")
        case _:
            hint = "is the server running? `asterism server start`, or check the address"
            return ServerUnreachable(f"{target} can't be reached, or went away: {details[:200]}", hint=hint)


def lost(target: str) -> ServerUnreachable:
    return ServerUnreachable(f"the connection to {target} was closed")


async def go_on() -> None:
    """Ask this first when a call raised CancelledError: whether it was the call that ended, or we who shall end.

    A call that ended under us raises that too, and one that we cancelled forgets who wanted it. A scope takes only its
    own word back: without it the error ends the task, and with that, silently, all of the task's group.

    Raises: CancelledError, if the task was cancelled.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()
    task = asyncio.current_task()
    if task is not None and task.cancelling() > 0:
        raise asyncio.CancelledError


async def abort(context: Any, error: AsterismError) -> None:
    """End a call at the server with this error. Always raises, as gRPC wants it."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), grpc.StatusCode.UNKNOWN)
    details = error.message[:200].encode("utf-8", "replace").decode()
    await context.abort(status, details, ((ERROR_KEY, pack_error(error)),))


# One worker stream, either side


async def _gone(*_: object) -> Any:
    """What is left of a call that was given up."""
    return grpc.aio.EOF


class CallStream:
    """A FrameStream over a gRPC call's read and write; `ended` turns what the call ended with into an error or None."""

    def __init__(
        self,
        read: Callable[[], Awaitable[Any]],
        write: Callable[[bytes], Awaitable[None]],
        ended: Callable[[BaseException | None], AsterismError | None],
        close: Callable[[], object],
        peer: Mapping[str, str],
    ) -> None:
        self._read = read
        self._write = write
        self._end_of = ended
        self._close = close
        self.peer = peer
        self._arrived: deque[bytes | AsterismError | None] = deque()
        self._news = Bell()
        self._room = Bell()
        self.held_bytes = 0
        self._over = False
        self._last: AsterismError | None = None
        self._codec = METHODS["Link"]
        self._reader = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        end: BaseException | None = None
        try:
            while True:
                data = await self._read()
                if data is grpc.aio.EOF:
                    break
                self._hand(data)
                self.held_bytes += len(data)
                while len(self._arrived) >= _READ_AHEAD or self.held_bytes >= _READ_AHEAD_BYTES:
                    await self._room.wait()
        except (grpc.aio.BaseError, grpc.RpcError, asyncio.CancelledError) as error:
            end = error.with_traceback(None)  # else it holds this frame, and this frame holds it
        self._hand(self._end_of(end))

    def _hand(self, found: bytes | AsterismError | None) -> None:
        self._arrived.append(found)
        self._news.ring()

    async def send(self, frame: Frame) -> None:
        data = self._codec.request.encode(frame)
        if self._over:
            return
        try:
            await self._write(data)
        except (grpc.aio.BaseError, grpc.RpcError, asyncio.InvalidStateError):
            return  # dead: the reader says so
        except asyncio.CancelledError:
            await go_on()

    async def receive(self) -> Frame | None:
        while not self._over:
            while not self._arrived:
                await self._news.wait()
            found = self._arrived.popleft()
            self._room.ring()
            if isinstance(found, bytes):
                self.held_bytes -= len(found)
                frame: Frame = self._codec.response.decode(found)
                return frame
            self._over, self._last = True, found
        if self._last is not None:
            raise self._last
        return None

    def lost(self) -> None:
        """The call is over whatever the reader still waits for: what has arrived can still be received."""
        self._reader.cancel()
        self._hand(None)  # also where the reader was cancelled before it ever ran

    async def aclose(self) -> None:
        self._over = True
        self._close()
        self.lost()
        await asyncio.wait({self._reader})
        # A reader that was cancelled before it ran holds its frame, and that us: without this the call, and with it the
        # connection, would stay until the collector comes by.
        self._read = self._write = _gone
        self._close = bool
