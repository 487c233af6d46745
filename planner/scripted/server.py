"""An OpenAI-compatible server that plays a dialogue: real HTTP/1.1 and SSE on loopback, no model behind it.

For tests, benchmarks, the demo and trials without a key. What it says is decided beforehand and paced by a clock that
is given to it, so that a virtual clock can play it too. Invariant: it listens on loopback only. It must not know what a
plan is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import SocketAttribute, SocketStream

from protocol.clock import Clock, RunClock
from protocol.errors import NotFound, Unavailable

from .asked import Asked
from .completion import Completion
from .connection import Connection
from .dialogue import Dialogue, Turn
from .emulation import Emulation, emulation
from .refusal import Refusal, refused, wrong_key
from .reply import Reply
from .request import HttpRequest

LOOPBACK: Final = "127.0.0.1"
MODEL: Final = "scripted"


class ScriptedServer:
    """`async with ScriptedServer(dialogue) as server`, then talk to `server.base_url`.

    `dialogue` is data, or a function of what was asked. `profile` says whose manners it has. `key`, if any, is what a
    client has to show. `port` 0 is any that is free.
    """

    def __init__(
        self,
        dialogue: Dialogue | Callable[[Asked], Turn],
        profile: str | Emulation = "openai",
        *,
        models: tuple[str, ...] = (MODEL,),
        key: str = "",
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.asked: list[Asked] = []
        """The chat requests, in the order of their coming."""
        self.requests: list[HttpRequest] = []
        """All requests."""
        self.connections = 0
        """How many are open."""
        self._dialogue = dialogue
        self._manner = emulation(profile) if isinstance(profile, str) else profile
        self._models = models
        self._key = key
        self._port = port
        self._clock = clock or RunClock()
        self._stack = AsyncExitStack()
        self._news = anyio.Event()

    @property
    def base_url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}/v1"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            try:
                listener = await anyio.create_tcp_listener(local_host=LOOPBACK, local_port=self._port)
            except OSError as error:
                raise Unavailable(f"port {self._port} of {LOOPBACK} can't be had: {error.strerror}") from error
            await stack.enter_async_context(listener)
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(group.cancel_scope.cancel)
            self._port = int(listener.extra(SocketAttribute.local_port))
            group.start_soon(listener.serve, self._serve)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, anyio.get_cancelled_exc_class()):
            await self._stack.__aexit__(kind, error, trace)
        else:  # what went wrong in the body is no business of ours: it leaves as it is, in no group
            await self._stack.aclose()

    async def request(self, number: int) -> Asked:
        """The chat request of this number, from 0; waits until it comes."""
        while len(self.asked) <= number:
            await self._news.wait()
        return self.asked[number]

    async def _serve(self, stream: SocketStream) -> None:
        self.connections += 1
        try:
            await Connection(stream, self._clock, self._manner.software).serve(self._answer)
        finally:
            self.connections -= 1

    async def _answer(self, connection: Connection, request: HttpRequest) -> bool:
        self.requests.append(request)
        wrong = wrong_key(request.headers.get("authorization", ""), self._key)
        path = request.target.partition("?")[0]
        if request.method == "POST" and path == "/v1/chat/completions":
            return await self._chat(connection, request, wrong)
        if wrong is not None:
            await connection.reply(wrong.status, wrong.document())
        elif request.method == "GET" and path == "/v1/models":
            await connection.reply(200, {"object": "list", "data": [self._model(name) for name in self._models]})
        elif request.method == "GET" and path.removeprefix("/v1/models/") in self._models:
            await connection.reply(200, self._model(path.removeprefix("/v1/models/")))
        else:
            missing = Refusal(404, f"Invalid URL ({request.method} {path})", "unknown_url")
            await connection.reply(404, missing.document())
        return True

    def _model(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": 1_780_000_000, "owned_by": self._manner.owned_by}

    async def _chat(self, connection: Connection, request: HttpRequest, wrong: Refusal | None) -> bool:
        asked = connection.asked = Asked(len(self.asked), request, self._clock.now())
        self.asked.append(asked)
        self._news.set()
        self._news = anyio.Event()
        refusal = wrong or refused(asked.body, self._manner, self._models)
        try:
            turn = None if refusal is not None else self._turn(asked)
        except NotFound as error:
            refusal = Refusal(400, error.message, "dialogue_over")
        if refusal is not None or turn is None:
            assert refusal is not None
            asked.ended = "refused"
            await connection.reply(refusal.status, refusal.document())
            good = True
        else:
            said = Completion(f"chatcmpl-{asked.number}", str(asked.body.get("model")), asked.body, turn, self._manner)
            good = await self._play(connection, asked, said)
        asked.end("complete", self._clock.now())
        connection.asked = None
        return good

    def _turn(self, asked: Asked) -> Turn:
        """Raises: NotFound."""
        return self._dialogue(asked.said) if isinstance(self._dialogue, Dialogue) else self._dialogue(asked)

    async def _play(self, connection: Connection, asked: Asked, said: Completion) -> bool:
        turn, number = said.turn, {"x-request-id": said.id}
        reply = Reply(connection.stream, asked, said, self._clock)
        if not await reply.begin():
            return False
        if turn.status != 200 or turn.body:
            document = Refusal(turn.status, turn.error or f"scripted to fail with {turn.status}").document()
            asked.ended = "refused"
            await connection.reply(turn.status, turn.body or document, {**number, **dict(turn.headers)})
            return True
        if turn.unstreamed or not asked.body.get("stream"):
            await connection.reply(200, await reply.whole(), {**number, **dict(turn.headers)})
            return True
        kind = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
        return await reply.stream(
            connection.head(200, {**kind, "cache-control": "no-cache", **number, **dict(turn.headers)})
        )
