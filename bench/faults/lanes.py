"""A fleet in lanes: each victim does its lane's work, and one spare machine may take over the work of all lanes.

While a round begins, one task of its own keeps the spare full, so that every victim holds its lane's work; then the
spare has room for all of it. Invariant: victims are all there, and nothing runs, when a round begins. It must not know
what is done to a victim.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio

from orchestrator.client.client import AsyncClient

from ..guard import Guard
from ..scenario import Machine, Scenario, Way
from .ledger import Execution
from .namespace import NamespaceNetwork
from .network import Network, SimulatedNetwork
from .process import told
from .round import Job, Round

SKILLS: Final = "bench.faults.work"
SPARE: Final = "spare"
ROOM: Final = "room"
"""A resource that every worker of the fleet declares: as much as it has slots."""
SAME: Final = ("memory=1GiB", "disk=1GiB")
"""A worker that finds another amount at every start says something new of itself, and may do that only so often."""
LONG_S: Final = 0.12
_NUMBERS: Final = itertools.count(1)


class Lanes:
    """The fleet, a client of it, and the victims' network."""

    def __init__(
        self, fleet: Scenario, client: AsyncClient, network: Network, victims: Sequence[str], room: int
    ) -> None:
        self.fleet = fleet
        self.client = client
        self.network = network
        self.victims = tuple(victims)
        self.room = room

    def job(self, victim: str, name: str, n: int, skill: str = "faults.work", **args: Any) -> Job:
        """A task of the victim's lane. Long enough that none is sent ahead of its turn: it would wait at the spare."""
        return Job(name, n, {"seconds": LONG_S, **args}, skill, (_lane(victim),), {ROOM: 1.0})

    def gate(self) -> Path:
        """A file that is not there yet: tasks may wait `until` it is."""
        return self.fleet.folder / f"gate-{next(_NUMBERS)}"

    async def begin(self, work: Sequence[Job]) -> tuple[Round, dict[str, Execution]]:
        """A round in which the victims have begun this work; its executions."""
        gate = self.gate()
        keep = Job("keep", 0, {"until": str(gate)}, on=(SPARE,), needs={ROOM: float(self.room)})
        keeping, run = Round(self.fleet, [keep]), Round(self.fleet, work)
        await keeping.submit(self.client)
        await keeping.begun()
        await run.submit(self.client)
        held = await run.begun()
        gate.touch()
        await keeping.finish(self.client)
        return run, held

    async def back(self, *victims: str) -> None:
        await self.fleet.joined(self.client, *(victims or self.victims))


def _lane(victim: str) -> str:
    """The label that the victim shares with the spare."""
    return f"{victim}=lane"


@asynccontextmanager
async def lanes(guard: Guard, victims: int, slots: int = 2, *, spaces: bool = False) -> AsyncIterator[Lanes]:
    """A server, so many victims, and a spare with room for the work of all of them.

    With `spaces` every victim has a network namespace of its own, and the link is TLS; else they reach the server by a
    simulated network on the loopback.
    """
    names = [f"victim{number}" for number in range(1, victims + 1)]
    around = _in_spaces if spaces else _on_loopback
    async with around(guard, names) as (fleet, client, network, ways):
        room = slots * victims
        async with anyio.create_task_group() as group:
            for name in names:
                machine = Machine(
                    name, slots, "", (_lane(name),), (f"cpu={slots}", f"{ROOM}={slots}", *SAME), (SKILLS,)
                )
                group.start_soon(fleet.start_worker, client, machine, ways[name])
            labels = tuple(map(_lane, names))
            spare = Machine(SPARE, room, "", labels, (f"cpu={room}", f"{ROOM}={room}"), (SKILLS,))
            group.start_soon(fleet.start_worker, client, spare)
        await fleet.joined(client, SPARE, *names)
        yield Lanes(fleet, client, network, names, room)


_Around = tuple[Scenario, AsyncClient, Network, dict[str, Way]]


@asynccontextmanager
async def _on_loopback(guard: Guard, names: Sequence[str]) -> AsyncIterator[_Around]:
    async with Scenario(guard.folder) as fleet, fleet.client() as client:
        async with told("bench.faults.simulated_cut", client.connection.endpoint.address) as process:
            ports = {name: int(await process.say(f"open {name}")) for name in names}
            network = SimulatedNetwork(process, ports)
            yield fleet, client, network, {name: Way(network.addresses[name]) for name in names}


@asynccontextmanager
async def _in_spaces(guard: Guard, names: Sequence[str]) -> AsyncIterator[_Around]:
    network = NamespaceNetwork(guard, names)
    await network.build()
    async with Scenario(guard.folder, listen=f"{network.server}:0") as fleet, fleet.client() as client:
        yield fleet, client, network, {name: Way(prefix=network.prefix(name)) for name in names}
