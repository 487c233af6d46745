"""One task that waits until somebody has something for it: what an Event that is made anew each time costs a tenth of.

Invariant: no ring is lost, any number of them before a wait count as one, and a wait lets the loop turn at least once,
so that whatever is ready in this turn is there when it returns. It belongs to one loop and one waiting task.

Bound to asyncio on purpose: each message and each decision of a turn rings one.
"""

from __future__ import annotations

import asyncio


class Bell:
    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        self._rung = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def still(self) -> None:
        """Forget that it was rung: whoever waits has just looked."""
        self._rung = False

    async def wait(self) -> None:
        """Until it was rung since the last wait returned."""
        if self._rung:
            await asyncio.sleep(0)
        else:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._rung = False
