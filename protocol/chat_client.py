"""The one client of OpenAI-compatible servers: the port of chat.py over HTTP.

An answer is read here (chat_reading) and not by the library that carries it, whose own reading costs more per chunk,
throws away what came before a fault, and can't tell an end from a cut. Invariants: every fault of a server is a value;
a request is repeated only after the bounded wait that a server asks for, and without what it refused by name
(chat_profile); between calls nothing is open. It must not know plans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import anyio
import msgspec

from .chat import Chat, ChatReply, ChatRequest, Hear, tokens_in
from .chat_body import body, wire_names
from .chat_carrier import Carrier, Lost, Refused
from .chat_endpoint import OPENAI_URL, Endpoint, find_endpoint
from .chat_fault import parameter, refused, words
from .chat_profile import PAGES, PROFILES, ServerProfile, concede, listed, recognise
from .chat_reading import Reading
from .errors import UsageError, WireError
from .json_bytes import read_json
from .setting import LlmDefaults

PROBE_S: Final = 5.0
_AFTER_END_S: Final = 2.0
"""How long usage and [DONE] may take after the model's end."""
_TRIES: Final = 8
_WAITS_S: Final = (0.5, 1.0, 2.0)
"""Before each further try at a server that limits and doesn't say for how long."""
_SHOWN_MODELS: Final = 20
_THERE: Final = ("bad_request", "garbage")
"""A server that answers like this is there, and lists no models."""


def open_chat(llm: LlmDefaults, environ: Mapping[str, str]) -> OpenAIChat:
    """The model that settings and environment name; nothing is connected yet.

    Raises: UsageError without a base URL or key; ConfigInvalid for wrong ones.
    """
    endpoint = find_endpoint(llm, environ)
    if endpoint is None:
        raise UsageError("no model is set", hint="set OPENAI_API_KEY, or OPENAI_BASE_URL to a server of your own")
    return OpenAIChat(endpoint, llm)


