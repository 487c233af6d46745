"""The server end of gRPC: authenticates, checks the role, hands on to the Services, turns errors into statuses.

Invariant: nobody reaches a service without a principal of a role that ROLES allows, and nothing but a typed error
leaves one. A worker's session learns that its call is over as the end of its stream, never as a cancellation.
"""

from __future__ import annotations

import asyncio
import logging
import random
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

import anyio

from .artifact import Content
from .authority import Authority
from .bundle import refusals
from .codec import (
    METHODS,
    SERVICE,
    Answer,
    ArtifactAsk,
    ArtifactsAsk,
    Bundle,
    Chunk,
    Holding,
    Holdings,
    Invocation,
    PutPart,
    SubmitPart,
    cut,
)
from .door import Door
from .errors import AsterismError, NotAllowed, Unavailable, WireError
from .grpc_call import ADMITTED, CallStream, abort, server_options
from .grpc_engine import grpc
from .port import Authenticate, Services
from .security import GUEST, PEER_TLS, Principal, check_role

T = TypeVar("T")
SESSION_S: Final = 86400.0
IDLE_MS: Final = 300_000
_DRAIN_BYTES: Final = 64 * 1024 * 1024
_log: Final = logging.getLogger("asterism.transport")


class GrpcServer:
    """A listening server: authenticates, checks the role, hands on to the services, turns errors into statuses."""

    def __init__(
        self,
        services: Services,
        authenticate: Authenticate,
        edge: bool,
        authority: Authority | None = None,
        session_s: float = SESSION_S,
        door: Door | None = None,
    ) -> None:
        self._services = services
        self._authenticate = authenticate
        self._authority = authority
        self._session_s = session_s
        self._door = door or Door()
        self._sessions: set[asyncio.Task[None]] = set()
        self._calls: dict[asyncio.Task[Any], Principal] = {}
        self._ended: set[asyncio.Task[Any]] = set()
        self._server = grpc.aio.server(options=[*server_options(edge), *(_bounds() if authority is not None else ())])
        self.port = 0
        serve: dict[str, Callable[[Principal, Any, Any], Awaitable[Any]]] = {
            "Link": self._link,
            "Invoke": self._invoke,
            "Watch": self._watch,
            "Submit": self._submit,
            "Put": self._put,
            "Has": self._has,
            "Get": self._get,
            "PutMany": self._put_many,
            "HasMany": self._has_many,
            "GetMany": self._get_many,
        }
        handlers = {
            name: getattr(grpc, f"{METHODS[name].kind}_rpc_method_handler")(self._guard(name, one))
            for name, one in serve.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self, listen: str) -> None:
        try:
            if self._authority is None:
                self.port = self._server.add_insecure_port(listen)
            else:
                self.port = self._server.add_secure_port(listen, _credentials(self._authority, self._door.knocked))
        except RuntimeError as error:
            raise Unavailable(f"can't listen on {listen}: {error}", hint="choose a free port with --listen") from None
        await self._server.start()

    async def aclose(self, grace_s: float = 0.5) -> None:
        """Take no new call, give the open ones `grace_s`, end the rest."""
        with anyio.CancelScope(shield=True):
            await self._server.stop(grace_s)
            if self._sessions:
                _, open_ = await asyncio.wait(self._sessions, timeout=grace_s)
                for session in open_:
                    session.cancel()
                if open_:
                    await asyncio.wait(open_)

    def end(self, who: Principal) -> None:
        """Close everything that is open for this principal: its credential is good no more."""
        for task, owner in self._calls.items():
            if owner == who:
                self._ended.add(task)
                task.cancel()

    def _guard(self, name: str, serve: Callable[[Principal, Any, Any], Awaitable[Any]]) -> Any:
        """The handler of one RPC: only an authenticated principal of the right role gets in, only typed errors out."""

        async def handler(request: Any, context: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            who, peer = GUEST, context.peer()
            try:
                metadata = self._metadata(context)
                self._door.spoke(peer, metadata.get(PEER_TLS) == "stranger")
                who = self._authenticate(metadata) or GUEST
                self._door.admit(who, peer)
                if name not in ("Invoke", "Watch"):
                    check_role(who, name)
                self._calls[task] = who
                return await serve(who, request, context)
            except AsterismError as error:
                if isinstance(error, NotAllowed | WireError) or error.ref == "TooMany":
                    self._door.refuse(who, peer, error)
                await abort(context, error)
            except asyncio.CancelledError:
                if task not in self._ended:
                    raise
                task.uncancel()
                await abort(context, NotAllowed("this identity was revoked", hint="enrol again", ref="Revoked"))
            except (grpc.aio.BaseError, grpc.RpcError):
                raise asyncio.CancelledError from None  # the client is gone, there is nobody to tell
            except Exception as error:  # noqa: BLE001 - a bug of one call must reach its caller typed, and only them
                _log.exception("%s failed", name)
                hint = "this is a bug; the server's log has the details"
                await abort(context, AsterismError(f"internal error: {type(error).__name__}: {error}", hint=hint))
            finally:
                self._calls.pop(task, None)
                self._ended.discard(task)

        return handler

    def _metadata(self, context: Any) -> dict[str, str]:
        """What the peer sent, and what its certificate says. Raises: NotAllowed for one that has expired."""
        sent = context.invocation_metadata()
        metadata = {key: value for key, value in sent if isinstance(value, str) and key[:1] != ":"}
        return metadata if self._authority is None else metadata | self._authority.seen(_certificate(context))

    def _lasts_s(self, context: Any) -> float:
        """How long a stream may stay open: its certificate is checked when it opens."""
        most = self._session_s * random.uniform(0.9, 1.0)  # streams that were opened together don't end together
        return most if self._authority is None else min(most, self._authority.left_s(_certificate(context)))

    async def _link(self, who: Principal, _: Any, context: Any) -> None:
        await context.send_initial_metadata((ADMITTED,))
        lasts_s = str(self._lasts_s(context))
        peer = {"worker": str(who.worker_id), "name": who.name, "role": who.role, "lasts_s": lasts_s}
        stream = CallStream(context.read, context.write, lambda error: None, lambda: None, peer)
        session = asyncio.create_task(self._serve_link(stream))
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)
        try:
            await asyncio.wait({session})
        except asyncio.CancelledError:  # the call is over: the session learns it as the end of its stream
            stream.lost()
            await asyncio.wait({session})
            raise
        session.result()

    async def _serve_link(self, stream: CallStream) -> None:
        try:
            await self._services.link(stream)
        finally:
            await stream.aclose()

    async def _invoke(self, who: Principal, request: bytes, _: Any) -> bytes:
        asked: Invocation = METHODS["Invoke"].request.decode(request)
        check_role(who, asked.method)
        body = await self._services.invoke(who, asked.method, asked.body)
        return METHODS["Invoke"].response.encode(Answer(body))

    async def _watch(self, who: Principal, request: bytes, context: Any) -> None:
        asked: Invocation = METHODS["Watch"].request.decode(request)
        check_role(who, asked.method)
        answers = self._services.watch(who, asked.method, asked.body)
        try:
            async with asyncio.timeout(self._lasts_s(context)):
                await _stream_out(context, answers, lambda body: METHODS["Watch"].response.encode(Answer(body)))
        except TimeoutError:
            raise Unavailable("this stream has grown old", hint="open another: it goes on by number") from None

    async def _submit(self, who: Principal, _: Any, context: Any) -> bytes:
        parts = _Parts(context, "Submit")
        first: SubmitPart = await parts.next()
        try:
            body = await self._services.submit(who, first.header, parts.data())
        except AsterismError:
            await parts.drain()
            raise
        return METHODS["Submit"].response.encode(Answer(body))

    async def _put(self, who: Principal, _: Any, context: Any) -> bytes:
        parts = _Parts(context, "Put")
        first: PutPart = await parts.next()
        try:
            held = await self._services.put(who, first.digest, first.media, first.offset, parts.data())
        except AsterismError:
            await parts.drain()
            raise
        return METHODS["Put"].response.encode(Holding(held))

    async def _has(self, who: Principal, request: bytes, _: Any) -> bytes:
        asked: ArtifactAsk = METHODS["Has"].request.decode(request)
        return METHODS["Has"].response.encode(Holding(await self._services.has(who, asked.digest)))

    async def _get(self, who: Principal, request: bytes, context: Any) -> None:
        asked: ArtifactAsk = METHODS["Get"].request.decode(request)
        chunks = self._services.get(who, asked.digest, asked.offset)
        await _stream_out(context, cut(chunks), lambda data: METHODS["Get"].response.encode(Chunk(data)))

    async def _put_many(self, who: Principal, _: Any, context: Any) -> bytes:
        parts = _Parts(context, "PutMany")
        first: Bundle = await parts.next()

        async def bundles() -> AsyncIterator[tuple[Content, ...]]:
            if first.contents:
                yield first.contents
            async for part in parts.rest():
                yield part.contents

        try:
            refused = await self._services.put_many(who, bundles())
        except AsterismError:
            await parts.drain()
            raise
        return METHODS["PutMany"].response.encode(refusals(refused))

    async def _has_many(self, who: Principal, request: bytes, _: Any) -> bytes:
        asked: ArtifactsAsk = METHODS["HasMany"].request.decode(request)
        return METHODS["HasMany"].response.encode(Holdings(tuple(await self._services.has_many(who, asked.digests))))

    async def _get_many(self, who: Principal, request: bytes, context: Any) -> None:
        asked: ArtifactsAsk = METHODS["GetMany"].request.decode(request)
        found = self._services.get_many(who, asked.digests)
        await _stream_out(context, found, lambda contents: METHODS["GetMany"].response.encode(Bundle(contents)))


