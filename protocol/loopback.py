"""The ports of protocol/port.py in memory: the same promises as gRPC without a socket, and a network that misbehaves
by script.

Frames and requests go through the codec, so what can't travel on the wire can't travel here. What happens to each
frame of a worker stream is decided by a Fate: lost, delayed, doubled, overtaken by later ones. The stream itself stays
up; cutting it is `aclose` of either side, or the server's. It must not know what the frames mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Literal, TypeVar

import anyio
import anyio.abc

from .artifact import Content
from .bundle import asks, bundles, refusals, refused_of
from .clock import Clock, RunClock
from .codec import (
    METHODS,
    Answer,
    ArtifactAsk,
    ArtifactsAsk,
    Bundle,
    Chunk,
    Holding,
    Holdings,
    Invocation,
    PutPart,
    Refusals,
    SubmitPart,
    cut,
)
from .errors import AsterismError, ServerUnreachable, WireError, from_wire
from .frame import Frame
from .link import MESSAGE_LIMIT
from .pipe import Direction, Fate, Pipe, faithful
from .port import Authenticate, Channel, FrameStream, Services
from .security import GUEST, Principal, bearer, check_role

T = TypeVar("T")
BUFFER: Final = 64
"""Frames that wait for a slow reader before the sender does."""


class _Lane:
    """One direction of a memory stream: a Pipe with a waiting reader and a bound for the writer."""

    def __init__(self, direction: Direction, fate: Fate, clock: Clock) -> None:
        self.pipe: Pipe[bytes] = Pipe(direction, fate)
        self.arrived: deque[bytes] = deque()
        self.closed = False
        self.clock = clock
        self._changed = anyio.Event()

    def change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def push(self, data: bytes) -> None:
        while not self.closed and len(self.arrived) + len(self.pipe) >= BUFFER:
            self._collect()
            if len(self.arrived) + len(self.pipe) >= BUFFER:
                await self._changed.wait()
        if not self.closed:
            self.pipe.push(data, self.clock.now())
            self.change()
        await anyio.lowlevel.checkpoint()

    async def pull(self) -> bytes | None:
        while True:
            self._collect()
            if self.arrived:
                data = self.arrived.popleft()
                self.change()
                await anyio.lowlevel.checkpoint_if_cancelled()
                return data
            due = self.pipe.next_at
            if due is None:
                if self.closed:
                    return None
                await self._changed.wait()
            else:
                await self._until(due)

    def _collect(self) -> None:
        self.arrived.extend(self.pipe.pull(self.clock.now()))

    async def _until(self, due: float) -> None:
        """Until the next frame is due, or something changes."""
        async with anyio.create_task_group() as group:

            async def first(wait: Callable[[], Awaitable[object]]) -> None:
                await wait()
                group.cancel_scope.cancel()

            changed = self._changed
            group.start_soon(first, changed.wait)
            group.start_soon(first, lambda: self.clock.sleep_until(due))

    def close(self) -> None:
        self.closed = True
        self.change()


class MemoryStream:
    """A FrameStream; the two sides of one hold the same lanes crossed over."""

    def __init__(self, out: _Lane, back: _Lane, peer: Mapping[str, str]) -> None:
        self._out = out
        self._back = back
        self.peer = peer
        self._over = False
        self.refusal: AsterismError | None = None

    async def send(self, frame: Frame) -> None:
        data = METHODS["Link"].request.encode(frame)
        if not self._over:
            await self._out.push(data)

    async def receive(self) -> Frame | None:
        if not self._over:
            data = await self._back.pull()
            if data is not None:
                frame: Frame = METHODS["Link"].response.decode(data)
                return frame
            self._over = True
        if self.refusal is not None:
            raise self.refusal
        return None

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        self._over = True
        self._out.close()
        self._back.close()


class LoopbackServer:
    """A server in memory; `dial` it from the same event loop."""

    port = 0

    def __init__(
        self,
        services: Services,
        authenticate: Authenticate,
        fate: Fate,
        clock: Clock,
        group: anyio.abc.TaskGroup,
    ) -> None:
        self.services = services
        self._group = group
        self._authenticate = authenticate
        self._fate = fate
        self._clock = clock
        self.open = True
        self._streams: list[tuple[MemoryStream, anyio.Event]] = []

    def who(self, credential: str, method: str) -> Principal:
        if not self.open:
            raise ServerUnreachable("the server was closed")
        who = self._authenticate({"authorization": bearer(credential)}) or GUEST
        check_role(who, method)
        return who

    def connect(self, who: Principal) -> MemoryStream:
        up = _Lane("to_server", self._fate, self._clock)
        down = _Lane("to_worker", self._fate, self._clock)
        near = MemoryStream(up, down, {})
        far = MemoryStream(down, up, {"worker": str(who.worker_id), "name": who.name, "role": who.role})
        ended = anyio.Event()
        self._streams.append((far, ended))

        async def session() -> None:
            try:
                await answered(self.services.link(far))
            except AsterismError as error:
                near.refusal = error
            finally:
                ended.set()
                self._streams.remove((far, ended))
                up.close()
                down.close()

        self._group.start_soon(session)
        return near

    def end(self, who: Principal) -> None:
        """As port.Server.end, of streams: calls are answered in the turn in which they come, or soon."""
        for stream, _ in self._streams:
            if (stream.peer["name"], stream.peer["role"]) == (who.name, who.role):
                stream.close()

    async def aclose(self, grace_s: float = 0.5) -> None:
        self.open = False
        open_ = [*self._streams]
        with anyio.move_on_after(grace_s):
            for _, ended in open_:
                await ended.wait()
        self._group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            for stream, ended in open_:
                await stream.aclose()
                await ended.wait()


async def answered(call: Awaitable[T]) -> T:
    """What a service answers, with its error as it would arrive over a wire."""
    try:
        return await call
    except Exception as error:  # noqa: BLE001 - a bug of one call must reach its caller typed, as over the wire
        raise _arriving(error) from None


def _arriving(error: Exception) -> AsterismError:
    if isinstance(error, AsterismError):
        return from_wire(error.to_wire())
    return AsterismError(f"internal error: {type(error).__name__}: {error}", hint="this is a bug")


class LoopbackChannel:
    """A Channel to a LoopbackServer."""

    def __init__(self, server: LoopbackServer, credential: str) -> None:
        self._server = server
        self._credential = credential
        self._streams: list[MemoryStream] = []
        self._open: list[AsyncGenerator[bytes]] = []

    def _through(self, name: str, way: Literal["request", "response"], message: Any) -> Any:
        codec = METHODS[name].request if way == "request" else METHODS[name].response
        data = codec.encode(message)
        if way == "request" and len(data) > MESSAGE_LIMIT:
            raise WireError(f"a request of {len(data)} bytes, {MESSAGE_LIMIT} are allowed")
        return codec.decode(data)

    async def link(self) -> FrameStream:
        await anyio.lowlevel.checkpoint()
        who = self._server.who(self._credential, "Link")
        stream = self._server.connect(who)
        self._streams.append(stream)
        return stream

    async def invoke(self, method: str, body: bytes) -> bytes:
        await anyio.lowlevel.checkpoint()
        asked: Invocation = self._through("Invoke", "request", Invocation(method, body))
        who = self._server.who(self._credential, asked.method)
        body = await answered(self._server.services.invoke(who, asked.method, asked.body))
        answer: Answer = self._through("Invoke", "response", Answer(body))
        return answer.body

    async def _answers(self, name: str, answers: AsyncIterator[T], wrap: Callable[[T], Any]) -> Any:
        try:
            async for answer in answers:
                yield self._through(name, "response", wrap(answer))
        except Exception as error:  # noqa: BLE001 - as in `answered`
            raise _arriving(error) from None
        finally:
            close = getattr(answers, "aclose", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await close()

    async def _watching(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        asked: Invocation = self._through("Watch", "request", Invocation(method, body))
        who = self._server.who(self._credential, asked.method)
        found = self._server.services.watch(who, asked.method, asked.body)
        async with aclosing(self._answers("Watch", found, Answer)) as answers:
            async for answer in answers:
                yield answer.body

    def watch(self, method: str, body: bytes) -> AsyncIterator[bytes]:
        watching = self._watching(method, body)
        self._open.append(watching)
        return watching

    async def submit(self, header: bytes, chunks: AsyncIterable[bytes]) -> bytes:
        who = self._server.who(self._credential, "Submit")
        first: SubmitPart = self._through("Submit", "request", SubmitPart(header=header))
        upload = _Upload(self, "Submit", (SubmitPart(data=data) async for data in cut(chunks) if data))
        body = await upload.into(self._server.services.submit(who, first.header, upload.data()))
        answer: Answer = self._through("Submit", "response", Answer(body))
        return answer.body

    async def put(self, digest: str, media: str, chunks: AsyncIterable[bytes], offset: int = 0) -> None:
        who = self._server.who(self._credential, "Put")
        first: PutPart = self._through("Put", "request", PutPart(digest, media, offset))
        upload = _Upload(self, "Put", (PutPart(data=data) async for data in cut(chunks) if data))
        await upload.into(self._server.services.put(who, first.digest, first.media, first.offset, upload.data()))

    async def has(self, digest: str) -> int:
        await anyio.lowlevel.checkpoint()
        who = self._server.who(self._credential, "Has")
        asked: ArtifactAsk = self._through("Has", "request", ArtifactAsk(digest))
        holding: Holding = self._through(
            "Has", "response", Holding(await answered(self._server.services.has(who, asked.digest)))
        )
        return holding.size

    async def get(self, digest: str, offset: int = 0) -> AsyncGenerator[bytes]:
        who = self._server.who(self._credential, "Get")
        asked: ArtifactAsk = self._through("Get", "request", ArtifactAsk(digest, offset))
        found = cut(self._server.services.get(who, asked.digest, asked.offset))
        async with aclosing(self._answers("Get", found, Chunk)) as answers:
            async for chunk in answers:
                yield chunk.data

    async def put_many(self, groups: AsyncIterable[Sequence[Content]]) -> dict[str, AsterismError]:
        who = self._server.who(self._credential, "PutMany")
        refused: dict[str, AsterismError] = {}
        upload = _Upload(self, "PutMany", (one async for one in bundles(groups, refused) if one.contents))
        contents = (part.contents async for part in upload.parts())
        found = refusals(await upload.into(self._server.services.put_many(who, contents)))
        answer: Refusals = self._through("PutMany", "response", found)
        return refused | refused_of(answer)

    async def has_many(self, digests: Sequence[str]) -> list[int]:
        await anyio.lowlevel.checkpoint()
        sizes: list[int] = []
        for ask in asks(digests):
            who = self._server.who(self._credential, "HasMany")
            asked: ArtifactsAsk = self._through("HasMany", "request", ArtifactsAsk(ask))
            found = await answered(self._server.services.has_many(who, asked.digests))
            holdings: Holdings = self._through("HasMany", "response", Holdings(tuple(found)))
            sizes += holdings.sizes
        return sizes

    async def get_many(self, digests: Sequence[str]) -> AsyncGenerator[tuple[Content, ...]]:
        for ask in asks(digests):
            who = self._server.who(self._credential, "GetMany")
            asked: ArtifactsAsk = self._through("GetMany", "request", ArtifactsAsk(ask))
            found = self._server.services.get_many(who, asked.digests)
            async with aclosing(self._answers("GetMany", found, Bundle)) as messages:
                async for message in messages:
                    yield message.contents

    async def aclose(self) -> None:
        for stream in self._streams:
            await stream.aclose()
        for watching in self._open:
            await watching.aclose()


class _Upload:
    """Parts on their way into a service; the uploader's own error stays its own, the service sees a cut-off."""

    def __init__(self, channel: LoopbackChannel, name: str, parts: AsyncIterable[Any]) -> None:
        self._channel = channel
        self._name = name
        self._parts = parts
        self._error: Exception | None = None

    async def parts(self) -> AsyncIterator[Any]:
        try:
            async for part in self._parts:
                yield self._channel._through(self._name, "request", part)
        except Exception as error:  # noqa: BLE001 - kept, and raised at the uploader's side
            self._error = error
            raise WireError("an upload was cut off before its end", hint="send it again") from None

    async def data(self) -> AsyncIterator[bytes]:
        async for part in self.parts():
            yield part.data

    async def into(self, call: Awaitable[T]) -> T:
        try:
            return await answered(call)
        except AsterismError:
            if self._error is not None:
                raise self._error from None
            raise


@asynccontextmanager
async def serve(
    services: Services, authenticate: Authenticate, *, fate: Fate = faithful, clock: Clock | None = None
) -> AsyncIterator[LoopbackServer]:
    """A server that is reached by handing it to `dial`; its sessions live no longer than this context."""
    async with anyio.create_task_group() as group:
        server = LoopbackServer(services, authenticate, fate, clock or RunClock(), group)
        try:
            yield server
        finally:
            await server.aclose(0.0)


@asynccontextmanager
async def dial(server: LoopbackServer, credential: str, edge: bool = False) -> AsyncIterator[Channel]:
    """As transport.dial."""
    channel = LoopbackChannel(server, credential)
    try:
        yield channel
    finally:
        with anyio.CancelScope(shield=True):
            await channel.aclose()
