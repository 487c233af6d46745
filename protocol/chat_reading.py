"""What a model's stream says, sans-I/O: bytes in, pieces of text out, and at the end a reply.

Total: whatever arrives becomes a reply. A server that answers with one JSON document instead of a stream is read too.
What a model only thinks, in fields of its own or between `<think>` tags at the beginning, is counted and not kept.
Text is bounded. It must not know sockets, clocks, prices or profiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import msgspec

from .chat import ChatReply, Kind, ToolCall, tokens_of
from .chat_fault import SHOWN, said_in_stream
from .chat_thinking import Thinking
from .errors import WireError
from .event_stream import MAX_EVENT_BYTES, EventStream
from .json_bytes import read_json

MAX_TEXT: Final = 2 * 1024**2
MAX_CALLS: Final = 128
MAX_BLANKS: Final = 1024
_DONE: Final = b"[DONE]"
_ENDS: Final[Mapping[str, Kind]] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "filtered",
    "abort": "cut",
    "error": "server_error",
}
"""`finish_reason` -> kind; every other one is the model's own end."""


class Reading:
    """One answer as it arrives. `progress` grows with whatever the model produced; `over`: nothing more is wanted."""

    def __init__(self, names: Mapping[str, str] | None = None, reasoning: tuple[str, ...] = ()) -> None:
        self.progress = 0
        self.over = False
        self.finish = ""
        self._names = names or {}
        self._reasoning = reasoning
        self._events = EventStream()
        self._document: bytearray | None = None
        self._begun = False
        self._said_anything = False
        self._done = False
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._thought: list[str] = []
        self._calls: list[_Call] = []
        self._at: dict[int, _Call] = {}
        self._size = self._blanks = 0
        self._think = Thinking()
        self._usage: tuple[int, int] | None = None
        self._counted = 0
        self._fault: ChatReply | None = None

    def feed(self, chunk: bytes) -> str:
        """The text that these bytes add."""
        if not self._begun:
            chunk = chunk.lstrip(b"\xef\xbb\xbf \r\n\t")
            if not chunk:
                return ""
            self._begun = True
            if chunk[:1] in b"{[<":
                self._document = bytearray()
        if self._document is not None:
            self._document += chunk
            if len(self._document) > MAX_EVENT_BYTES or self._document[:1] == b"<":
                self._fail("garbage", _not_protocol(self._document))
            return ""
        try:
            return self._read(self._events.feed(chunk))
        except WireError as error:
            return self._fail("garbage", error.message)

    def end(self) -> str:
        """The stream has ended: the text that was still held back."""
        if self.over:
            return ""
        if self._document is not None:
            return self._read([bytes(self._document)]) + self._drain()
        last = self._events.end()
        return self._read([data for data in last if data.startswith(_DONE) or _is_json(data)]) + self._drain()

    def _drain(self) -> str:
        return self._add(self._text, self._think.end())

    def fail(self, kind: Kind, message: str, hint: str = "") -> ChatReply:
        """The reply when something outside ended it: what arrived is kept."""
        self._fail(kind, message, hint)
        return self.reply()

    def reply(self) -> ChatReply:
        """How it ended, by what has arrived. Usage as the server counted it, else estimated; no tokens in."""
        calls = tuple(call.made(n, self._names) for n, call in enumerate(self._calls))
        thought = self._counted or tokens_of("".join(self._thought))
        spent = self._usage or (0, max(self.progress, thought + sum(map(tokens_of, self._written()))))
        reply = self._fault or self._ended(bool(calls), thought)
        return msgspec.structs.replace(
            reply,
            text="".join(self._text),
            tool_calls=calls,
            tokens_in=spent[0],
            tokens_out=spent[1],
            thought=thought,
            estimated=self._usage is None,
        )

    def _written(self) -> list[str]:
        return ["".join(self._text), "".join(self._refusal), *(call.arguments for call in self._calls)]

    def _ended(self, calls: bool, thought: int) -> ChatReply:
        if self._refusal:
            return ChatReply("refused", message="".join(self._refusal)[:SHOWN], hint="ask for something else")
        kind = _ENDS.get(self.finish, "complete")
        if kind == "length":
            hint = "raise llm.max_tokens" + (f": the model spent about {thought} tokens thinking" if thought else "")
            return ChatReply("length", message="the answer is longer than its limit of tokens", hint=hint)
        if kind != "complete":
            return ChatReply(kind, message=f"the server ended the answer: {self.finish[:SHOWN]}", hint="try again")
        if not (self.finish or self._done):
            if self._events.strange and not self._said_anything:
                return ChatReply("garbage", message="the server's answer holds no event", hint=_WRONG_URL)
            return ChatReply("cut", message="the stream ended before the answer did", hint="try again")
        return ChatReply("tool_calls" if calls else "complete")

    def _read(self, events: list[bytes]) -> str:
        text = ""
        for data in events:
            if self.over:
                break
            self._said_anything = True
            if data.startswith(_DONE):
                self._done = self.over = True
                text += self._drain()
                break
            try:
                chunk = read_json(data)
            except WireError:
                self._fail("garbage", _not_protocol(data))
                break
            text += self._chunk(chunk)
        return text

    def _chunk(self, chunk: Any) -> str:
        if not isinstance(chunk, dict):
            return self._fail("garbage", "an event is no object")
        if error := chunk.get("error") or ("choices" not in chunk and "message" in chunk and chunk):
            self._fault, self.over = self._fault or said_in_stream(error), True
            return ""
        self._count(chunk.get("usage"))
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and not choice.get("index"):  # of several answers the first
                return self._choice(choice)
        if choices is None and self._document is not None:
            return self._fail("garbage", _not_protocol(self._document))
        return ""

    def _choice(self, choice: dict[str, Any]) -> str:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            if delta is not None:
                return self._fail("garbage", _not_protocol(msgspec.json.encode(choice)))
            delta = choice.get("message")
        text = self._delta(delta) if isinstance(delta, dict) else ""
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            self.finish = reason
            self.progress += 1
        return text

    def _delta(self, delta: dict[str, Any]) -> str:
        for field in self._reasoning:
            if thought := _plain(delta.get(field)):
                self._add(self._thought, thought)
                break  # some servers send the same under two names
        self._add(self._refusal, _plain(delta.get("refusal")))
        calls = delta.get("tool_calls")
        for n, call in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(call, dict):
                self._call(call, n)
        if not (said := _plain(delta.get("content"))):
            return ""
        self._blanks = self._blanks + len(said) if said.isspace() else 0
        if self._blanks > MAX_BLANKS:  # what a model does that a grammar leaves no other way
            return self._fail(
                "stalled", "the model writes nothing but blanks", "try another model, or llm.profile generic"
            )
        answer, thought = self._think.feed(said)
        self._add(self._thought, thought)
        return self._add(self._text, answer)

    def _add(self, kept: list[str], piece: str) -> str:
        """The piece, if it still fits."""
        if not piece:
            return ""
        self._size += len(piece)
        if self._size > MAX_TEXT:
            return self._fail("length", f"the answer is longer than {MAX_TEXT} characters", "lower llm.max_tokens")
        self.progress += 1
        kept.append(piece)
        return piece

    def _call(self, delta: dict[str, Any], n: int) -> None:
        index = delta.get("index")
        index = index if isinstance(index, int) else n
        made = delta.get("function")
        made = made if isinstance(made, dict) else {}
        ident, name, call = _plain(delta.get("id")), _plain(made.get("name")), self._at.get(index)
        if call is None or (ident and name and call.id and ident != call.id):  # all at index 0: the id tells them apart
            if len(self._calls) == MAX_CALLS:
                self._fail("length", f"more than {MAX_CALLS} tool calls in one answer")
                return
            call = self._at[index] = _Call()
            self._calls.append(call)
        call.id = call.id or ident
        if name != call.name:  # split anywhere, or whole again with each piece
            call.name += name
        arguments = made.get("arguments")
        if isinstance(arguments, dict | list):
            arguments = msgspec.json.encode(arguments).decode()
        self._add(call.pieces, _plain(arguments) or "")
        self.progress += bool(name)

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            came, went = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if _is_count(came) and _is_count(went):
                self._usage = came, went
            details = usage.get("completion_tokens_details")
            thought = details.get("reasoning_tokens") if isinstance(details, dict) else None
            if _is_count(thought):  # also what was not shown
                self._counted = thought

    def _fail(self, kind: Kind, message: str, hint: str = "") -> str:
        if self._fault is None:
            self._fault = ChatReply(
                kind, message=message, hint=hint or (_WRONG_URL if kind == "garbage" else "try again")
            )
        self.over = True
        return ""


class _Call:
    """A tool call that is being written."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    def made(self, n: int, names: Mapping[str, str]) -> ToolCall:
        return ToolCall(self.id or f"call_{n}", names.get(self.name, self.name), self.arguments or "{}")


_WRONG_URL: Final = "check llm.base_url: it usually ends in /v1"


def _plain(value: Any) -> str:
    """A text, also where a server sends it in parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < 2**40


def _is_json(data: bytes) -> bool:
    try:
        read_json(data)
    except WireError:
        return False
    return True


def _not_protocol(data: bytes | bytearray) -> str:
    if data[:1] == b"<":
        return "the server sent a web page"
    return f"the server sent what is no answer: {bytes(data[:80]).decode(errors='replace')!r}"
