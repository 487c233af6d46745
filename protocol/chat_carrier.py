"""HTTP to one model server, through the openai library: a request out, the pieces of its answer in.

Invariants: the key goes into the header of requests to its own base URL and nowhere else; no redirect is followed,
nothing is tried again, nothing about this machine is sent; one connection per request, closed with it. A server may be
silent as long as its machine answers: the kernel asks that, as no word comes from one that is gone. Texts of the
library are not passed on, as they may hold the request. The library takes half a second and 20 MiB, so it is imported
when it is first used, in a thread. It must not know what an answer says.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, Final

import anyio
import anyio.to_thread

from .chat import Kind
from .chat_endpoint import Endpoint
from .chat_fault import Refusal

CONNECT_S: Final = 10.0
GONE_S: Final = 15
"""A machine that has answered nothing for so long is gone. A shorter break of the network does no harm."""
_WATCH: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", GONE_S // 3),
    (socket.IPPROTO_TCP, "TCP_KEEPALIVE", GONE_S // 3),  # the same on macOS
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", GONE_S // 3),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 2),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", GONE_S * 1000),  # for what was sent and not acknowledged
)
"""How the kernel is told to notice that the other machine is gone; not every system has every name."""
_SILENCE: Final = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
_BODY_S: Final = 5.0
_MAX_BODY: Final = 1024**2
_RAW: Final = "x-stainless-raw-response"
"""What the library itself looks for again when it has the answer."""
_LEFT: Final = re.compile("disconnect|closed|incomplete")
"""How a connection's end reads, among the breaches of its protocol."""
_DIAL: Final = frozenset(("ConnectError", "ConnectTimeout", "ProxyError"))


class Refused(Exception):
    """The server's answer is no success."""

    def __init__(self, answer: Refusal) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer


class Lost(Exception):
    """There is no connection, or no more, or what it speaks is not HTTP."""

    def __init__(self, kind: Kind, message: str, hint: str) -> None:
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


class Carrier:
    """Requests to one endpoint. Bounded in size where it reads a whole answer; its caller bounds the time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._tls: ssl.SSLContext | None = None

    async def ask(self, body: Mapping[str, Any], listen: Callable[[bytes], Awaitable[bool]]) -> None:
        """Post a chat request; `listen` gets each piece of the answer, and says whether it wants no more.

        Raises: Refused, Lost; whatever `listen` raises.
        """
        library, raised = await self._ready(), None
        rest = dict(body)
        fixed = {name: rest.pop(name) for name in ("model", "messages", "stream")}
        url = self._endpoint.base_url
        try:
            async with self._http(library) as http:
                client = library.AsyncOpenAI(api_key="-", base_url=url, http_client=http, max_retries=0)
                async with client.chat.completions.with_streaming_response.create(**fixed, extra_body=rest) as answer:
                    async for piece in answer.iter_bytes():
                        try:
                            enough = await listen(piece)
                        except BaseException as error:
                            raised = error
                            raise
                        if enough:
                            return
        except _faults() as error:
            if error is raised:
                raise
            raise _lost(error) from None

    async def get(self, url: str) -> tuple[dict[str, str], bytes]:
        """A page: its headers, in lower case, and as much of its body as is of use. Raises: Refused, Lost."""
        library = await self._ready()
        try:
            async with self._http(library) as http, http.stream("GET", url) as answer:
                return _lower(answer.headers), await _read(answer)
        except _faults() as error:
            raise _lost(error) from None

    async def _ready(self) -> Any:
        """The library. What takes its time for the first request is done off the event loop."""

        def load() -> Any:
            if self._tls is None:
                secure = self._endpoint.base_url.startswith("https:")
                self._tls = _http().create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            return _library()

        return _library() if self._tls is not None else await anyio.to_thread.run_sync(load, abandon_on_cancel=True)

    def _http(self, library: Any) -> Any:
        async def prune(request: Any) -> None:
            for name in [name for name in request.headers if name.startswith("x-stainless-") and name != _RAW]:
                del request.headers[name]
            request.headers["accept-encoding"] = "identity"  # compression holds tokens back
            request.extensions["trace"] = _connected
            if self._endpoint.authorization:
                request.headers["authorization"] = self._endpoint.authorization
            else:
                request.headers.pop("authorization", None)

        async def check(answer: Any) -> None:
            if not answer.is_success:
                raise Refused(Refusal(answer.status_code, _lower(answer.headers), await _read(answer)))

        return library.DefaultAsyncHttpxClient(
            follow_redirects=False,
            trust_env=not self._endpoint.local,  # proxies are for other machines
            verify=self._tls,
            timeout=library.Timeout(None, connect=CONNECT_S),
            event_hooks={"request": [prune], "response": [check]},
        )


async def _connected(step: str, about: dict[str, Any]) -> None:
    """What happens to a request's connection. The client's own socket options would make it blind to proxies."""
    if step.endswith("connect_tcp.complete"):
        _watch_over(about["return_value"].get_extra_info("socket"))


def _watch_over(link: socket.socket) -> None:
    for level, name, value in _WATCH:
        if hasattr(socket, name):
            with contextlib.suppress(OSError):
                link.setsockopt(level, getattr(socket, name), value)


async def _read(answer: Any) -> bytes:
    found = bytearray()
    with anyio.move_on_after(_BODY_S):
        async for piece in answer.aiter_bytes():
            found += piece
            if len(found) > _MAX_BODY:
                break
    return bytes(found[:_MAX_BODY])


def _lower(headers: Any) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _lost(error: BaseException) -> Refused | Lost:
    chain, cause = [error], error.__cause__ or error.__context__
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for one in chain:  # before version 3 the library wraps what its hooks raise
        if isinstance(one, Refused):
            return one
    names = {type(one).__name__ for one in chain}
    if names & _DIAL:
        if (tls := next((one for one in chain if isinstance(one, ssl.SSLError)), None)) is not None:
            why = getattr(tls, "verify_message", "") or tls.reason or "handshake failed"
            hint = "use the URL that its certificate names; SSL_CERT_FILE names further authorities"
            return Lost("unreachable", f"no TLS with the model server: {why}", hint)
        codes = [one.errno for one in chain if isinstance(one, OSError) and one.errno]
        why = os.strerror(codes[0]) if codes and codes[0] > 0 else "no such host" if codes else "no answer"
        return Lost("unreachable", f"the model server can't be reached: {why}", "start it, or correct OPENAI_BASE_URL")
    if "RemoteProtocolError" in names and not _LEFT.search(" ".join(map(str, chain))):
        return Lost("garbage", "the model server doesn't speak HTTP", "check llm.base_url")
    if any(isinstance(one, OSError) and one.errno in _SILENCE for one in chain):
        said = f"the model server's machine has not answered for {GONE_S} s"
        return Lost("cut", said, "see whether it runs and can be reached, then try again")
    return Lost("cut", "the connection broke before the answer ended", "try again; see the model server's log")


@cache
def _library() -> Any:
    library = importlib.import_module("openai")
    importlib.import_module("openai.resources.chat")
    return library


@cache
def _http() -> Any:
    """The HTTP library under it, which differs from version to version."""
    return importlib.import_module(_library().DefaultAsyncHttpxClient.__mro__[1].__module__)


@cache
def _faults() -> tuple[type[BaseException], ...]:
    """What a connection may die of."""
    http = _http()
    gone = (OSError, anyio.EndOfStream, anyio.BrokenResourceError)
    return (_library().OpenAIError, http.HTTPError, http.StreamError, *gone)
