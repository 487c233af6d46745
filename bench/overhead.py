"""`asterism bench overhead`: what the fabric itself costs, with real processes and tasks that do nothing.

One orchestrator with its journal on the disk (synchronous FULL), two workers, inline `flow.echo`. A time is from the
acknowledgement of the submission to the event that settles the run, as the client sees both; tasks of a large plan may
start before that acknowledgement, so the fan-out is also given from the call of submit. It must not know how the
numbers are shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from orchestrator.client.client import AsyncClient
from protocol.errors import RunFailed

from .comparison import Comparison, Field, Missing, compare
from .metric import MIB, Spread, children, fsync_ms, help_s, resident, spread
from .scenario import Machine, Scenario
from .stopwatch import timed
from .workload import chain, fan_out, layered

WORKERS: Final = (Machine("bench-1", slots=4), Machine("bench-2", slots=4))
_SETTLE_S: Final = 1.0
"""Before memory is read: the last group commit and its garbage are done."""


class Sizes(msgspec.Struct, frozen=True):
    """How often, and how many tasks. `layers` is both the number and the width of the layers."""

    repeats: int = 5
    fan_out: int = 10_000
    layers: int = 100
    chain: int = 1_000
    large: int = 100_000
    help: int = 5
    peer_repeats: int = 3
    peer_share: float = 1.0
    """Of the sizes at which each peer takes some seconds."""
    peers_until_s: float = 3600.0
    """No further peer is begun after so much time."""


QUICK: Final = Sizes(repeats=3, peer_repeats=1, peer_share=0.25, peers_until_s=40.0)


class Overhead(msgspec.Struct, frozen=True):
    """The answer of `-o json`, less its schema. `*_mib` are resident set sizes; hosts are the workers' children."""

    fanout_tasks_per_s: Spread
    fanout_with_submit_tasks_per_s: Spread
    layered_tasks_per_s: Spread
    chain_ms_per_hop: Spread
    memory_bytes_per_task: float
    fsync_p50_ms: float
    fsync_ms: Spread
    large: dict[str, float]
    idle_mib: dict[str, float]
    help_s: Spread
    cores: int
    sizes: Sizes
    peers: dict[str, Comparison] = {}
    peers_missing: dict[str, Missing] = {}


Say = Callable[[str], None]


async def overhead(sizes: Sizes, say: Say, peers: bool = True) -> Overhead:
    """Measure all of it; with `peers`, the other runtimes that are installed as well.

    Raises: RunFailed if a run did not succeed, then no number counts.
    """
    begun = time.perf_counter()
    say("starting one orchestrator and two workers")
    async with Scenario() as fleet, fleet.client() as client:
        for machine in WORKERS:
            await fleet.start_worker(client, machine)
        await fleet.joined(client, *(machine.name for machine in WORKERS))
        await anyio.sleep(_SETTLE_S)
        idle = _idle(fleet)
        disk = await anyio.to_thread.run_sync(fsync_ms, fleet.journal_folder)
        count, side, length = sizes.fan_out, sizes.layers, sizes.chain
        say(f"chain of {length}, {sizes.repeats} times")
        hop = [(await timed(client, chain(length)))[0] * 1000 / length for _ in range(sizes.repeats)]
        say(f"fan-out of {count}, {sizes.repeats} times")
        runs = [await timed(client, fan_out(count)) for _ in range(sizes.repeats)]
        wide, whole = [count / run for run, _ in runs], [count / both for _, both in runs]
        say(f"{side} layers of {side}, {sizes.repeats} times")
        deep = [side * side / (await timed(client, layered(side, side)))[0] for _ in range(sizes.repeats)]
        large, per_task = await _large(fleet, client, sizes.large, spread(whole), say)
        say("asterism --help")
        started = await anyio.to_thread.run_sync(help_s, sizes.help)
        field = Field()
        if peers:
            field = await compare(client, sizes.peer_repeats, sizes.peer_share, begun + sizes.peers_until_s, say)
    return Overhead(
        fanout_tasks_per_s=spread(wide),
        fanout_with_submit_tasks_per_s=spread(whole),
        layered_tasks_per_s=spread(deep),
        chain_ms_per_hop=spread(hop),
        memory_bytes_per_task=per_task,
        fsync_p50_ms=disk.median,
        fsync_ms=disk,
        large=large,
        idle_mib=idle,
        help_s=started,
        cores=os.cpu_count() or 1,
        sizes=sizes,
        peers=field.peers,
        peers_missing=field.missing,
    )


async def _large(
    fleet: Scenario, client: AsyncClient, tasks: int, whole: Spread, say: Say
) -> tuple[dict[str, float], float]:
    """One large run: its rate against the smaller ones', and what the orchestrator keeps for each finished task.

    Both with their submission: a large plan runs while it is still being taken in.
    """
    say(f"{tasks} tasks in one run")
    before = resident([fleet.server_pid])
    start = time.perf_counter()
    live = await client.submit(fan_out(tasks))
    acknowledged = time.perf_counter()
    state = await live.wait()
    settled = time.perf_counter()
    if state != "succeeded":
        raise RunFailed(f"{live.name} is {state}", hint="the numbers of a failed run mean nothing")
    await anyio.sleep(_SETTLE_S)
    kept = resident([fleet.server_pid]) - before
    rate = tasks / (settled - start)
    found = {
        "tasks": float(tasks),
        "submit_s": round(acknowledged - start, 3),
        "run_s": round(settled - acknowledged, 3),
        "tasks_per_s": round(rate, 1),
        "time_per_task_against_fanout": round(whole.median / rate, 3),
        "kept_mib": round(kept / MIB, 1),
    }
    return found, round(kept / tasks, 1)


def _idle(fleet: Scenario) -> dict[str, float]:
    daemons = [fleet.worker_pid(machine.name) for machine in WORKERS]
    hosts = [pid for daemon in daemons for pid in children(daemon)]
    return {
        "orchestrator": round(resident([fleet.server_pid]) / MIB, 1),
        "worker_daemon": round(resident(daemons) / MIB / len(daemons), 1),
        "worker_hosts": round(resident(hosts) / MIB / len(daemons), 1),
    }
