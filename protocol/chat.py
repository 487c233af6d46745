"""The port to a language model: one request in, text as it arrives, one reply that says how it ended.

Faults are values: a reply's `kind` names what happened and keeps what arrived before it. `complete` has its deadlines
inside, and cancelling it closes its socket. Several replies of one call may differ; nothing in a reply is trusted:
who asked for a schema validates the text itself. It must not know servers, sockets, plans or skills.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, Protocol

import msgspec

Hear = Callable[[str], Awaitable[None]]
"""Gets each piece of text as it arrives. While it runs the server's silence isn't counted, the deadline is; it may be
cancelled by that deadline."""

Kind = Literal[
    "complete",
    "tool_calls",
    "length",
    "refused",
    "filtered",
    "cut",
    "stalled",
    "timeout",
    "rate_limited",
    "server_error",
    "unauthorized",
    "no_model",
    "bad_request",
    "garbage",
    "unreachable",
]
BYTES_PER_TOKEN: Final = 4


class ToolCall(msgspec.Struct, frozen=True):
    """What a model wants called. `arguments` is the JSON text as it wrote it, not checked."""

    id: str
    name: str
    arguments: str


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn. `tool_calls`: of the assistant; `answers`: the id of the call that a `tool` message answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    answers: str = ""


class ChatTool(msgspec.Struct, frozen=True):
    """What a model may call. `name` may have dots: a server that refuses them gets, and answers with, another one."""

    name: str
    description: str
    parameters: dict[str, Any]


class ChatRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One question. `schema`: the JSON Schema that the text should fit. `explained`: the messages describe it already,
    so a server that hides it from its model needs no copy of it in the prompt.

    `max_tokens` lowers the setting's; 0 leaves it. `deadline_s` bounds the whole call, waits for rate limits included;
    `first_token_s` the silence before the first token, `stall_s` each silence after it; 0 is the setting's.
    """

    messages: tuple[ChatMessage, ...]
    schema: dict[str, Any] | None = None
    schema_name: str = "answer"
    explained: bool = False
    tools: tuple[ChatTool, ...] = ()
    tool_choice: Literal["auto", "required", "none"] = "auto"
    max_tokens: int = 0
    temperature: float | None = None
    deadline_s: float = 120.0
    first_token_s: float = 0.0
    stall_s: float = 0.0


class ChatReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a call ended, and what arrived before that: `text` without what the model only thought.

    complete, tool_calls: the model's own end (the text may be empty). length: cut at a limit of tokens or size.
    refused, filtered: by the model, by the server. cut: the stream ended early. stalled: silence for too long.
    timeout: the deadline. rate_limited, server_error, unauthorized, no_model, bad_request, unreachable: what the server
    said, or that there is none. garbage: what it said is not the protocol.
    `message` and `hint` are for people and never hold the key. `estimated`: the server reported no usage. `thought`:
    about how many of the tokens out the model spent thinking aloud.
    """

    kind: Kind
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tokens_in: int = 0
    tokens_out: int = 0
    thought: int = 0
    price: float = 0.0
    estimated: bool = False
    message: str = ""
    hint: str = ""
    retry_after_s: float | None = None

    @property
    def whole(self) -> bool:
        """Whether the model ended by itself."""
        return self.kind in ("complete", "tool_calls")


class Chat(Protocol):
    """A model. `name` is its name, empty while a server has not been asked which one it has."""

    @property
    def name(self) -> str: ...

    async def complete(self, request: ChatRequest, hear: Hear | None = None) -> ChatReply:
        """Ask, hand each piece of text to `hear`, and return however it ended. Raises only what `hear` raises."""
        ...


def tokens_of(text: str) -> int:
    """About how many tokens a text is, rather too many."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def tokens_in(request: ChatRequest) -> int:
    """About how many tokens a request is: for a reservation, or where the server counts none."""
    return tokens_of(msgspec.json.encode([request.messages, request.schema, request.tools]).decode())
