"""The one client of OpenAI-compatible servers: the port of chat.py over HTTP, through the openai library.

The library carries the request; its stream is read here (chat_reading), because its own reading costs more per chunk,
throws away what came before a fault, and can't tell an end from a cut. Invariants: no retry but the bounded wait for a
rate limit and the concessions of chat_profile; no redirect is followed; one connection per call, closed with it; every
fault of the server is a value. The library is imported when it is first used, in a thread. It must not know plans.
"""

from __future__ import annotations

import importlib
import os
import re
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from .chat import Chat, ChatReply, ChatRequest, Hear, tokens_in
from .chat_body import body, wire_names
from .chat_endpoint import OPENAI_URL, Endpoint, find_endpoint
from .chat_fault import Refusal, parameter, refused, words
from .chat_profile import PROFILES, ServerProfile, concede, listed, recognise
from .chat_reading import Reading
from .config import LlmDefaults
from .errors import UsageError, WireError
from .json_bytes import read_json

CONNECT_S: Final = 10.0
PROBE_S: Final = 5.0
_AFTER_END_S: Final = 2.0
"""How long usage and [DONE] may take after the model's end."""
_TRIES: Final = 8
_WAITS_S: Final = (1.0, 2.0, 4.0)
"""Before each further try at a server that limits and doesn't say for how long."""
_MAX_BODY: Final = 1024**2
_SHOWN_MODELS: Final = 20
_LEFT: Final = re.compile("disconnect|closed|incomplete")
"""How a connection's end reads, among the breaches of its protocol."""


def open_chat(llm: LlmDefaults, environ: Mapping[str, str]) -> OpenAIChat:
    """The model that settings and environment name; nothing is connected yet.

    Raises: UsageError without a base URL or key; ConfigInvalid for wrong ones.
    """
    endpoint = find_endpoint(llm, environ)
    if endpoint is None:
        raise UsageError("no model is set", hint="set OPENAI_API_KEY, or OPENAI_BASE_URL to a server of your own")
    return OpenAIChat(endpoint, llm)


