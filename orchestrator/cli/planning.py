"""Who plans a request, said where a person may expect somebody else: the model is the server's, not the caller's.

A server reads settings and environment when it starts; a caller whose own name another model, or one at all, is told.
Invariant: it says and changes nothing. It must not know planners.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from protocol.chat_endpoint import find_endpoint
from protocol.config import load
from protocol.errors import AsterismError

from ..client.client import AsyncClient
from . import show

_AGAIN = "asterism server stop, then try again: a server reads them when it starts"


async def tell_who_plans(client: AsyncClient, planner: str) -> None:
    """Say it on standard error, if the server's own choice is asked for and is not what is set here."""
    if not planner:
        info = await client.connection.call("info")
        said = difference(str(info.get("planner", "")), os.environ)
        if said:
            show.say(said)


def difference(server: str, environ: Mapping[str, str]) -> str:
    """What to tell about a server that plans with this, to a caller with that environment; "" for nothing."""
    try:
        settings = load(environ=environ).settings
        mine = find_endpoint(settings.llm, environ) if settings.planner.default != "catalog" else None
    except AsterismError:
        return ""  # what is set here is wrong, and not what plans
    if server == "catalog" and mine is not None:
        return (
            "the server plans without a model: OPENAI_API_KEY and OPENAI_BASE_URL were not set when it was started\n"
            f"  fix: {_AGAIN}"
        )
    name, _, url = server.partition(" at ")
    if not name.startswith("llm"):
        return ""
    if mine is None:
        return f"the server plans with its own model, {server}; --planner catalog plans without one"
    model, other = settings.llm.model, name.partition(":")[2]
    if url == mine.base_url and (not model or not other or model == other):
        return ""
    return f"the server plans with {server}, not with {model or 'the model'} at {mine.base_url}\n  fix: {_AGAIN}"
