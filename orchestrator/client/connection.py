"""One client's line to a server: requests as JSON, streams that go on where they stopped.

Invariant: an answer is given once, a stream yields each line once, in order, whatever happens to the server in
between; what can't be repeated safely is not. Finding the server is `locate`'s business, so a restarted one (another
port, another token) is found again. It must not know what the methods mean, beyond which of them may be repeated.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio
import msgspec

from protocol.errors import (
    AsterismError,
    NotAllowed,
    NotFound,
    ServerUnreachable,
    Unavailable,
    VersionMismatch,
    WireError,
)
from protocol.membership import buy, due_s, renew, why_refused
from protocol.port import Channel
from protocol.security import Identity, ServerFile, Tls
from protocol.transport import dial

Locate = Callable[[ServerFile | None], Awaitable[ServerFile]]
"""Find a server; given the endpoint that no longer answers, or None at first."""

REPEATABLE: Final = frozenset(
    "ps status tasks workers skills predictor explain graph result get info submit cancel pause resume detach".split()  # noqa: SIM905
)
PATIENCE_S: Final = 30.0
"""How long a lost server is looked for before the loss is an error."""
_LOST: Final = (ServerUnreachable, Unavailable, WireError)


class Connection:
    """Open it with `open`, end it with `aclose`, both in the same task.

    `kept` is given the new certificate when ours was half way through its life and was renewed.
    """

    def __init__(
        self, locate: Locate, *, patience_s: float = PATIENCE_S, kept: Callable[[ServerFile, Tls], object] | None = None
    ) -> None:
        self._locate = locate
        self._patience_s = patience_s
        self._kept = kept
        self._lock = anyio.Lock()
        self._stack = AsyncExitStack()
        self._channel: Channel | None = None
        self._endpoint: ServerFile | None = None
        self._generation = 0

    @property
    def endpoint(self) -> ServerFile:
        if self._endpoint is None:
            raise ServerUnreachable("there is no connection", hint="use the client inside its with block")
        return self._endpoint

    async def open(self) -> None:
        """Find the server and see that it answers. Raises: ServerUnreachable, NotAllowed, VersionMismatch."""
        await self._connect(None)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()
        self._channel = None

    async def call(self, method: str, **body: Any) -> Any:
        """Ask once; a repeatable method is asked again of a server that came back. Raises: any AsterismError."""
        return await self._repeat(method in REPEATABLE, lambda channel: channel.invoke(method, _encode(body)))

    async def enroll(self, name: str, serves: str) -> Identity:
        """An identity for a worker of this client's. Raises: NotAllowed, UsageError."""
        answer, tls = await buy(self._open_channel(), "enroll", self.endpoint.tls, name=name, serves=serves)
        return Identity(answer["worker"], answer["name"], answer.get("secret", ""), tls=tls)

    async def submit(self, header: dict[str, Any], chunks: Callable[[], AsyncIterable[bytes]]) -> Any:
        """Submit a run; `chunks` starts the plan's text anew for each try, the header's key makes tries one run."""
        return await self._repeat(True, lambda channel: channel.submit(_encode(header), chunks()))

    async def stream(self, method: str, *, after: int = 0, mark: str = "seq", **body: Any) -> AsyncGenerator[Any, None]:
        """Lines of a watch, each once; `mark` is the number in each line by which the stream is resumed.

        Ends when the server ends it. A server that went away is looked for and asked for the rest.
        """
        while True:
            generation = self._generation
            try:
                async for message in self._open_channel().watch(method, _encode({**body, "after": after})):
                    for line in message.splitlines():
                        row = msgspec.json.decode(line)
                        after = max(after, row.get(mark) or 0)
                        yield row
                return
            except (*_LOST, NotAllowed) as lost:
                await self._reconnect(generation, lost)

    async def artifact(self, digest: str) -> AsyncGenerator[bytes, None]:
        """The content of an artifact, resumed by offset."""
        offset = 0
        while True:
            generation = self._generation
            try:
                async for chunk in self._open_channel().get(digest, offset):
                    offset += len(chunk)
                    yield chunk
                return
            except (*_LOST, NotAllowed) as lost:
                await self._reconnect(generation, lost)

    async def _repeat(self, repeatable: bool, ask: Callable[[Channel], Awaitable[bytes]]) -> Any:
        while True:
            generation = self._generation
            try:
                return msgspec.json.decode(await ask(self._open_channel()))
            except (ServerUnreachable, NotAllowed) as lost:
                if not (repeatable or isinstance(lost, NotAllowed)):
                    raise
                await self._reconnect(generation, lost)

    async def _another_is_there(self) -> bool:
        known, found = self.endpoint, await self._locate(None)
        return bool(known.pid) and (found.pid, found.token) != (known.pid, known.token)

    async def _reconnect(self, generation: int, lost: AsterismError) -> None:
        """Find the server again, once for all who lost it. Raises: what was lost, when patience ends."""
        # A channel finds back by itself to a server that was started again, and that knows our token no more.
        if isinstance(lost, NotAllowed) and generation == self._generation and not await self._another_is_there():
            raise lost
        async with self._lock:
            if self._generation != generation:
                return
            old = self._endpoint
            deadline = anyio.current_time() + self._patience_s
            delay = 0.05
            while True:
                try:
                    await self._connect(old)
                    return
                except _LOST:
                    if anyio.current_time() + delay > deadline:
                        raise lost from None
                await anyio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(1.0, delay * 2)

    async def _connect(self, lost: ServerFile | None) -> None:
        endpoint = await self._locate(lost)
        _same_version(endpoint)
        stack = AsyncExitStack()
        try:
            channel = await stack.enter_async_context(dial(endpoint.address, endpoint.token, tls=endpoint.tls))
            info = msgspec.json.decode(await channel.invoke("info", b"{}"))
            _same_version(msgspec.structs.replace(endpoint, version=info["version"]))
            if self._kept is not None and not endpoint.pid and endpoint.tls is not None and due_s(endpoint.tls) <= 0:
                self._kept(endpoint, await renew(channel, endpoint.tls))
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await stack.aclose()
            if isinstance(error, ServerUnreachable) and endpoint.tls is not None:
                raise await why_refused(endpoint.address, endpoint.tls, error) from None
            raise
        old, self._stack = self._stack, stack
        self._channel, self._endpoint = channel, endpoint
        self._generation += 1
        await old.aclose()

    def _open_channel(self) -> Channel:
        if self._channel is None:
            raise NotFound("this client is closed", hint="use it inside its with block")
        return self._channel


def own_version() -> str:
    """The version of this installation; it takes milliseconds, so only who needs it asks."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("asterism")
    except PackageNotFoundError:
        return ""


def _same_version(endpoint: ServerFile) -> None:
    theirs, ours = endpoint.version, own_version()
    if theirs and ours and theirs.split(".")[:2] != ours.split(".")[:2]:
        raise VersionMismatch(
            f"the server at {endpoint.address} is version {theirs}, this is {ours}",
            hint="end it with its own version of `asterism server stop`, then try again",
        )


def _encode(body: Any) -> bytes:
    return msgspec.json.encode(body)
