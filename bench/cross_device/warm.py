"""Machines and planner made ready, so that the first play doesn't pay for processes that start and parts that load.

It is not measured, and said in the report. It must not know how cases are played.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from orchestrator.client.live import AsyncLive
from planner.scripted.dialogue import Turn

from .case import Case
from .site import FiveMachines

NOTE: Final = "every slot had run something, and every model been asked that is asked in a play, before the first play"
_BUSY_S: Final = 0.3
"""So long that no slot gets a second turn before the others have had one."""


async def warm(stage: FiveMachines, machines: Collection[str]) -> None:
    """As many short attempts at once on each of these machines as it has slots. Raises: RunFailed."""
    live = await _load(stage, machines)
    await live.result()


async def warm_all(stage: FiveMachines, cases: Sequence[Case], planner: str) -> None:
    """Every slot, the model of each machine whose model these cases ask, and the planner, all at once. Raises:
    RunFailed."""
    thinking = [name for name in stage.machines if any(name in case.thinking for case in cases)]
    plan = {"tasks": [{"id": "warm", "skill": "flow.echo", "args": {"value": 1}}], "outputs": []}
    stage.answer = lambda asked: Turn(text=json.dumps(plan))
    runs = [await _load(stage, stage.machines)]
    tasks = [{"id": name, "on": [name], "skill": "llm.ask", "args": {"prompt": "Are you there?"}} for name in thinking]
    if tasks:
        runs.append(await stage.client.submit({"tasks": tasks}))
    request = await stage.client.submit("count the lines of warm.txt", planner=planner)
    for live in runs:
        await live.result()
    await request.wait()  # whatever becomes of it


async def _load(stage: FiveMachines, machines: Collection[str]) -> AsyncLive:
    inputs: dict[str, Any] = {name: [_BUSY_S * stage.speeds[name]] * stage.slots[name] for name in machines}
    tasks: list[dict[str, Any]] = [
        {"id": name, "on": [name], "skill": "bench.load", "map": {"chunk": 1}} for name in machines
    ]
    for task in tasks:
        task["args"] = {"seconds": {"ref": f"input/{task['id']}[]"}}
    document = {"inputs": [{"name": name, "type": "array"} for name in machines], "tasks": tasks}
    return await stage.client.submit(document, inputs=inputs)