class OpenAIChat(Chat):
    """One server and one of its models. Calls may run side by side; it holds nothing open between them."""

    def __init__(self, endpoint: Endpoint, llm: LlmDefaults) -> None:
        self.endpoint = endpoint
        self.models: tuple[str, ...] = ()
        """What the server lists, once it was asked."""
        self._llm = llm
        self._name = llm.model
        self._profile = PROFILES.get(llm.profile)
        if llm.profile == "auto" and endpoint.base_url == OPENAI_URL:
            self._profile = PROFILES["openai"]
        self._meeting = anyio.Lock()
        self._tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"OpenAIChat({self._name!r} at {self.endpoint!r})"

    @property
    def name(self) -> str:
        return self._name

    @property
    def profile(self) -> ServerProfile | None:
        """None: not known yet."""
        return self._profile

    async def meet(self) -> ChatReply | None:
        """Find out, once, which server this is and which model it has. None: all is known; else what is in the way."""
        async with self._meeting:
            if self._name and self._profile is not None:
                return None
            found, fault = await self.look()
            if self._profile is None and fault is None:
                self._profile = found or PROFILES["generic"]
            if not self._name and len(self.models) == 1:
                self._name = self.models[0]
            return None if self._name else fault or self._choose()

    async def complete(self, request: ChatRequest, hear: Hear | None = None) -> ChatReply:
        call = _Call(request, hear, self._llm)
        with anyio.move_on_after(request.deadline_s):
            return self._priced(call, await self._complete(call))
        if call.limited is not None and not call.reading.progress:
            return self._priced(call, call.limited)
        said = f"the model did not answer within {request.deadline_s:g} s"
        return self._priced(call, call.reading.fail("timeout", said, "allow more time, or use a faster model"))

    async def _complete(self, call: _Call) -> ChatReply:
        until = anyio.current_time() + call.request.deadline_s
        if (fault := await self.meet()) is not None:
            return fault
        profile, waits = self._profile or PROFILES["generic"], iter(_WAITS_S)
        for _ in range(_TRIES):
            try:
                reply = await self._attempt(call, profile)
                self._learn(profile)
                return reply
            except _Refused as refusal:
                answer = refusal.answer
            reply, said = refused(answer), words(answer.error)[0]
            call.limited = reply
            changed = concede(profile, said, parameter(answer.error)) if reply.kind == "bad_request" else None
            if changed is not None:
                profile = changed
                continue
            wait = _wait_s(reply, answer.status, waits)
            if wait is None or anyio.current_time() + wait >= until:
                return reply
            await anyio.sleep(wait)
        return reply

    async def _attempt(self, call: _Call, profile: ServerProfile) -> ChatReply:
        """One request. Raises: _Refused."""
        reading = call.begin(profile)
        with anyio.move_on_after(call.first_token_s) as pace:
            try:
                await self._stream(call, profile, pace)
            except _lost() as error:
                if error is call.raised:
                    raise
                return _broken(error, reading)
            return reading.reply()
        if reading.finish:  # only what comes after the end is missing
            return reading.reply()
        silence = call.stall_s if reading.progress else call.first_token_s
        return reading.fail(
            "stalled", f"the server was silent for {silence:g} s", "see its log; llm.first_token, llm.stall"
        )

    async def _stream(self, call: _Call, profile: ServerProfile, pace: anyio.CancelScope) -> None:
        reading, library = call.reading, await self._ready()
        asked = body(call.request, profile, self._name, self._llm.max_tokens)
        fixed = {name: asked.pop(name) for name in ("model", "messages", "stream")}
        async with self._http(library) as http:
            client = library.AsyncOpenAI(api_key="-", base_url=self.endpoint.base_url, http_client=http, max_retries=0)
            async with client.chat.completions.with_streaming_response.create(**fixed, extra_body=asked) as response:
                async for chunk in response.iter_bytes():
                    seen = reading.progress
                    await call.tell(reading.feed(chunk), pace)
                    if reading.over:
                        return
                    if reading.progress > seen:
                        pause = min(_AFTER_END_S, call.stall_s) if reading.finish else call.stall_s
                        pace.deadline = anyio.current_time() + pause
            await call.tell(reading.end(), pace)

    async def _ready(self) -> Any:
        """The library. What takes its time for the first call is done off the event loop."""

        def load() -> Any:
            if self._tls is None:
                secure = self.endpoint.base_url.startswith("https:")
                self._tls = _carrier().create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            return _library()

        return _library() if self._tls is not None else await anyio.to_thread.run_sync(load, abandon_on_cancel=True)

    def _http(self, library: Any) -> Any:
        """The library's HTTP client, which never follows a redirect and sends nothing about this machine."""

        async def prune(request: Any) -> None:
            for name in [name for name in request.headers if name.startswith("x-stainless-")]:
                if name != "x-stainless-raw-response":  # the library reads it again when it has the answer
                    del request.headers[name]
            request.headers["accept-encoding"] = "identity"  # compression holds tokens back
            if self.endpoint.authorization:
                request.headers["authorization"] = self.endpoint.authorization
            else:
                request.headers.pop("authorization", None)

        async def check(response: Any) -> None:
            if not response.is_success:
                raise _Refused(Refusal(response.status_code, _lower(response.headers), await _read(response)))

        return library.DefaultAsyncHttpxClient(
            follow_redirects=False,
            trust_env=not self.endpoint.local,  # proxies are for other machines
            verify=self._tls,
            timeout=library.Timeout(None, connect=CONNECT_S),
            event_hooks={"request": [prune], "response": [check]},
        )

    def _learn(self, profile: ServerProfile) -> None:
        """Keep what a server did not want, but not how it took one schema."""
        if self._profile is not None:
            self._profile = msgspec.structs.replace(profile, schema=self._profile.schema)

    def _priced(self, call: _Call, reply: ChatReply) -> ChatReply:
        came = tokens_in(call.request) if reply.estimated and call.begun else reply.tokens_in
        price = (came * self._llm.price_in + reply.tokens_out * self._llm.price_out) / 1e6
        hide = self.endpoint.hide
        return msgspec.structs.replace(
            reply, tokens_in=came, price=price, message=hide(reply.message), hint=hide(reply.hint)
        )

    # who the server is

    async def look(self) -> tuple[ServerProfile | None, ChatReply | None]:
        """Ask for the list of models: who answers, as far as it shows, or why nobody does."""
        answer, fault = await self._get(f"{self.endpoint.base_url}/models")
        if answer is None:
            return None, fault
        self.models = listed(answer[1])
        return recognise(*answer) or await self._ask_pages(), None

    def _choose(self) -> ChatReply:
        more = f" and {len(self.models) - _SHOWN_MODELS} more" if len(self.models) > _SHOWN_MODELS else ""
        shown = ", ".join(self.models[:_SHOWN_MODELS]) or "none"
        said = f"no model is chosen; {self.endpoint.base_url} lists {shown}{more}"
        return ChatReply("no_model", message=said, hint="set ASTERISM_MODEL to one of them")

    async def _ask_pages(self) -> ServerProfile | None:
        for page, key, name in (
            ("/api/version", "version", "ollama"),
            ("/props", "default_generation_settings", "llama.cpp"),
        ):
            answer, _ = await self._get(f"{self.endpoint.root}{page}")
            if answer is not None and isinstance(answer[1], dict) and key in answer[1]:
                return PROFILES[name]
        return None

    async def _get(self, url: str) -> tuple[tuple[dict[str, str], Any] | None, ChatReply | None]:
        """A page of the server as (headers, JSON), or why there is none. Bounded in time and size."""
        library = await self._ready()
        with anyio.move_on_after(PROBE_S):
            try:
                async with self._http(library) as http, http.stream("GET", url) as response:
                    return (_lower(response.headers), read_json(await _read(response))), None
            except _Refused as error:
                return None, refused(error.answer)
            except WireError:
                said, hint = f"{url} is not JSON", "check llm.base_url: it usually ends in /v1"
                return None, ChatReply("garbage", message=said, hint=hint)
            except _lost() as error:
                return None, _broken(error, Reading())
        return None, ChatReply("stalled", message=f"{url} did not answer within {PROBE_S:g} s", hint="is it running?")


