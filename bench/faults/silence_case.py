"""What befalls a whole worker at once: it is gone, stands still, or can't be reached. Every victim a different way.

One round strikes all victims, each with a pure task and one that acts once, both begun. The pure ones start elsewhere
as soon as the server doubts; the others wait for the lease, because only then it is sure that nothing acts there any
more. A task goes on once it has begun elsewhere, also at its victim, if that can: two effects would show. Then every
victim comes back with what it still believes it holds. It must not know how a network is cut.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import anyio
import msgspec

from .case import Tally
from .lanes import Lanes
from .ledger import Execution
from .round import Job, Round, noticed

Way = Literal["kill", "freeze", "up", "down", "both"]
_SKILL: Final = {"pure": "faults.work", "once": "faults.act"}


class Blow(msgspec.Struct):
    """How a victim is struck, and where its tasks are tallied: by `pure` and `once`, either may be left out."""

    way: Way
    tallies: dict[str, Tally]


class _Lost(msgspec.Struct):
    """A task of a victim that is about to be struck, and the file that lets it go on."""

    name: str
    tally: Tally
    gate: Path


class _Victim:
    """One victim in one round."""

    def __init__(self, place: Lanes, name: str, blow: Blow) -> None:
        self._place = place
        self.name = name
        self.way = blow.way
        self._lost = [_Lost(f"{kind}-{name}", tally, place.gate()) for kind, tally in blow.tallies.items()]
        self._at = 0.0

    def work(self) -> list[Job]:
        return [
            self._place.job(self.name, lost.name, n, _SKILL[lost.name.partition("-")[0]], until=str(lost.gate))
            for n, lost in enumerate(self._lost, 1)
        ]

    async def strike(self) -> None:
        self._at = time.time()
        if self.way == "kill":
            self._place.fleet.kill_worker(self.name)
        elif self.way == "freeze":
            self._place.fleet.freeze_worker(self.name)
        else:
            await self._place.network.cut(self.name, self.way)

    async def heal(self) -> None:
        """A killed one is started again once the run is over; this is for who only seemed to be gone."""
        if self.way == "freeze":
            self._place.fleet.thaw_worker(self.name)
        elif self.way != "kill":
            await self._place.network.heal(self.name)

    async def notice(self) -> None:
        seen = await noticed(self._place.client, self.name)
        for lost in self._lost:
            lost.tally.note(detect_s=seen - self._at)

    async def follow(self, run: Round, held: Mapping[str, Execution]) -> None:
        """Let each task go on once it has begun elsewhere."""
        async with anyio.create_task_group() as group:
            for lost in self._lost:
                group.start_soon(self._follow, run, lost, held[lost.name])

    async def _follow(self, run: Round, lost: _Lost, was: Execution) -> None:
        lost.tally.note(reassign_s=await run.begun_again({lost.name: was}) - self._at)
        lost.gate.touch()

    def settle(self, run: Round) -> None:
        for lost in self._lost:
            lost.tally.add(run.account([lost.name]))
            lost.tally.note(recover_s=run.settled_at([lost.name]) - self._at)


async def silence(place: Lanes, blows: Sequence[Blow], rounds: int) -> None:
    """All `blows` at once, one a victim, `rounds` times."""
    for _ in range(rounds):
        victims = [_Victim(place, name, blow) for name, blow in zip(place.victims, blows)]
        run, held = await place.begin([job for victim in victims for job in victim.work()])
        async with anyio.create_task_group() as group:
            for victim in victims:
                await victim.strike()
                group.start_soon(victim.notice)
                group.start_soon(victim.follow, run, held)
        for victim in victims:
            await victim.heal()
        await run.finish(place.client)
        for victim in victims:
            victim.settle(run)
            if victim.way == "kill":
                await place.fleet.restart_worker(place.client, victim.name)
        await place.back()
