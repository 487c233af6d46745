"""The ports of protocol/port.py in memory: the same promises as gRPC without a socket, and a network that misbehaves
by script.

Frames and requests go through the codec, so what can't travel on the wire can't travel here. What happens to each
frame of a worker stream is decided by a Fate: lost, delayed, doubled, overtaken by later ones. The stream itself stays
up; cutting it is `aclose` of either side, or the server's. `Pipe` alone, with a virtual clock, is the network of the
simulator. It must not know what the frames mean.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Generic, Literal, TypeVar

import anyio
import anyio.abc
import msgspec

from .clock import Clock, RunClock
from .codec import METHODS, Answer, ArtifactAsk, Chunk, Holding, Invocation, PutPart, SubmitPart, cut
from .errors import AsterismError, NotAllowed, ServerUnreachable, WireError, from_wire
from .frame import Frame
from .link import MESSAGE_LIMIT
from .port import Authenticate, Channel, FrameStream, Services
from .security import Principal, allowed, bearer

T = TypeVar("T")
Direction = Literal["to_server", "to_worker"]
Fate = Callable[[Direction, int], Sequence[float]]
"""(direction, k-th frame from 1) -> the delay in seconds of each copy that arrives; () is a lost frame."""
BUFFER: Final = 64
"""Frames that wait for a slow reader before the sender does."""


def faithful(_: Direction, __: int) -> Sequence[float]:
    return (0.0,)


class Weather(msgspec.Struct, frozen=True):
    """How bad the network is: chances per frame, and the bounds of a uniform delay, long enough to overtake."""

    loss: float = 0.0
    double: float = 0.0
    late: float = 0.0
    delay_s: tuple[float, float] = (0.001, 0.05)

    def fate(self, seed: int) -> Fate:
        """The same seed gives every frame the same fate, in whatever order they are asked for."""

        def decide(direction: Direction, k: int) -> Sequence[float]:
            draw = random.Random(f"{seed}/{direction}/{k}")
            if draw.random() < self.loss:
                return ()
            copies = 2 if draw.random() < self.double else 1
            return [draw.uniform(*self.delay_s) if draw.random() < self.late else 0.0 for _ in range(copies)]

        return decide


class Pipe(Generic[T]):
    """One direction of a network as pure data: push what is sent, pull what has arrived by now."""

    def __init__(self, direction: Direction, fate: Fate = faithful) -> None:
        self._direction: Direction = direction
        self._fate = fate
        self._sent = 0
        self._order = 0
        self._under_way: list[tuple[float, int, T]] = []

    def push(self, what: T, now: float) -> None:
        self._sent += 1
        for delay_s in self._fate(self._direction, self._sent):
            self._order += 1
            heapq.heappush(self._under_way, (now + delay_s, self._order, what))

    def pull(self, now: float) -> list[T]:
        """Everything due, in order of arrival."""
        due = []
        while self._under_way and self._under_way[0][0] <= now:
            due.append(heapq.heappop(self._under_way)[2])
        return due

    @property
    def next_at(self) -> float | None:
        return self._under_way[0][0] if self._under_way else None

    def __len__(self) -> int:
        return len(self._under_way)


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
        self._over = True
        self._out.close()
        self._back.close()


class LoopbackServer:
    """A server in memory; `dial` it from the same event loop."""

    port = 0

    def __init__(self, services: Services, authenticate: Authenticate, fate: Fate, clock: Clock) -> None:
        self.services = services
        self._authenticate = authenticate
        self._fate = fate
        self._clock = clock
        self.open = True
        self._streams: list[tuple[MemoryStream, anyio.Event]] = []

    def who(self, credential: str, method: str) -> Principal:
        if not self.open:
            raise ServerUnreachable("the server was closed")
        who = self._authenticate({"authorization": bearer(credential)})
        if who is None:
            raise NotAllowed("no credential, or one that this server doesn't know", hint="enrol again")
        if not allowed(who.role, method):
            raise NotAllowed(f"{method} isn't allowed to {who.name} ({who.role})", hint="ask an admin for another role")
        return who

    def connect(self, who: Principal, group: anyio.abc.TaskGroup) -> MemoryStream:
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

        group.start_soon(session)
        return near

    async def aclose(self, grace_s: float = 0.5) -> None:
        self.open = False
        open_ = [*self._streams]
        with anyio.move_on_after(grace_s):
            for _, ended in open_:
                await ended.wait()
        for stream, _ in open_:
            await stream.aclose()


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
    """A Channel to a LoopbackServer. Sessions run in the task group of whoever dialled."""

    def __init__(self, server: LoopbackServer, credential: str, group: anyio.abc.TaskGroup) -> None:
        self._server = server
        self._credential = credential
        self._group = group
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
        stream = self._server.connect(who, self._group)
        self._streams.append(stream)
        return stream

    async def invoke(self, method: str, body: bytes) -> bytes:
        await anyio.lowlevel.checkpoint()
        asked: Invocation = self._through("Invoke", "request", Invocation(method, body))
        who = self._server.who(self._credential, asked.method)
        body = await answered(self._server.services.invoke(who, asked.method, asked.body))
        answer: Answer = self._through("Invoke", "response", Answer(body))
        return answer.body

    async def _answers(self, name: str, answers: AsyncIterator[bytes], wrap: Callable[[bytes], Any]) -> Any:
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
        upload = _Upload(self, "Submit", chunks, SubmitPart)
        body = await upload.into(self._server.services.submit(who, first.header, upload.data()))
        answer: Answer = self._through("Submit", "response", Answer(body))
        return answer.body

    async def put(self, digest: str, media: str, chunks: AsyncIterable[bytes], offset: int = 0) -> None:
        who = self._server.who(self._credential, "Put")
        first: PutPart = self._through("Put", "request", PutPart(digest, media, offset))
        upload = _Upload(self, "Put", chunks, PutPart)
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

    async def aclose(self) -> None:
        for stream in self._streams:
            await stream.aclose()
        for watching in self._open:
            await watching.aclose()


class _Upload:
    """Chunks on their way into a service; the uploader's own error stays its own, the service sees a cut-off."""

    def __init__(self, channel: LoopbackChannel, name: str, chunks: AsyncIterable[bytes], part: Callable[..., Any]):
        self._channel = channel
        self._name = name
        self._chunks = chunks
        self._part = part
        self._error: Exception | None = None

    async def data(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in cut(self._chunks):
                if chunk:
                    yield self._channel._through(self._name, "request", self._part(data=chunk)).data
        except Exception as error:  # noqa: BLE001 - kept, and raised at the uploader's side
            self._error = error
            raise WireError("an upload was cut off before its end", hint="send it again") from None

    async def into(self, call: Awaitable[T]) -> T:
        try:
            return await answered(call)
        except AsterismError:
            if self._error is not None:
                raise self._error from None
            raise


async def serve(
    services: Services, authenticate: Authenticate, *, fate: Fate = faithful, clock: Clock | None = None
) -> LoopbackServer:
    """A server that is reached by handing it to `dial`."""
    return LoopbackServer(services, authenticate, fate, clock or RunClock())


@asynccontextmanager
async def dial(server: LoopbackServer, credential: str, edge: bool = False) -> AsyncIterator[Channel]:
    """As transport.dial; the server's side of each stream runs in this context's task group."""
    async with anyio.create_task_group() as group:
        channel = LoopbackChannel(server, credential, group)
        try:
            yield channel
        finally:
            with anyio.CancelScope(shield=True):
                await channel.aclose()
