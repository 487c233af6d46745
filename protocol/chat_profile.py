"""What each server of the OpenAI protocol really does, as data, and how one is recognised.

Chosen by the setting `llm.profile` or by what a server says of itself. A profile says what to send and never what to
believe: answers are validated whatever it says. `concede` is what remains of a profile when a server refuses a part of
a request by name. It must not know sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

ProfileName = Literal["openai", "vllm", "llama.cpp", "ollama", "generic"]
SchemaMode = Literal["strict", "schema", "object", "none"]


class ServerProfile(msgspec.Struct, frozen=True):
    """`schema`: how a JSON Schema is asked for: strict, as a schema, as just any object, or not at all. `shows`: the
    server shows it to the model. `choice`: `tool_choice` is understood.
    `limit`: what the limit of tokens is called. `usage`: `stream_options` is understood. `reasoning`: the fields in
    which a model thinks aloud. `temperature`: it may be set."""

    name: ProfileName
    schema: SchemaMode = "schema"
    shows: bool = False
    choice: bool = True
    limit: str = "max_tokens"
    usage: bool = True
    temperature: bool = True
    reasoning: tuple[str, ...] = ("reasoning_content", "reasoning")


PROFILES: Final[Mapping[str, ServerProfile]] = {
    one.name: one
    for one in (
        ServerProfile("openai", schema="strict", shows=True, limit="max_completion_tokens"),
        ServerProfile("vllm"),  # it enforces the schema with a grammar that the model doesn't see
        ServerProfile("llama.cpp"),  # a schema becomes a grammar; enforcement may fail silently
        ServerProfile("ollama", choice=False),  # `strict` is ignored, tool calls arrive whole
        ServerProfile("generic"),
    )
}

_OWNERS: Final = {"vllm": "vllm", "llamacpp": "llama.cpp", "library": "ollama", "openai": "openai", "system": "openai"}
"""`owned_by` of a server's models -> its profile."""

PAGES: Final = (("/api/version", "version", "ollama"), ("/props", "default_generation_settings", "llama.cpp"))
"""Pages beside the protocol, what their JSON has, and whose they are: asked of one's own machines where the list of
models doesn't tell."""


def recognise(headers: Mapping[str, str], models: Any) -> ServerProfile | None:
    """Who answered /models, by its headers (names in lower case) and its JSON; None: it doesn't say."""
    if "llama.cpp" in headers.get("server", "").lower():
        return PROFILES["llama.cpp"]
    rows = models.get("data") if isinstance(models, dict) else None
    for row in rows if isinstance(rows, list) else ():
        owner = row.get("owned_by") if isinstance(row, dict) else None
        if isinstance(owner, str) and owner in _OWNERS:
            return PROFILES[_OWNERS[owner]]
    return None


def listed(models: Any) -> tuple[str, ...]:
    """The models in the JSON of /models."""
    rows = models.get("data") if isinstance(models, dict) else None
    found = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return tuple(dict.fromkeys(one for one in found if isinstance(one, str) and one))


_LOWER: Final[Mapping[SchemaMode, SchemaMode]] = {"strict": "schema", "schema": "object", "object": "none"}
_SCHEMA_WORDS: Final = ("response_format", "json_schema", "json_object", "schema", "grammar")


def concede(profile: ServerProfile, said: str, parameter: str = "") -> ServerProfile | None:
    """The profile without what a refusal (its text, and the parameter it names) complains about; None: nothing of it
    can be left out."""
    offers: list[tuple[str, dict[str, Any]]] = [
        ("stream_options", {"usage": False}),
        ("temperature", {"temperature": False}),
        ("tool_choice", {"choice": False}),
        (profile.limit, {"limit": _other(profile.limit)}),
        *((word, {"schema": _LOWER.get(profile.schema, "none")}) for word in _SCHEMA_WORDS),
    ]
    named = [change for word, change in offers if parameter.partition(".")[0] == word]
    at = sorted((said.index(word), n) for n, (word, _) in enumerate(offers) if word in said)
    for change in [*named[:1], *(offers[n][1] for _, n in at)]:
        changed = msgspec.structs.replace(profile, **change)
        if changed != profile:
            return changed
    return None


def _other(limit: str) -> str:
    return "max_tokens" if limit == "max_completion_tokens" else "max_completion_tokens"
