"""Quarantine by real processes: where a skill fails that others run well gets no new work, and people are told why."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.scenario import Machine, Scenario

SKILL = """
import time
from asterism import SkillContext, skill

@skill(effect="pure")
def crunch(ctx: SkillContext, n: int) -> str:
    time.sleep(0.05)
    if ctx.worker == "w3":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return ctx.worker
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_worker_whose_card_fails_is_in_quarantine_and_its_work_is_done_elsewhere(tmp_path: Path) -> None:
    names = ("w1", "w2", "w3")
    tasks = [{"id": f"t{n}", "skill": "crunch", "args": {"n": n}} for n in range(60)]
    async with Scenario(tmp_path) as fleet, fleet.client() as client:
        (fleet.folder / "sick.py").write_text(SKILL)
        for name in names:
            await fleet.start_worker(client, Machine(name, 1, skills=(str(fleet.folder / "sick.py"),)))
        await fleet.joined(client, *names)
        result = await client.run({"tasks": tasks}, timeout=60)
        rows = {row["worker"]: row for row in (await client.connection.call("workers"))["workers"]}
    assert result.state == "succeeded"
    assert {task.worker for task in result.tasks.values()} == {"w1", "w2"}
    assert [rows[name]["state"] for name in names] == ["connected", "connected", "quarantine"]
    assert "crunch failed: RuntimeError" in rows["w3"]["short"]
