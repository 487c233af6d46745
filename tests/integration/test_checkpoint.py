"""Work that keeps checkpoints, by real processes: it goes on elsewhere from the last one, whatever made it leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.scenario import Machine, Scenario
from orchestrator.client.client import AsyncClient

SKILL = """
import time
from asterism import SkillContext, skill

@skill(effect="pure", checkpoints=True)
def steps(ctx: SkillContext, count: int) -> dict[str, int]:
    begun = step = ctx.restored() or 0
    while step < count:
        time.sleep(0.05)
        step += 1
        ctx.checkpoint(step)
    return {"from": begun, "to": step}
"""
COUNT = 40


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def start(fleet: Scenario, client: AsyncClient, name: str) -> None:
    (fleet.folder / "kept.py").write_text(SKILL)
    await fleet.start_worker(client, Machine(name, 1, skills=(str(fleet.folder / "kept.py"),)))
    await fleet.joined(client, name)


@pytest.mark.anyio
async def test_what_a_killed_worker_had_kept_is_gone_on_with_elsewhere(tmp_path: Path) -> None:
    task = {"id": "t", "skill": "steps", "args": {"count": COUNT}}
    async with Scenario(tmp_path) as fleet, fleet.client() as client:
        await start(fleet, client, "a")
        live = await client.submit({"tasks": [task], "outputs": [{"name": "done", "ref": "t"}]})
        async for row in live.events(kinds=("checkpoint",)):
            if row["body"] == 3:
                break
        fleet.kill_worker("a")
        await start(fleet, client, "b")
        result = await live.result(30)
    assert 3 <= result["done"]["from"] < COUNT
    assert result["done"]["to"] == COUNT
    assert result.tasks["t"].worker == "b"
