"""Machines and planner made ready, so that the first play doesn't pay for processes that start and parts that load.

It is not measured, and said in the report. It must not know cases.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final

from planner.scripted.dialogue import Turn

from .site import FiveMachines

NOTE: Final = "every slot had run something, and the planner had planned, before the first play"
_BUSY_S: Final = 0.3
"""So long that no slot gets a second turn before the others have had one."""


async def warm(stage: FiveMachines, machines: Collection[str]) -> None:
    """As many short attempts at once on each of these machines as it has slots. Raises: RunFailed."""
    inputs: dict[str, Any] = {name: [_BUSY_S] * stage.slots[name] for name in machines}
    tasks: list[dict[str, Any]] = [
        {"id": name, "on": [name], "skill": "bench.load", "map": {"chunk": 1}} for name in machines
    ]
    for task in tasks:
        task["args"] = {"seconds": {"ref": f"input/{task['id']}[]"}}
    document = {"inputs": [{"name": name, "type": "array"} for name in machines], "tasks": tasks}
    live = await stage.client.submit(document, inputs=inputs)
    await live.result()


async def warm_planner(stage: FiveMachines, planner: str) -> None:
    """One request, whatever becomes of it."""
    plan = {"tasks": [{"id": "warm", "skill": "flow.echo", "args": {"value": 1}}], "outputs": []}
    stage.answer = lambda asked: Turn(text=json.dumps(plan))
    live = await stage.client.submit("count the lines of warm.txt", planner=planner)
    await live.wait()
