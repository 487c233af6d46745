"""A watcher that doesn't read: the run goes on without it, and later it gets every event once, in order.

It must not know how the server keeps or drops what isn't read.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from pathlib import Path
from typing import Final

from ..metric import MIB, resident
from ..scenario import Machine, Scenario
from ..workload import fan_out
from .account import Account
from .case import Tally

TASKS: Final = 5_000
"""Three events each: several times what the server queues for one watcher."""


async def slow_watcher(folder: Path, tally: Tally, times: int) -> None:
    """`recover_s`: from its first read until it is abreast of a run that has ended meanwhile."""
    async with Scenario(folder) as fleet, fleet.client() as client, fleet.client() as slow:
        await fleet.start_worker(client, Machine("worker1", 4))
        await fleet.joined(client, "worker1")
        for _ in range(times):
            live = await client.submit(fan_out(TASKS), detach=True)
            async with aclosing(slow.events(live.run)) as rows:
                seen = [await anext(rows)]
                before = resident([fleet.server_pid])
                await live.wait()
                tally.figure("server_grew_mib", (resident([fleet.server_pid]) - before) / MIB)
                woken = time.time()
                seen += [row async for row in rows]
                tally.note(recover_s=time.time() - woken)
            known = [row["seq"] async for row in client.events(live.run, follow=False)]
            numbers = [row["seq"] for row in seen]
            missing, extra = len(set(known) - set(numbers)), len(numbers) - len(set(numbers))
            tally.add(Account(missing, extra, why=("events were out of order",) * (numbers != sorted(numbers))))
            await client.ask("rm", live.run)
