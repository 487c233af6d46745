"""A model's stream read: whatever arrives, however it is split, becomes a reply that keeps the text before it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.chat import ChatReply
from protocol.chat_reading import Reading

REASONING = ("reasoning_content", "reasoning")
DONE = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def delta(finish: str | None = None, **said: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": said, "finish_reason": finish}]})


def read(*chunks: bytes, names: dict[str, str] | None = None) -> ChatReply:
    """The reply to these chunks, and that the heard text is the kept one."""
    reading = Reading(names, REASONING)
    heard = "".join(reading.feed(chunk) for chunk in chunks) + reading.end()
    reply = reading.reply()
    assert heard == reply.text
    return reply


WHOLE = (
    delta(role="assistant", content="")
    + delta(content="Gr\u00fc\u00dfe \U0001f680 ")
    + delta(content="</think>")
    + delta("stop")
    + event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}})
    + DONE
)


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_a_stream_may_be_split_anywhere(size: int, ends: bytes) -> None:
    data = WHOLE.replace(b"\n", ends)
    reply = read(*(data[at : at + size] for at in range(0, len(data), size)))
    assert reply == ChatReply("complete", text="Grüße 🚀 </think>", tokens_in=7, tokens_out=5)


def test_every_prefix_of_a_stream_is_cut_or_whole_and_keeps_its_text() -> None:
    for end in range(len(WHOLE)):
        reply = read(WHOLE[:end])
        assert reply.kind in ("cut", "complete")
        assert "Grüße 🚀 </think>".startswith(reply.text)
        if reply.kind == "complete":
            assert reply.text == "Grüße 🚀 </think>"
