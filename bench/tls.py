"""`asterism bench tls`: what mutual TLS costs, the same work with and without it, real processes on loopback.

A handshake is a fresh connection up to its first answer. Everything else is as in `bench overhead`. It must not know
how TLS is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import msgspec

from orchestrator.client.client import AsyncClient
from protocol.transport import dial

from .metric import Spread, spread
from .scenario import Machine, Scenario
from .stopwatch import timed
from .workload import chain, layered

WORKERS = (Machine("bench-1", slots=4), Machine("bench-2", slots=4))


class Sizes(msgspec.Struct, frozen=True):
    """How often, and how many tasks."""

    repeats: int = 5
    handshakes: int = 100
    chain: int = 1_000
    layers: int = 100


QUICK = Sizes(repeats=3, handshakes=50, chain=500, layers=60)


class Link(msgspec.Struct, frozen=True):
    """One kind of link."""

    handshake_ms: Spread
    chain_ms_per_hop: Spread
    layered_tasks_per_s: Spread


class TlsCost(msgspec.Struct, frozen=True):
    """The answer of `-o json`, less its schema."""

    plain: Link
    tls: Link
    sizes: Sizes

    def rows(self) -> list[tuple[str, str, str]]:
        """A table: what, plain, TLS."""
        names = {
            "handshake_ms": "handshake and a call, ms",
            "chain_ms_per_hop": f"chain of {self.sizes.chain:,}, ms a hop",
            "layered_tasks_per_s": f"{self.sizes.layers} x {self.sizes.layers} layers, tasks/s",
        }
        return [
            (text, f"{getattr(self.plain, key).median:,.4g}", f"{getattr(self.tls, key).median:,.4g}")
            for key, text in names.items()
        ]


async def tls_cost(sizes: Sizes, say: Callable[[str], None]) -> TlsCost:
    """Measure both. Raises: RunFailed if a run did not succeed."""
    say("without TLS")
    plain = await _link(sizes, tls=False)
    say("with TLS")
    return TlsCost(plain, await _link(sizes, tls=True), sizes)


async def _link(sizes: Sizes, tls: bool) -> Link:
    async with Scenario(tls=tls) as fleet, fleet.client() as client:
        for machine in WORKERS:
            await fleet.start_worker(client, machine)
        await fleet.joined(client, *(machine.name for machine in WORKERS))
        await timed(client, chain(50))
        shakes = [await _handshake(client) for _ in range(sizes.handshakes)]
        hops = [(await timed(client, chain(sizes.chain)))[0] * 1000 / sizes.chain for _ in range(sizes.repeats)]
        side = sizes.layers
        deep = [side * side / (await timed(client, layered(side, side)))[0] for _ in range(sizes.repeats)]
    return Link(spread(shakes), spread(hops), spread(deep))


async def _handshake(client: AsyncClient) -> float:
    endpoint = client.connection.endpoint
    begun = time.perf_counter()
    async with dial(endpoint.address, endpoint.token, tls=endpoint.tls) as channel:
        with anyio.fail_after(10):
            await channel.invoke("info", b"{}")
        return (time.perf_counter() - begun) * 1000