def _certificate(context: Any) -> bytes:
    found: bytes = context.auth_context()["x509_pem_cert"][0]
    return found


def _bounds() -> list[tuple[str, int]]:
    """Connections are files: so many that the journal and the artifacts can still be opened. Idle ones are closed."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [("grpc.max_allowed_incoming_connections", max(64, files // 2)), ("grpc.max_connection_idle_ms", IDLE_MS)]


def _credentials(authority: Authority, knocked: Callable[[], None]) -> grpc.ServerCredentials:
    """Asked at each handshake, so that a renewed certificate needs no new port. Every peer has to have one."""
    served = [authority.pair]

    def made() -> grpc.ServerCertificateConfiguration:
        key, chain = served[0]
        return grpc.ssl_server_certificate_configuration([(key.encode(), chain.encode())], authority.roots().encode())

    def fetch() -> Any:
        knocked()
        if served[0] is authority.pair:
            return None
        served[0] = authority.pair
        return made()

    return grpc.dynamic_ssl_server_credentials(made(), fetch, require_client_authentication=True)


async def _stream_out(context: Any, answers: AsyncIterator[T], encode: Callable[[T], bytes]) -> None:
    try:
        async for answer in answers:
            await context.write(encode(answer))
    finally:
        close = getattr(answers, "aclose", None)
        if close is not None:
            with anyio.CancelScope(shield=True):
                await close()


class _Parts:
    """An upload as its first part and the others, complete only with its `last` part.

    The client sends no more than the first part until it is told to, which happens when a service asks for data: a
    refusal before that arrives as it is. One after that arrives once the client had its say, up to a bound.
    """

    def __init__(self, context: Any, name: str) -> None:
        self._context = context
        self._decode = METHODS[name].request.decode
        self._wanted = False
        self._complete = False
        self._size = 0

    async def next(self) -> Any:
        data = await self._context.read()
        if data is grpc.aio.EOF:
            raise WireError("an upload was cut off before its end", hint="send it again")
        self._size = len(data)
        part = self._decode(data)
        self._complete = part.last
        return part

    async def rest(self) -> AsyncIterator[Any]:
        if self._complete:
            return
        await self._context.send_initial_metadata((ADMITTED,))
        self._wanted = True
        while not self._complete:
            yield await self.next()

    async def data(self) -> AsyncIterator[bytes]:
        async for part in self.rest():
            if part.data:
                yield part.data

    async def drain(self) -> None:
        left = _DRAIN_BYTES
        while self._wanted and not self._complete and left > 0:
            await self.next()
            left -= self._size
