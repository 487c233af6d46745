"""The person's own model, for benchmarks that ask one: found as any worker finds it, and met before anything starts.

It must not know what is asked.
"""

from __future__ import annotations

import os
from typing import Final

from protocol.chat_client import open_chat
from protocol.config import load
from protocol.errors import Unavailable

_THERE: Final = ("bad_request", "garbage")
"""What a server may say that has no list of models: it may still be asked for one by name."""


async def own_model() -> tuple[dict[str, str], str]:
    """The person's model. Raises: UsageError where none is set, Unavailable where it can't be asked."""
    settings = load().settings.llm
    chat = open_chat(settings, os.environ)
    _, fault = await chat.look()
    if fault is None or fault.kind in _THERE:
        fault = await chat.meet()
    if fault is not None:
        raise Unavailable(fault.message, hint=fault.hint)
    about = ("OPENAI_", "ASTERISM_LLM__", "ASTERISM_PLANNER__")
    found = {
        **{name: text for name, text in os.environ.items() if name.startswith(about)},
        "OPENAI_BASE_URL": chat.endpoint.base_url,
        "OPENAI_API_KEY": chat.endpoint.authorization.removeprefix("Bearer "),
        "ASTERISM_MODEL": chat.name,
    }
    said = f"The planner streams the plan from {chat.name} at {chat.endpoint.base_url}."
    return found, said
