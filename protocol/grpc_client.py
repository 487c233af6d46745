"""The client end of gRPC: one server as a Channel.

Invariant: every call is known to its channel until it is done, and is cancelled with it; abandoned calls would never
be collected. Artifacts go over a connection of their own, so that a large one delays no frame.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Final

from .artifact import Content
from .bundle import asks, bundles, refused_of
from .certificate import SERVER_NAME, stranger
from .codec import (
    METHODS,
    SERVICE,
    Answer,
    ArtifactAsk,
    ArtifactsAsk,
    Holding,
    Holdings,
    Invocation,
    PutPart,
    Refusals,
    SubmitPart,
    cut,
)
from .errors import AsterismError, UsageError
from .grpc_call import ADMITTED, CallStream, client_options, go_on, lost, refusal, typed
from .grpc_engine import grpc
from .link import MESSAGE_LIMIT
from .port import FrameStream
from .security import Tls, bearer

_BULK: Final = frozenset({"Put", "Has", "Get", "PutMany", "HasMany", "GetMany"})


class GrpcChannel:
    """A Channel over two gRPC channels; the one for artifacts opens when it is first used."""

    def __init__(self, target: str, credential: str, edge: bool, tls: Tls | None = None) -> None:
        self._target = target
        self._edge = edge
        self._tls = tls
        self._metadata = (("authorization", bearer(credential)),) if credential or tls is None else ()
        self._channels: dict[bool, grpc.aio.Channel] = {}
        self._calls: set[Any] = set()
        self._streams: set[CallStream] = set()

    def _call(self, name: str, *request: bytes) -> Any:
        bulk = name in _BULK
        if bulk not in self._channels:
            self._channels[bulk] = self._dial()
        kind = METHODS[name].kind
        if request and kind == "stream_unary":
            kind = "unary_unary"  # a stream of one message is the same on the wire, and leaves at once as a whole
        make = getattr(self._channels[bulk], kind)(f"/{SERVICE}/{name}")
        call = make(*request, metadata=self._metadata)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    def _dial(self) -> grpc.aio.Channel:
        options = client_options(self._edge)
        if self._tls is None:
            return grpc.aio.insecure_channel(self._target, options=options)
        tls, named = self._tls, ("grpc.ssl_target_name_override", SERVER_NAME)
        certificate, key = (tls.certificate, tls.key) if tls.key else stranger(time.time())
        credentials = grpc.ssl_channel_credentials(tls.ca.encode(), key.encode(), certificate.encode())
        return grpc.aio.secure_channel(self._target, credentials, options=[*options, named])

    async def _result(self, call: Any) -> bytes:
        try:
            data: bytes = await call
        except grpc.aio.AioRpcError as error:
            raise typed(error, self._target) from None
        except asyncio.CancelledError:
            await go_on()
            raise lost(self._target) from None
        return data

    async def _unary(self, name: str, request: Any) -> Any:
        data = METHODS[name].request.encode(request)
        if len(data) > MESSAGE_LIMIT:
            raise UsageError(f"a request of {len(data)} bytes, {MESSAGE_LIMIT} are allowed", hint="split it up")
        return METHODS[name].response.decode(await self._result(self._call(name, data)))

    async def _responses(self, name: str, request: Any) -> AsyncGenerator[Any]:
        call = self._call(name, METHODS[name].request.encode(request))
        decode = METHODS[name].response.decode
        try:
            while (data := await call.read()) is not grpc.aio.EOF:
                yield decode(data)
        except grpc.aio.AioRpcError as error:
            raise typed(error, self._target) from None
        except asyncio.CancelledError:
            await go_on()
            raise lost(self._target) from None
        finally:
            call.cancel()

    async def _upload(self, name: str, first: Any, parts: AsyncIterator[Any]) -> Any:
        """The first part, then the others once the server wants them: a write that the server's answer overtakes makes
        gRPC forget that answer."""
        call = self._call(name)
        encode, decode = METHODS[name].request.encode, METHODS[name].response.decode
        try:
            try:
                await call.write(encode(first))
                if ADMITTED in tuple(await call.initial_metadata()):
                    async for part in parts:
                        await call.write(encode(part))
                    await call.done_writing()
            except (asyncio.InvalidStateError, grpc.aio.AioRpcError, grpc.aio.BaseError):
                pass  # over before its end: the result says why
            except asyncio.CancelledError:
                await go_on()
                raise lost(self._target) from None
            return decode(await self._result(call))
        finally:
            call.cancel()

    async def link(self) -> FrameStream:
        call = self._call("Link")
        try:
            if ADMITTED not in tuple(await call.initial_metadata()):
                await call.read()  # refused: raises what the status says
                raise lost(self._target)
        except grpc.aio.AioRpcError as error:
            raise typed(error, self._target) from None
        except asyncio.CancelledError:
            call.cancel()
            await go_on()
            raise lost(self._target) from None

        def ended(error: BaseException | None) -> AsterismError | None:
            return refusal(error.trailing_metadata()) if isinstance(error, grpc.aio.AioRpcError) else None

        stream = CallStream(call.read, call.write, ended, call.cancel, {})
        self._streams.add(stream)
        return stream

    async def invoke(self, method: str, body: bytes) -> bytes:
        answer: Answer = await self._unary("Invoke", Invocation(method, body))
        return answer.body

    async def watch(self, method: str, body: bytes) -> AsyncIterator[bytes]:
        async with aclosing(self._responses("Watch", Invocation(method, body))) as answers:
            async for answer in answers:
                yield answer.body

    async def submit(self, header: bytes, chunks: AsyncIterable[bytes]) -> bytes:
        pieces = cut(chunks)
        answer: Answer
        ahead = await anext(pieces, b"")
        if not ahead:  # a request in words has no text that the server would have to ask for first
            answer = await self._unary("Submit", SubmitPart(header=header, last=True))
            return answer.body

        async def parts() -> AsyncIterator[SubmitPart]:
            yield SubmitPart(data=ahead)
            async for data in pieces:
                yield SubmitPart(data=data)
            yield SubmitPart(last=True)

        answer = await self._upload("Submit", SubmitPart(header=header), parts())
        return answer.body

    async def put(self, digest: str, media: str, chunks: AsyncIterable[bytes], offset: int = 0) -> None:
        async def parts() -> AsyncIterator[PutPart]:
            async for data in cut(chunks):
                yield PutPart(data=data)
            yield PutPart(last=True)

        await self._upload("Put", PutPart(digest, media, offset), parts())

    async def has(self, digest: str) -> int:
        holding: Holding = await self._unary("Has", ArtifactAsk(digest))
        return holding.size

    async def get(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        async with aclosing(self._responses("Get", ArtifactAsk(digest, offset))) as chunks:
            async for chunk in chunks:
                yield chunk.data

    async def put_many(self, groups: AsyncIterable[Sequence[Content]]) -> dict[str, AsterismError]:
        refused: dict[str, AsterismError] = {}
        messages = bundles(groups, refused)
        answer: Refusals = await self._upload("PutMany", await anext(messages), messages)
        return refused | refused_of(answer)

    async def has_many(self, digests: Sequence[str]) -> list[int]:
        sizes: list[int] = []
        for ask in asks(digests):
            holdings: Holdings = await self._unary("HasMany", ArtifactsAsk(ask))
            sizes += holdings.sizes
        return sizes

    async def get_many(self, digests: Sequence[str]) -> AsyncIterator[tuple[Content, ...]]:
        for ask in asks(digests):
            async with aclosing(self._responses("GetMany", ArtifactsAsk(ask))) as messages:
                async for message in messages:
                    yield message.contents

    async def aclose(self) -> None:
        for stream in self._streams:
            await stream.aclose()
        for call in [*self._calls]:
            call.cancel()
        for channel in self._channels.values():
            await channel.close()
