"""How long a run takes, as its client sees it.

Invariant: a run that did not succeed gives no number.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from orchestrator.client.client import AsyncClient
from protocol.errors import RunFailed


async def timed(client: AsyncClient, plan: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds to the settled event, from the acknowledgement and from the call; the run is removed afterwards."""
    called = time.perf_counter()
    live = await client.submit(plan)
    acknowledged = time.perf_counter()
    state = await live.wait()
    settled = time.perf_counter()
    if state != "succeeded":
        raise RunFailed(f"{live.name} is {state}", hint="the numbers of a failed run mean nothing")
    await client.ask("rm", live.run)
    return settled - acknowledged, settled - called
