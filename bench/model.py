"""`asterism bench model`: the scripted model server as a process of its own, for trials without a key.

It says on stdout how to reach it, and on stderr what it was asked. It must not know what the model is used for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import anyio
import click

from planner.scripted.asked import Asked
from planner.scripted.dialogue import read_dialogue
from planner.scripted.server import MODEL, ScriptedServer

KEY: Final = "sk-scripted-model"
"""Shown where none is asked for. No word that files have in them: what holds a key doesn't leave its machine."""


def environment(server: ScriptedServer, key: str = KEY) -> dict[str, str]:
    """What a program must be told to use this server as its model."""
    return {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": key, "ASTERISM_MODEL": MODEL}


async def serve(script: Path, profile: str, port: int, key: str) -> None:
    """Until it is interrupted. Raises: UsageError."""
    async with ScriptedServer(read_dialogue(script), profile, port=port, key=key) as server:
        click.echo(" ".join(f"{name}={value}" for name, value in environment(server, key or KEY).items()))
        async with anyio.create_task_group() as group:
            number = 0
            while True:
                group.start_soon(_tell, await server.request(number))
                number += 1


async def _tell(asked: Asked) -> None:
    form = (asked.body or {}).get("response_format") if isinstance(asked.body, dict) else None
    with_form = " with a schema" if form else ""
    click.echo(f"{asked.number}: asked{with_form}, {len(asked.said)} characters", err=True)
    await asked.over.wait()
    said = f"{len(asked.written)} tokens in {asked.ended_at - asked.at:.2f} s, {asked.ended}"
    click.echo(f"{asked.number}: {said}", err=True)
