"""The workers a client brings along: `here`, and with `local` some more for trials, for its own runs only.

Each is enrolled with a fresh identity, started as a child process and ready once its server lists it as connected.
They end with the client, unless a detached run keeps them. It must not know runs.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from protocol.errors import AsterismError, ServerUnreachable, UsageError

from ..local import WorkerOptions, WorkerProcess, skill_sources, start_worker
from .connection import Connection

JOIN_DEADLINE_S: Final = 30.0


class HomeOptions(msgspec.Struct, frozen=True):
    """`local`: how many workers besides `here`; `slots`: of each of them (0: their share of the cores)."""

    skills: tuple[str, ...] = ()
    root: str = "."
    roots: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    here_slots: int = 0
    local: int = 0
    slots: int = 0


class Home:
    """Started by `start`, ended by `stop`. `name` is what `here` stands for in this client's runs."""

    def __init__(self, options: HomeOptions, environ: Mapping[str, str]) -> None:
        self.name = f"here-{secrets.token_hex(3)}"
        self._options = options
        self._environ = environ
        self._workers: list[WorkerProcess] = []
        self._kept = False

    @property
    def running(self) -> bool:
        return bool(self._workers)

    async def start(self, connection: Connection) -> None:
        """Start every worker and wait until each has joined. Raises: what a worker ended with, ServerUnreachable."""
        for options in self._plan():
            identity = await connection.enroll(options.name, options.serves)
            self._workers.append(await start_worker(self._environ, connection.endpoint, identity, options))
        await self._joined(connection)

    async def stop(self, connection: Connection) -> None:
        """Tell the server that they will not come back, and end them. A second call does nothing."""
        workers, self._workers = self._workers, []
        if self._kept:
            for worker in workers:
                worker.leave()
            return
        with anyio.CancelScope(shield=True):
            for worker in workers:
                try:
                    with anyio.move_on_after(2.0):
                        await connection.call("dismiss", worker=worker.options.name)
                except AsterismError:
                    pass  # the server is gone, or forgot it already: the process is ended all the same
            async with anyio.create_task_group() as group:
                for worker in workers:
                    group.start_soon(worker.stop)

    def bring(self, sources: Iterable[str]) -> None:
        """Let the workers load these as well. Raises: UsageError when they have started without them."""
        missing = tuple(source for source in dict.fromkeys(sources) if source not in self._options.skills)
        if missing and self.running:
            raise UsageError(
                f"`here` was started without {', '.join(missing)}",
                hint="Client(skills=[...]) with all of them",
            )
        self._options = msgspec.structs.replace(self._options, skills=(*self._options.skills, *missing))

    def keep(self) -> None:
        """A detached run needs them: leave them to the server."""
        self._kept = True

    def check(self) -> None:
        """Raises: the error of a worker that has ended."""
        for worker in self._workers:
            worker.check()

    def _plan(self) -> list[WorkerOptions]:
        options = self._options
        folder = Path(options.root).resolve()
        skills = skill_sources(options.skills, folder)
        here = WorkerOptions(
            name=self.name,
            serves=self.name,
            slots=options.here_slots,
            roots=(str(folder), *options.roots),
            skills=skills,
            allow=options.allow,
        )
        if not options.local:
            return [here]
        cores = (os.cpu_count() or 1) / options.local
        share = (f"cpu={max(1.0, cores):g}",) if not options.slots else (f"cpu={options.slots}",)
        suffix = self.name.rpartition("-")[2]
        return [here] + [
            WorkerOptions(
                name=f"local-{number}-{suffix}",
                serves=self.name,
                slots=options.slots or max(1, int(cores)),
                roots=(str(folder), *options.roots),
                skills=skills,
                allow=options.allow,
                labels=(f"local={number}",),
                resources=share,
            )
            for number in range(1, options.local + 1)
        ]

    async def _joined(self, connection: Connection) -> None:
        wanted = {worker.options.name for worker in self._workers}
        delay = 0.02
        with anyio.move_on_after(JOIN_DEADLINE_S):
            while True:
                self.check()
                answer: dict[str, Any] = await connection.call("workers")
                if wanted <= {row["worker"] for row in answer["workers"] if row["state"] == "connected"}:
                    return
                await anyio.sleep(delay)
                delay = min(0.2, delay * 1.5)
        raise ServerUnreachable(
            f"{', '.join(sorted(wanted))} did not join within {JOIN_DEADLINE_S:g} s", hint="asterism doctor"
        )