class _Call:
    """One question with what arrived of its answer."""

    def __init__(self, request: ChatRequest, hear: Hear | None, llm: LlmDefaults) -> None:
        self.request = request
        self.first_token_s = request.first_token_s or llm.first_token
        self.stall_s = request.stall_s or llm.stall
        self.reading = Reading()
        self.begun = False
        self.limited: ChatReply | None = None
        """What the server said last instead of an answer: why there is none, if time runs out over a further try."""
        self.raised: BaseException | None = None
        """By the listener: no fault of the server."""
        self._hear = hear

    def begin(self, profile: ServerProfile) -> Reading:
        self.begun = True
        self.reading = Reading(wire_names(self.request.tools), profile.reasoning)
        return self.reading

    async def tell(self, text: str, pace: anyio.CancelScope) -> None:
        """Hand it on; the server isn't silent meanwhile, so the caller sets the pace anew."""
        if text and self._hear is not None:
            pace.deadline = float("inf")
            try:
                await self._hear(text)
            except BaseException as error:
                self.raised = error
                raise


class _Refused(Exception):
    """The server's answer is no success."""

    def __init__(self, answer: Refusal) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer


def _wait_s(reply: ChatReply, status: int, waits: Any) -> float | None:
    """How long to wait before the next try; None: don't."""
    if reply.retry_after_s is not None and (reply.kind == "rate_limited" or status == 503):
        return max(reply.retry_after_s, 0.05)
    return next(waits, None) if status == 429 and "credit" not in reply.hint else None


async def _read(response: Any) -> bytes:
    """A body, as far as it is of use."""
    found = bytearray()
    with anyio.move_on_after(PROBE_S):
        async for chunk in response.aiter_bytes():
            found += chunk
            if len(found) > _MAX_BODY:
                break
    return bytes(found[:_MAX_BODY])


def _lower(headers: Any) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _broken(error: BaseException, reading: Reading) -> ChatReply:
    """The reply for a connection that failed. Texts of libraries are not passed on: they may hold the request."""
    chain, cause = [error], error.__cause__ or error.__context__
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    names = {type(one).__name__ for one in chain}
    tls = next((one for one in chain if isinstance(one, ssl.SSLError)), None)
    if tls is not None and not reading.progress:
        why = getattr(tls, "verify_message", "") or tls.reason or "handshake failed"
        hint = "use the URL its certificate names; SSL_CERT_FILE names further authorities"
        return ChatReply("unreachable", message=f"no TLS with the server: {why}", hint=hint)
    if names & {"ConnectError", "ConnectTimeout", "ProxyError", "gaierror", "ConnectionRefusedError"}:
        codes = [one.errno for one in chain if isinstance(one, OSError) and one.errno]
        why = os.strerror(codes[0]) if codes and codes[0] > 0 else "no such host" if codes else "no answer"
        hint = "start it, or correct OPENAI_BASE_URL"
        return ChatReply("unreachable", message=f"the model server can't be reached: {why}", hint=hint)
    if "RemoteProtocolError" in names and not _LEFT.search(" ".join(map(str, chain))):
        return reading.fail("garbage", "the server doesn't speak HTTP", "check llm.base_url")
    return reading.fail("cut", "the connection broke before the answer ended", "try again; see the server's log")


@cache
def _library() -> Any:
    """The openai library: half a second and 30 MiB, so only when it is used, and off the event loop."""
    library = importlib.import_module("openai")
    importlib.import_module("openai.resources.chat")
    return library


@cache
def _carrier() -> Any:
    """The HTTP library under it, which differs from version to version."""
    return importlib.import_module(_library().DefaultAsyncHttpxClient.__mro__[1].__module__)


@cache
def _lost() -> tuple[type[BaseException], ...]:
    """What a connection may die of."""
    library, http = _library(), _carrier()
    return (
        library.OpenAIError,
        http.HTTPError,
        http.StreamError,
        OSError,
        anyio.EndOfStream,
        anyio.BrokenResourceError,
    )
