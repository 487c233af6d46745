"""Where the suite is played: one server, the five machines, and a scripted model.

As root each machine is a network namespace with an address and a link of its own, and the server listens on the bench's
address, with TLS. Elsewhere they are processes on loopback whose links the workers simulate. Invariant: a machine that
can't start is named in `missing` and the rest goes on; whatever happens, nothing that was started here is left. It must
not know cases.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import SocketAttribute, SocketStream

from devices.gpu import find_gpus
from orchestrator.client.client import AsyncClient
from planner.scripted.asked import Asked
from planner.scripted.dialogue import Turn
from planner.scripted.server import MODEL, ScriptedServer
from protocol.errors import AsterismError, NotFound

from ..faults import namespace
from ..faults.namespace import NamespaceNetwork
from ..faults.network import Network, SimulatedNetwork
from ..faults.process import told
from ..guard import Guard
from ..scenario import Scenario, Way
from .machine import FIVE, GPU, Member, gpu_of
from .mishap import FOLDER

_ALL_SHOWN: Final = {"ASTERISM_PLANNER__SHORTLIST": "1000"}
"""The gold plans are there already: every skill in them has to be among those that a plan may use."""
_APART: Final = {"ASTERISM_QUARANTINE__ENABLED": "false", "ASTERISM_PLANNER__FALLBACK": "none"}
"""What befell a machine in one play must not count in the next; nor what the catalog plans, as what a model does."""
_QUARANTINE: Final = "no machine is put in quarantine"
_NO_CARD: Final = {"CUDA_VISIBLE_DEVICES": ""}
_CHUNK: Final = 64 * 1024


class FiveMachines:
    """`async with FiveMachines(guard, seed, shaped=True) as stage`.

    `shaped` False: all links as fast as this machine. `model`: the environment in which the planner finds a model; the
    scripted one if it is empty. `answer` is what that says, and may be set at any time. `environ`: settings of server
    and workers.
    """

    def __init__(
        self,
        guard: Guard,
        seed: int,
        *,
        shaped: bool = True,
        members: Sequence[Member] = FIVE,
        model: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.seed = seed
        self.answer: Callable[[Asked], Turn] = _nothing
        self.missing: dict[str, str] = {}
        """Machines that could not be started, and why."""
        self.notes: tuple[str, ...] = ()
        """What of the site is real and what is simulated, for people."""
        self.fleet: Scenario
        self.client: AsyncClient
        self.server: ScriptedServer
        self.network: Network
        self.mishaps = guard.folder / "mishaps"
        """Where a fault says what befalls skills (mishap)."""
        self._guard = guard
        self._shaped = shaped
        self._cards = find_gpus()
        self._members = {one.name: one for one in members}
        self._gpu_words = ""
        if GPU in self._members:
            self._members[GPU], words = gpu_of(self._members[GPU], self._cards)
            self._gpu_words = f"{GPU}: its GPU is {words}"
        self._environ = dict(environ or {})
        self._model = dict(model or {})
        self._ways: dict[str, Way] = {}
        self._held: dict[str, frozenset[str]] = {}
        self._stack = AsyncExitStack()

    @property
    def machines(self) -> tuple[str, ...]:
        """Those that are part of the fleet, in order."""
        return tuple(name for name in self._members if name not in self.missing)

    @property
    def latencies(self) -> dict[str, float]:
        """Seconds one way to each machine, as its link is shaped or simulated."""
        return {name: one.pace.latency_s if self._shaped else 0.0 for name, one in self._members.items()}

    @property
    def slots(self) -> dict[str, int]:
        return {name: one.slots for name, one in self._members.items()}

    @property
    def starts_s(self) -> dict[str, float]:
        """What an attempt would have to take of itself to take as long as each machine holds it back at its start."""
        return {name: one.start_s * one.speed for name, one in self._members.items()}

    @property
    def speeds(self) -> dict[str, float]:
        """Of each machine, relative to this one."""
        return {name: one.speed for name, one in self._members.items()}

    def root(self, machine: str) -> Path:
        """The folder whose files its skills may use."""
        return self.fleet.folder / machine

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.server = await stack.enter_async_context(ScriptedServer(lambda asked: self.answer(asked)))
            why = namespace.missing()
            spaces = None if why else await self._spaces(stack)
            address = spaces.server if spaces is not None else ""
            model = self._model or {"OPENAI_BASE_URL": self.server.base_url, "ASTERISM_MODEL": MODEL, **_ALL_SHOWN}
            listen = f"{address}:0" if address else ""
            self.fleet = Scenario(
                self._guard.folder,
                listen=listen,
                environ={**model, **_APART, **self._environ, FOLDER: str(self.mishaps)},
            )
            for name in self._members:
                self.fleet.new_folder(name)
            await stack.enter_async_context(self.fleet)
            self.client = await stack.enter_async_context(self.fleet.client())
            if spaces is None:
                await self._loopback(stack)
            elif not self._model:
                await self._let_in(stack, spaces)
            async with anyio.create_task_group() as group:
                for member in self._members.values():
                    group.start_soon(self._start, member)
            words = (self._network_words(spaces, why), self._pace_words(), self._gpu_words, _QUARANTINE)
            self.notes = tuple(filter(None, words))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, anyio.get_cancelled_exc_class()):
            await self._stack.__aexit__(kind, error, trace)
        else:  # what went wrong in the body leaves as it is, in no group
            await self._stack.aclose()

    def kill(self, machine: str) -> None:
        """SIGKILL to its worker: no goodbye, no flush."""
        self.fleet.kill_worker(machine)

    async def leave(self, machine: str) -> None:
        """Its worker says goodbye. It stays known, and may come back: what names it waits as long as it may."""
        await self.fleet.end_worker(machine)

    async def dismiss(self, machine: str) -> None:
        """A person says that it won't come back (`asterism worker dismiss`)."""
        await self.fleet.dismiss_worker(self.client, machine)

    async def back(self, *machines: str) -> None:
        """Start those that were killed or left, and wait until they are there; as the same workers if they can be."""
        for machine in filter(self.fleet.fallen, machines):
            await self.fleet.restart_worker(self.client, machine)
        await self.fleet.joined(self.client, *machines)

    async def whole(self) -> None:
        """Start again the workers that nobody has ended and that have ended all the same; the notes name each."""
        for machine in self.machines:
            if why := self.fleet.fallen(machine):
                self.notes = (*self.notes, f"the worker of {machine} was found ended {why}; it was started again")
                await self.back(machine)

    async def _start(self, member: Member) -> None:
        shaped = self._held[member.name] if self._shaped else ("bandwidth", "latency")
        try:
            machine = member.machine(str(self.root(member.name)), shaped)
            await self.fleet.start_worker(self.client, machine, self._way(member.name))
            await self.fleet.joined(self.client, member.name)
        except AsterismError as error:
            self.missing[member.name] = error.message

    def _way(self, name: str) -> Way:
        way = self._ways[name]
        hidden = _NO_CARD if self._cards and name != GPU else {}
        return Way(way.address, way.prefix, {**way.environ, **hidden})

    async def _spaces(self, stack: AsyncExitStack) -> NamespaceNetwork:
        """A namespace each, its link shaped as far as the kernel can."""
        network = NamespaceNetwork(self._guard, list(self._members))
        stack.push_async_callback(_shielded, network.remove)
        await network.build()
        for name, member in self._members.items():
            self._held[name] = await network.shape(name, member.pace) if self._shaped else frozenset()
            self._ways[name] = Way(prefix=network.prefix(name))
        self.network = network
        return network

    async def _loopback(self, stack: AsyncExitStack) -> None:
        """Processes on loopback; a forwarding process stands for the network, so that it can be cut."""
        address = self.client.connection.endpoint.address
        process = await stack.enter_async_context(told("bench.faults.simulated_cut", address))
        ports = {name: int(await process.say(f"open {name}")) for name in self._members}
        network = SimulatedNetwork(process, ports)
        self._ways = {name: Way(network.addresses[name]) for name in self._members}
        self._held = dict.fromkeys(self._members, frozenset())
        self.network = network

    async def _let_in(self, stack: AsyncExitStack, network: NamespaceNetwork) -> None:
        """Let the machines reach the scripted model, which listens on our loopback only."""
        listener = await anyio.create_tcp_listener(local_host=network.server)
        await stack.enter_async_context(listener)
        group = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(group.cancel_scope.cancel)
        port = int(self.server.base_url.rpartition(":")[2].partition("/")[0])
        group.start_soon(listener.serve, lambda stream: _forward(stream, port))
        url = f"http://{network.server}:{listener.extra(SocketAttribute.local_port)}/v1"
        self._ways = {name: Way(way.address, way.prefix, {"OPENAI_BASE_URL": url}) for name, way in self._ways.items()}

    def _network_words(self, network: NamespaceNetwork | None, why: str) -> str:
        if network is None:
            links = (
                "bandwidth and latency of all links simulated by the workers" if self._shaped else "links as they are"
            )
            return f"loopback, no namespaces: {why}; {links}"
        if not self._shaped:
            return "a network namespace each, TLS; links as they are"
        real = next(iter(self._held.values()), frozenset())
        rest = sorted({"bandwidth", "latency"} - real)
        simulated = f"; {' and '.join(rest)} simulated by the workers, as this kernel can't" if rest else ""
        return f"a network namespace each, TLS{f', {network.shaper}' if network.shaper else ''}{simulated}"

    def _pace_words(self) -> str:
        factors = sorted(1 / one.speed for one in self._members.values())
        starts = sorted(one.start_s * 1000 for one in self._members.values())
        if not factors:
            return ""
        times = f"skills take {factors[0]:.3g} to {factors[-1]:.3g} times as long as here"
        return f"simulated on every machine: {times}, and {starts[0]:g} to {starts[-1]:g} ms more"


def _nothing(asked: Asked) -> Turn:
    raise NotFound("nothing was requested that this asks for")


async def _shielded(undo: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope(shield=True):
        await undo()


async def _forward(stream: SocketStream, port: int) -> None:
    async with stream, await anyio.connect_tcp("127.0.0.1", port) as far, anyio.create_task_group() as group:
        group.start_soon(_pump, stream, far)
        await _pump(far, stream)
        group.cancel_scope.cancel()


async def _pump(source: SocketStream, target: SocketStream) -> None:
    try:
        async for data in source:
            await target.send(data)
        await target.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        pass
