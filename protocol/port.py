"""The ports of the wire: what transport and loopback both are, and what a server puts behind them.

One conformance suite (tests/contract/test_transport.py) runs on both. Whatever goes wrong on the far side arrives as an
error of protocol/errors.py; a far side that can't be reached or went away is ServerUnreachable. It must not know gRPC.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from .artifact import Content
from .errors import AsterismError
from .frame import Frame
from .security import Principal

Authenticate = Callable[[Mapping[str, str]], Principal | None]
"""Call metadata (lower-case keys; what begins with a colon the transport itself has seen) -> who that is; None: nobody
we know. May raise NotAllowed, to say why not."""


class FrameStream(Protocol):
    """One worker stream, either side. One task sends and one receives. A cancelled receive loses nothing; a cancelled
    send may end the stream, so never put a timeout on one."""

    @property
    def peer(self) -> Mapping[str, str]:
        """At the server `worker` (id), `name` and `role` of the authenticated far end, and with gRPC `lasts_s`, how old
        the stream may grow; empty at the client."""
        ...

    async def send(self, frame: Frame) -> None:
        """Return once the frame is on its way, which a slow peer delays. On a dead stream it does nothing.

        Raises: WireError for a frame that can't travel (the stream stays whole).
        """
        ...

    async def receive(self) -> Frame | None:
        """The next frame; None when the stream ended, however it ended: only Goodbye and Bye make an end clean.

        Raises: WireError for a frame that makes no sense; at a client also the typed refusal of the server.
        """
        ...

    async def aclose(self) -> None:
        """End the stream at once; what was sent before still travels. Safe to call twice."""
        ...


class Channel(Protocol):
    """A client's or worker's way to one server. Bodies are JSON bytes."""

    async def link(self) -> FrameStream: ...

    async def invoke(self, method: str, body: bytes) -> bytes: ...

    def watch(self, method: str, body: bytes) -> AsyncIterator[bytes]:
        """Close the iterator (`aclose`) when leaving early; the channel's end closes what was forgotten."""
        ...

    async def submit(self, header: bytes, chunks: AsyncIterable[bytes]) -> bytes: ...

    async def put(self, digest: str, media: str, chunks: AsyncIterable[bytes], offset: int = 0) -> None:
        """Send content from `offset` on; returns once all of it is verified and on disk at the far side."""
        ...

    async def has(self, digest: str) -> int:
        """Bytes already held, from where a `put` may go on; -1: all of them."""
        ...

    def get(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]: ...

    async def put_many(self, groups: AsyncIterable[Sequence[Content]]) -> Mapping[str, AsterismError]:
        """Send small contents (SMALL_BYTES each at most), many a message, in groups of any size as they are ready.

        Returns once they are verified and on disk at the far side, but for those refused, with the reason by digest.
        What is there already is not written again, yet it travels: `has_many` first. When `groups` raises, that is
        raised here, and what was sent before may have been kept.
        """
        ...

    async def has_many(self, digests: Sequence[str]) -> list[int]:
        """As `has`, for each in order."""
        ...

    def get_many(self, digests: Sequence[str]) -> AsyncIterator[tuple[Content, ...]]:
        """Small contents in the order asked, a message's worth at a time; whoever gets them verifies them.

        What is not there or too large for a bundle is left out: `get` has it, or says why not.
        """
        ...


class Artifacts(Protocol):
    """The part of a server that takes and gives contents."""

    async def put(self, who: Principal, digest: str, media: str, offset: int, chunks: AsyncIterator[bytes]) -> int:
        """Returns what `has` would say now. `chunks` raises WireError when it was cut off: keep what came."""
        ...

    async def has(self, who: Principal, digest: str) -> int: ...

    def get(self, who: Principal, digest: str, offset: int) -> AsyncIterator[bytes]: ...

    async def put_many(
        self, who: Principal, bundles: AsyncIterator[tuple[Content, ...]]
    ) -> Mapping[str, AsterismError]:
        """Returns what was refused, and why. `bundles` raises WireError when it was cut off: keep what came."""
        ...

    async def has_many(self, who: Principal, digests: Sequence[str]) -> Sequence[int]: ...

    def get_many(self, who: Principal, digests: Sequence[str]) -> AsyncIterator[tuple[Content, ...]]:
        """Groups that fit a message; the contents that are not here, or not small, are left out."""
        ...


class Services(Artifacts, Protocol):
    """What a server does. Each call is authenticated and its role checked before it gets here."""

    async def link(self, stream: FrameStream) -> None:
        """Serve one worker stream; it ends when this returns."""
        ...

    async def invoke(self, who: Principal, method: str, body: bytes) -> bytes: ...

    def watch(self, who: Principal, method: str, body: bytes) -> AsyncIterator[bytes]:
        """Closed (`aclose`) when the watcher leaves."""
        ...

    async def submit(self, who: Principal, header: bytes, chunks: AsyncIterator[bytes]) -> bytes:
        """`chunks` raises WireError when the submission was cut off: then nothing may have happened."""
        ...


class Server(Protocol):
    """A listening server. Send Bye on every link before closing it."""

    @property
    def port(self) -> int: ...

    def end(self, who: Principal) -> None:
        """Close everything that is open for this principal: its credential is good no more."""
        ...

    async def aclose(self, grace_s: float = 0.5) -> None:
        """Take no new call, give the open ones `grace_s`, end the rest."""
        ...


Dialled = AbstractAsyncContextManager[Channel]
