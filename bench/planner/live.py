"""`asterism bench planner --live`: a real model plans a handful of requests, and real processes carry them out.

What it answers differs from call to call, so nothing is promised here. Tasks see one folder of small files that was
made for them. It must not know which model it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from orchestrator.client.client import AsyncClient
from protocol.chat_endpoint import KEY, find_endpoint
from protocol.config import load
from protocol.errors import UsageError

from ..scenario import Scenario
from .stage import PLANNER
from .timeline import timeline

REQUESTS: Final = (
    "Count the lines with ERROR in every .log file below logs and write a markdown table of them, largest first.",
    "Which file below data is the largest? Give its name, its size and its SHA-256.",
    "Read data/people.csv and data/cities.csv, join them by city, and report the mean age per country.",
    "Hash every file below data, in parallel, and pack those of the same content once into an archive.",
    "Find the five most frequent words in logs/app.log that are longer than six letters.",
    "Bake a cake for my neighbour and bring it over.",
)
_KEYS: Final = ("OPENAI_", "ASTERISM_MODEL", "ASTERISM_LLM__", "ASTERISM_PLANNER__")


class Try(msgspec.Struct, frozen=True):
    """One request. `overlap`: the share of the planner's time in which some task ran; None where nothing did."""

    request: str
    state: str
    said: str
    tasks: int
    first_dispatch_s: float | None
    planning_s: float
    settled_s: float
    overlap: float | None
    tokens_in: int
    tokens_out: int
    calls: int


async def live(environ: Mapping[str, str]) -> list[Try]:
    """The endpoint is the one of settings and `environ`. Raises: UsageError without one."""
    settings = load({}, environ).settings.llm
    endpoint = find_endpoint(settings, environ)
    if endpoint is None:
        raise UsageError("no model is set", hint="set OPENAI_API_KEY, or OPENAI_BASE_URL to a server of your own")
    fleet = Scenario()
    fleet.environ |= {key: value for key, value in environ.items() if key.startswith(_KEYS)}
    if endpoint.authorization:  # the fleet has a home of its own, without the person's secrets
        fleet.environ[KEY] = endpoint.authorization.removeprefix("Bearer ")
    root = Path(fleet.new_folder("files"))
    _fill(root)
    async with fleet, fleet.client(home=True, root=root) as client:
        return [await _one(client, request) for request in REQUESTS]


async def _one(client: AsyncClient, request: str) -> Try:
    run = await client.submit(request, planner=PLANNER)
    state = await run.wait()
    found = timeline([row async for row in run.events()])
    report = await client.report(run.run)
    planner = report["planner"]
    return Try(
        request=request,
        state=state,
        said=found.said,
        tasks=len(report["tasks"]),
        first_dispatch_s=found.first_s,
        planning_s=round(found.planning_s, 3),
        settled_s=round(found.settled - found.submitted, 3),
        overlap=round(found.busy_s() / found.planning_s, 3) if found.dispatched else None,
        tokens_in=planner["tokens_in"],
        tokens_out=planner["tokens_out"],
        calls=planner["calls"],
    )


def _fill(root: Path) -> None:
    for folder in ("logs", "data"):
        (root / folder).mkdir()
    for name, errors in (("app", 7), ("web", 3), ("jobs", 11)):
        lines = [f"12:00:{at:02} {'ERROR' if at < errors else 'INFO'} connection established" for at in range(40)]
        (root / "logs" / f"{name}.log").write_text("\n".join(lines))
    (root / "data" / "people.csv").write_text("name,age,city\nAnn,40,Oslo\nBob,30,Rome\nCem,50,Bergen\n")
    (root / "data" / "cities.csv").write_text("city,country\nOslo,Norway\nBergen,Norway\nRome,Italy\n")
    (root / "data" / "copy.csv").write_text((root / "data" / "cities.csv").read_text())
    (root / "data" / "numbers.json").write_text(json.dumps(list(range(500))))
