"""Faults of the cross-device suite on real processes; each is gone when its block is left."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bench.cross_device.case import Case
from bench.cross_device.fault import Fault, fault_of
from bench.cross_device.machine import FIVE
from bench.cross_device.site import FiveMachines
from bench.guard import guarded
from protocol.errors import UsageError

LOAD = {"skill": "bench.load", "args": {"seconds": 0.1}}
PLAN = {"tasks": [{"id": "a", "on": ["log-server"], **LOAD}, {"id": "b", "on": ["log-server"], "after": ["a"], **LOAD}]}
CASE = Case("trial", "recovery", "a trial", "do it", PLAN, (), ())


async def struck(stage: FiveMachines, name: str) -> tuple[Fault, dict[str, Any]]:
    async with fault_of(name, stage, CASE, 1) as fault, anyio.create_task_group() as group:
        live = await stage.client.submit(PLAN, schedule_grace="50ms")
        group.start_soon(fault.follow, live)
        with anyio.fail_after(30):
            await live.wait()
    return fault, await stage.client.report(live.run)


def test_faults_strike_what_runs_and_leave_the_fleet_as_it_was() -> None:
    async def play() -> None:
        with guarded("asterism-fault-") as guard:
            async with FiveMachines(guard, 1, members=[one for one in FIVE if one.name == "log-server"]) as stage:
                fault, report = await struck(stage, "skill-errors")
                assert report["state"] == "succeeded"
                assert sum(row["attempts"] for row in report["tasks"].values()) == 2 + len(fault.recovery_s) > 2
                fault, report = await struck(stage, "worker-restart")
                assert (report["state"], fault.lost) == ("succeeded", "")
                assert fault.what == "log-server was killed and started again"
                fault, report = await struck(stage, "machine-lost")
                assert (report["state"], fault.lost) == ("failed", "log-server")
                assert "log-server" in report["error"]["message"]
                assert fault.bound_s is None
                stage.kill("log-server")
                await stage.whole()
                assert "log-server was found ended by SIGKILL" in stage.notes[-1]
                live = await stage.client.submit(PLAN)
                assert await live.wait() == "succeeded"

    anyio.run(play)


def test_a_fault_that_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="partitoin") as refused:
        fault_of("partitoin", None, CASE, 1)  # type: ignore[arg-type]
    assert "partition" in refused.value.hint
