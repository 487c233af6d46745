"""A request as a server of one profile wants it: the JSON of /chat/completions. Pure.

Names of tools lose what a server may refuse, so that no two become the same. It must not know sockets or keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from .chat import ChatMessage, ChatRequest, ChatTool
from .chat_profile import ServerProfile
from .setting import LlmDefaults

_REFUSED: Final = re.compile(r"[^a-zA-Z0-9_-]")
_NAME_LENGTH: Final = 64


def wire_names(tools: Sequence[ChatTool]) -> dict[str, str]:
    """What a server calls each tool -> its name: `fs_find` -> `fs.find`."""
    found: dict[str, str] = {}
    for tool in tools:
        name = base = _REFUSED.sub("_", tool.name)[:_NAME_LENGTH]
        n = 2
        while name in found:
            name = f"{base[: _NAME_LENGTH - 4]}_{n}"
            n += 1
        found[name] = tool.name
    return found


def body(request: ChatRequest, profile: ServerProfile, model: str, llm: LlmDefaults) -> dict[str, Any]:
    """All of it: `model`, `messages`, `stream`, what the profile allows, and what the settings add."""
    wire = {name: called for called, name in wire_names(request.tools).items()}
    made: dict[str, Any] = {
        "model": model,
        "messages": [_message(one, wire) for one in _told(request, profile)],
        "stream": True,
        profile.limit: min(request.max_tokens or llm.max_tokens, llm.max_tokens),
    }
    if profile.usage:
        made["stream_options"] = {"include_usage": True}
    if request.temperature is not None and profile.temperature:
        made["temperature"] = request.temperature
    if request.schema is not None and (form := _form(request, profile)) is not None:
        made["response_format"] = form
    if request.tools:
        made["tools"] = [_tool(one, wire) for one in request.tools]
        if profile.choice and request.tool_choice != "auto":
            made["tool_choice"] = request.tool_choice
    return {**llm.extra, **made}


def _told(request: ChatRequest, profile: ServerProfile) -> tuple[ChatMessage, ...]:
    """The messages, with the schema in words where its model would never see it."""
    if request.schema is None or request.explained or (profile.shows and profile.schema in ("strict", "schema")):
        return request.messages
    text = msgspec.json.encode(request.schema).decode()
    said = f"Answer with one JSON document, and nothing else, that fits this JSON Schema:\n{text}"
    first, rest = request.messages[:1], request.messages[1:]
    if first and first[0].role == "system":
        return (msgspec.structs.replace(first[0], content=f"{first[0].content}\n\n{said}"), *rest)
    return (ChatMessage("system", said), *request.messages)


def _form(request: ChatRequest, profile: ServerProfile) -> dict[str, Any] | None:
    if profile.schema == "none":
        return None
    if profile.schema == "object":
        return {"type": "json_object"}
    schema = {"name": request.schema_name, "schema": request.schema}
    return {"type": "json_schema", "json_schema": schema | ({"strict": True} if profile.schema == "strict" else {})}


def _message(message: ChatMessage, wire: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": wire.get(call.name, call.name), "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.answers:
        made["tool_call_id"] = message.answers
    return made


def _tool(tool: ChatTool, wire: Mapping[str, str]) -> dict[str, Any]:
    function = {"name": wire[tool.name], "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