class OpenAIChat(Chat):
    """One server and one of its models. Calls may run side by side."""

    def __init__(self, endpoint: Endpoint, llm: LlmDefaults) -> None:
        self.endpoint = endpoint
        self.models: tuple[str, ...] = ()
        """What the server lists, once it was asked."""
        self._llm = llm
        self._name = llm.model
        self._profile = PROFILES.get(llm.profile)
        if llm.profile == "auto" and endpoint.base_url == OPENAI_URL:
            self._profile = PROFILES["openai"]
        self._carrier = Carrier(endpoint)
        self._meeting = anyio.Lock()

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
            if self._profile is None and (fault is None or fault.kind in _THERE):
                self._profile = found or PROFILES["generic"]
            if not self._name and len(self.models) == 1:
                self._name = self.models[0]
            return None if self._name else fault or self._unnamed()

    async def look(self) -> tuple[ServerProfile | None, ChatReply | None]:
        """Ask for the list of models: who answers, as far as it shows, or why nobody does."""
        base_url = self.endpoint.base_url
        headers, models, fault = await self._page(f"{base_url}/models")
        if fault is not None:
            if fault.kind in _THERE and listed((await self._page(f"{base_url}/v1/models"))[1]):
                fault = msgspec.structs.replace(fault, hint=f"set OPENAI_BASE_URL to {base_url}/v1")
            return None, fault
        self.models = listed(models)
        found = recognise(headers, models)
        for page, key, profile in PAGES if found is None and base_url.startswith("http:") else ():
            _, said, _ = await self._page(f"{self.endpoint.root}{page}")
            if isinstance(said, dict) and key in said:
                return PROFILES[profile], None
        return found, None

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
            except Refused as refusal:
                answer = refusal.answer
            reply, said = refused(answer), words(answer.error)[0]
            declined = reply.kind == "bad_request" or answer.status == 500  # some say so for a schema they can't hold
            changed = concede(profile, said, parameter(answer.error)) if declined else None
            if changed is not None:
                profile = changed
                continue
            wait = _wait_s(reply, answer.status, waits)
            if wait is None or anyio.current_time() + wait >= until:
                return reply
            call.limited = reply
            await anyio.sleep(wait)
        return reply

    async def _attempt(self, call: _Call, profile: ServerProfile) -> ChatReply:
        """One request. Raises: Refused."""
        reading = call.begin(profile)
        asked = body(call.request, profile, self._name, self._llm)
        with anyio.move_on_after(call.first_token_s) as pace:

            async def listen(piece: bytes) -> bool:
                seen = reading.progress
                await call.tell(reading.feed(piece), pace)
                if reading.progress > seen:
                    pause = min(_AFTER_END_S, call.stall_s) if reading.finish else call.stall_s
                    pace.deadline = anyio.current_time() + pause
                return reading.over

            try:
                await self._carrier.ask(asked, listen)
            except Lost as lost:
                return _reply(lost) if lost.kind == "unreachable" else reading.fail(lost.kind, lost.message, lost.hint)
            await call.tell(reading.end(), pace)
            return reading.reply()
        if reading.finish:  # only what comes after the end is missing
            return reading.reply()
        silence, limit = (call.stall_s, "stall") if reading.progress else (call.first_token_s, "first_token")
        hint = f"see the model server's log, or raise llm.{limit}"
        return reading.fail("stalled", f"the model server was silent for {silence:g} s", hint)

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

    def _unnamed(self) -> ChatReply:
        more = f" and {len(self.models) - _SHOWN_MODELS} more" if len(self.models) > _SHOWN_MODELS else ""
        shown = ", ".join(self.models[:_SHOWN_MODELS]) or "none"
        said = f"no model is chosen; {self.endpoint.base_url} lists {shown}{more}"
        return ChatReply("no_model", message=said, hint="set ASTERISM_MODEL to one of them")

    async def _page(self, url: str) -> tuple[dict[str, str], Any, ChatReply | None]:
        """A page of the server: its headers and JSON, or why there is none."""
        with anyio.move_on_after(PROBE_S):
            try:
                headers, text = await self._carrier.get(url)
                return headers, read_json(text), None
            except Refused as refusal:
                return {}, None, refused(refusal.answer)
            except Lost as lost:
                return {}, None, _reply(lost)
            except WireError:
                hint = "check llm.base_url: it usually ends in /v1"
                return {}, None, ChatReply("garbage", message=f"{url} is not JSON", hint=hint)
        said = f"{url} did not answer within {PROBE_S:g} s"
        return {}, None, ChatReply("stalled", message=said, hint="see the model server's log")


class _Call:
    """One question with what arrived of its answer."""

    def __init__(self, request: ChatRequest, hear: Hear | None, llm: LlmDefaults) -> None:
        self.request = request
        self.first_token_s = request.first_token_s or llm.first_token
        self.stall_s = request.stall_s or llm.stall
        self.reading = Reading()
        self.begun = False
        self.limited: ChatReply | None = None
        """What a server said that is waited for: why there is no answer, should the time run out meanwhile."""
        self._hear = hear

    def begin(self, profile: ServerProfile) -> Reading:
        self.begun = True
        self.reading = Reading(wire_names(self.request.tools), profile.reasoning)
        return self.reading

    async def tell(self, text: str, pace: anyio.CancelScope) -> None:
        """Hand it on; the server isn't silent meanwhile, so the caller sets the pace anew."""
        if text and self._hear is not None:
            pace.deadline = float("inf")
            await self._hear(text)


def _reply(lost: Lost) -> ChatReply:
    return ChatReply(lost.kind, message=lost.message, hint=lost.hint)


def _wait_s(reply: ChatReply, status: int, waits: Iterator[float]) -> float | None:
    """How long to wait before the next try; None: don't."""
    if reply.retry_after_s is not None and (reply.kind == "rate_limited" or status == 503):
        return max(reply.retry_after_s, 0.05)
    return next(waits, None) if status == 429 and "credit" not in reply.hint else None
