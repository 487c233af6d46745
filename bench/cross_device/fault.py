"""A fault in one play: when it strikes, and where.

It strikes when the k-th attempt of the run is dispatched, at the machine that this attempt went to, so that there is
work to be hit; k is drawn from the seed. Invariant: what it did is undone when its block is left, however that happens.
It must not know what is done to a machine.
"""

from __future__ import annotations

import random
import time
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

import anyio

from orchestrator.client.live import AsyncLive
from protocol.document import nearest
from protocol.errors import UsageError

from .case import Case
from .harm import HARMS, Harm
from .recovery import Trail
from .site import FiveMachines

NAMES: Final = tuple(HARMS)


class Fault:
    """`async with fault_of(...) as fault:` around the request and its run; `follow` the run meanwhile.

    Afterwards `what` says what was done ("": its moment never came), `lost` which machine was away until the end,
    `recovery_s` how long each blow took to make good, and `bound_s` what wire.md allows for that; None where a policy
    decides, or where what was hit could not be done without the machine.
    """

    def __init__(self, harm: Harm, moment: int) -> None:
        self.what = ""
        self.lost = ""
        self.recovery_s: tuple[float, ...] = ()
        self.bound_s: float | None = None
        self._harm = harm
        self._moment = moment
        self._machine = ""
        self._trail = Trail()
        self._over = anyio.Event()
        self._struck_at = self._back_at = float("inf")

    async def __aenter__(self) -> Self:
        if self._harm.at_once:
            self.what = await self._harm.strike("")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._harm.undo()

    async def follow(self, live: AsyncLive) -> None:
        """Strike when it is time; returns when the run is over and the harm is healed."""
        async with anyio.create_task_group() as group:
            async with aclosing(live.events()) as rows:
                async for row in rows:
                    self._trail.hear(row)
                    due = len(self._trail.attempts) >= self._moment and not (self._harm.at_once or self._machine)
                    if due and row["kind"] == "attempt_dispatched":
                        self._machine = row["worker"]
                        group.start_soon(self._blow)
            self._over.set()
        self._measure()

    async def _blow(self) -> None:
        self._struck_at = time.time()
        self.what = await self._harm.strike(self._machine)
        self.lost = self._machine if self._harm.for_good else ""
        await self._harm.heal(self._machine, self._over)
        self._back_at = time.time()

    def _measure(self) -> None:
        trail, harm, felt = self._trail, self._harm, self._harm.acted_at
        hit = trail.hit(self._machine, self._struck_at)
        if felt is not None:
            self.recovery_s = (trail.next_sign(felt) - felt,)
        elif harm.at_once:
            self.recovery_s = trail.after_errors()
        elif hit:
            self.recovery_s = (trail.after_hits(hit, self._struck_at, self._back_at),)
        if harm.at_once and not self.recovery_s:
            self.what = ""
        if self.recovery_s and harm.bound_s is not None and not {one.task for one in hit} & trail.given_up:
            self.bound_s = harm.bound_s[any(one.acts for one in hit)]


def faults_named(text: str) -> tuple[str, ...]:
    """The scenarios that a person names: `all`, or some with commas between. Raises: UsageError."""
    names = NAMES if text == "all" else tuple(filter(None, text.split(",")))
    for name in names:
        _known(name)
    return names


def fault_of(name: str, stage: FiveMachines, case: Case, seed: int) -> Fault:
    """Raises: UsageError for a scenario that there is not."""
    _known(name)
    dice = random.Random(f"{seed}/{case.name}/{name}")
    moment = dice.randint(1, max(1, len(case.plan["tasks"]) // 2))
    return Fault(HARMS[name](stage, case, dice), moment)


def _known(name: str) -> None:
    if name not in HARMS:
        raise UsageError(
            f"there is no fault {name}", hint=nearest(name, HARMS) or f"all, or some of {', '.join(NAMES)}"
        )
