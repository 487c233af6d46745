"""A model's port over real HTTP: text as it arrives, and a reply that says how it ended."""

from __future__ import annotations

import json
from typing import Any

import anyio

from protocol.chat import ChatMessage, ChatRequest
from protocol.chat_client import open_chat
from protocol.config import LlmDefaults
from tests.integration.wire_server import Wire, wire_server

CANARY = "sk-canary-of-the-model"
ASKED = ChatRequest((ChatMessage("user", "hi"),), deadline_s=20.0)


def event(data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"


async def greet(wire: Wire) -> None:
    if wire.path.endswith("/models"):
        await wire.answer(json.dumps({"data": [{"id": "m1", "owned_by": "vllm"}]}))
        return
    await wire.begin()
    for said in ("Hel", "lo"):
        await wire.send(event({"choices": [{"delta": {"content": said}}]}))
    await wire.send(event({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    await wire.send(event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}) + "data: [DONE]\n\n")


def test_the_text_is_heard_and_kept_and_paid_for() -> None:
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    async def play() -> None:
        async with wire_server(greet) as server:
            llm = LlmDefaults(base_url=server.base_url, price_in=1.0, price_out=10.0)
            chat = open_chat(llm, {"OPENAI_API_KEY": CANARY})
            reply = await chat.complete(ASKED, hear)
            assert (reply.kind, reply.text, "".join(heard)) == ("complete", "Hello", "Hello")
            assert (reply.tokens_in, reply.tokens_out, reply.estimated) == (3, 2, False)
            assert abs(reply.price - 23e-6) < 1e-12
            assert chat.name == "m1"
            assert chat.profile is not None
            assert chat.profile.name == "vllm"
            assert CANARY not in repr(chat)

    anyio.run(play)
