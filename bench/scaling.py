"""A whole server with its journal on the disk, and as many simulated workers as wanted, in one process.

Real: everything that `asterism server start` runs, from the submission's text over core, engine, gateway and journal to
the watcher's stream, and of each worker the end of its link (workers.session) and its heartbeats. Every frame and
request goes through the codec. Left out: sockets, since the transport is loopback (protocol.loopback), and whatever a
worker does: simulated ones answer what they are given at once. CPU is that of the whole process, so a task's cost holds
both ends of the link.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import msgspec

from orchestrator.runtime import Runtime, ServerSettings
from orchestrator.service.enrolment import Enrolment
from orchestrator.service.entrance import Entrance
from protocol import loopback
from protocol.builtin import BUILTINS
from protocol.errors import RunFailed
from protocol.frame import Assign, Heartbeat, Hello, Item, Report, Welcome
from protocol.outcome import Success, Usage
from protocol.port import Channel, FrameStream, Services
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources
from protocol.security import ServerFile
from workers.session import Session

from .metric import resident
from .rehearsal import SLOTS, VALUE, Cost
from .workload import SKILL, chain, fan_out, layered

SHAPES: Final[dict[str, Callable[[int], dict[str, Any]]]] = {
    "fan-out": fan_out,
    "layers of 100": lambda tasks: layered(max(1, tasks // 100), min(tasks, 100)),
    "chain": chain,
}
_PROFILE: Final = WorkerProfile(
    SLOTS,
    Resources(cpu=float(SLOTS), memory=8 << 30),
    (DeviceProfile("cpu", count=SLOTS),),
    skills=tuple(spec for spec in BUILTINS if spec.name == SKILL),
)
_SETTLE_S: Final = 0.5
"""Before memory is read: the last group commit and its garbage are done."""


def play_apart(shape: str, tasks: int, workers: int) -> Cost:
    """`play` in a process of its own, so that memory and the collector know nothing of the play before.

    Raises: RunFailed.
    """
    with tempfile.TemporaryDirectory(prefix="asterism-") as folder:
        argv = [sys.executable, "-P", "-m", __name__, folder, shape, str(tasks), str(workers)]
        found = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True)
    if found.returncode:
        last = found.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise RunFailed(f"the play ended with {found.returncode}: {' '.join(last)}", hint="its numbers mean nothing")
    return msgspec.json.decode(found.stdout, type=Cost)


async def play(folder: Path, plan: Mapping[str, Any], workers: int) -> Cost:
    """One run on a fresh server in this folder. Raises: RunFailed."""
    text = msgspec.json.encode(plan)
    async with _server(folder) as (door, owner), loopback.dial(door, owner.token) as channel:
        async with anyio.create_task_group() as group:
            async with anyio.create_task_group() as joining:
                for n in range(workers):
                    joining.start_soon(group.start, _work, door, channel, f"w{n}")
            found = await _timed(channel, text, workers, len(plan["tasks"]))
            group.cancel_scope.cancel()
        await channel.invoke("shutdown", b"{}")
    return found


async def _timed(channel: Channel, text: bytes, workers: int, tasks: int) -> Cost:
    async def chunks() -> AsyncIterator[bytes]:
        yield text

    kept = resident([os.getpid()])
    began, cpu_began = time.perf_counter(), time.process_time()
    run = msgspec.json.decode(await channel.submit(b'{"key":"scale"}', chunks()))["run"]
    submitted = time.process_time()
    wanted = {"run": run, "follow": True, "kinds": ["run_settled"]}
    rows = [
        row async for message in channel.watch("events", msgspec.json.encode(wanted)) for row in message.splitlines()
    ]
    state = msgspec.json.decode(rows[-1])["state"] if rows else "open"
    if state != "succeeded":
        raise RunFailed(f"the run is {state}", hint="the numbers of a failed run mean nothing")
    wall_s, cpu_s = time.perf_counter() - began, time.process_time()
    await anyio.sleep(_SETTLE_S)
    return Cost(
        workers,
        tasks,
        submitted - cpu_began,
        cpu_s - submitted,
        wall_s,
        max(0, resident([os.getpid()]) - kept),
    )


class _Entrance(Entrance):
    """Serves in memory instead of on a port; `at` tells where."""

    def __init__(self, group: anyio.abc.TaskGroup, at: list[loopback.LoopbackServer], *rest: Any) -> None:
        super().__init__(*rest)
        self._group = group
        self._at = at

    async def open(self, services: Services, enrolment: Enrolment) -> loopback.LoopbackServer:
        server: loopback.LoopbackServer = await self._group.start(_serve, services, enrolment)
        self._at.append(server)
        self.address = "127.0.0.1:0"
        return server


async def _serve(
    services: Services,
    enrolment: Enrolment,
    *,
    task_status: anyio.abc.TaskStatus[loopback.LoopbackServer] = anyio.TASK_STATUS_IGNORED,
) -> None:
    async with loopback.serve(services, enrolment.keyring.authenticate) as server:
        task_status.started(server)
        await anyio.sleep_forever()


@asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[tuple[loopback.LoopbackServer, ServerFile]]:
    """Until the caller has told it to shut down."""
    at: list[loopback.LoopbackServer] = []
    async with anyio.create_task_group() as group:
        runtime = Runtime(ServerSettings(folder), entrance=lambda *rest: _Entrance(group, at, *rest))

        async def run(*, task_status: anyio.abc.TaskStatus[ServerFile]) -> None:
            await runtime.run(task_status.started)
            group.cancel_scope.cancel()

        owner = await group.start(run)
        yield at[0], owner


async def _work(
    door: loopback.LoopbackServer,
    owner: Channel,
    name: str,
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """A worker that joins, says every so often that it lives, and answers each Assign at once."""
    bought = msgspec.json.decode(await owner.invoke("enroll", msgspec.json.encode({"name": name})))
    async with loopback.dial(door, bought["secret"]) as channel, anyio.create_task_group() as group:
        worker = _Worker(await channel.link(), name)
        group.start_soon(worker.beat)
        group.start_soon(worker.session.run)
        await worker.welcome.wait()
        task_status.started()


class _Worker:
    def __init__(self, stream: FrameStream, name: str) -> None:
        self.session = Session(stream, self._heard)
        self.welcome = anyio.Event()
        self._every_s = 1.0
        self.session.put(Hello(name, f"boot-{name}", _PROFILE))

    def _heard(self, items: tuple[Item, ...]) -> None:
        for item in items:
            if type(item) is Assign:
                self.session.put(Report(item.attempt, item.fence, item.pin, Success(VALUE), Usage(1e-5)))
            elif type(item) is Welcome:
                self._every_s = item.heartbeat_s
                self.welcome.set()

    async def beat(self) -> None:
        await self.welcome.wait()
        while True:
            await anyio.sleep(self._every_s)
            self.session.put(Heartbeat(time.monotonic()))


if __name__ == "__main__":
    _folder, _shape, _tasks, _workers = sys.argv[1:]
    _found = anyio.run(play, Path(_folder), SHAPES[_shape](int(_tasks)), int(_workers))
    sys.stdout.buffer.write(msgspec.json.encode(_found))
