"""How each kind of OpenAI-compatible server differs from the others, as data.

Read in their sources and documents in 2026. A server that is emulated here does to a request what the real one does
to it; what it says is the dialogue's. It must not know sockets.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from protocol.errors import NotFound


class Emulation(msgspec.Struct, frozen=True, kw_only=True):
    """One server's manners.

    `strict`: refuses a schema outside OpenAI's strict subset. `enforces`: what it writes obeys the schema. `dots`:
    takes names of tools with dots. `usage`: asked (by `stream_options`), always or never. `tool_calls`: streamed in
    tokens, each whole, or all held back to the end. `reasoning`: the field of the delta, or `<think>` in the text.
    `refuses`: parameters that it answers with 400. `names`: whether an unknown model is an error.
    """

    owned_by: str
    strict: bool = False
    enforces: bool = False
    dots: bool = True
    usage: Literal["asked", "always", "never"] = "asked"
    tool_calls: Literal["streamed", "whole", "held"] = "streamed"
    reasoning: str = "reasoning_content"
    refuses: tuple[str, ...] = ()
    names: bool = True
    software: str = ""
    """What its header `server` says."""


EMULATIONS: Final = {
    "openai": Emulation(owned_by="openai", strict=True, enforces=True, dots=False, reasoning=""),
    "openai-reasoning": Emulation(
        owned_by="openai",
        strict=True,
        enforces=True,
        dots=False,
        reasoning="",
        refuses=("max_tokens", "temperature", "top_p", "parallel_tool_calls"),
    ),
    "vllm": Emulation(owned_by="vllm", enforces=True, software="uvicorn"),
    "llama.cpp": Emulation(owned_by="llamacpp", names=False, software="llama.cpp"),
    "ollama": Emulation(owned_by="library", enforces=True, tool_calls="whole", reasoning="reasoning"),
    "holding": Emulation(owned_by="vllm", enforces=True, tool_calls="held", reasoning="reasoning"),
    "generic": Emulation(
        owned_by="local", usage="never", reasoning="<think>", refuses=("stream_options",), names=False
    ),
}
"""`llama.cpp` is the one that says 200 and enforces nothing; `holding` is vLLM with a parser that buffers calls."""


def emulation(name: str) -> Emulation:
    """Raises: NotFound."""
    if name not in EMULATIONS:
        raise NotFound(f"no server of the kind {name!r} is emulated", hint=", ".join(EMULATIONS))
    return EMULATIONS[name]
