"""A fleet of real processes on this machine, in folders of its own: one private server, workers that can be killed.

Everything lies below one folder, which is ASTERISM_HOME of all of them. Workers are `asterism worker start`, enrolled
with an identity that is kept, so that one that was killed comes back as the same worker. `close` ends every process
that was started here, whatever happened. It must not know runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import anyio.to_thread
import msgspec
import psutil

from orchestrator.client.client import AsyncClient
from orchestrator.local import read_endpoint, start_server
from protocol.errors import AsterismError, ServerUnreachable, from_wire
from protocol.security import Identity

from .metric import children

JOIN_DEADLINE_S: Final = 30.0
STOP_GRACE_S: Final = 3.0
_KEPT_AWAY: Final = ("ASTERISM_", "OPENAI_", "PYTHONDONTWRITEBYTECODE")
"""What the person has set for their own fleet, and a model that costs money, must not reach this one. Nor may each of
its processes compile all it imports, which takes longer than all else in a start, and none does that is installed."""


class Machine(msgspec.Struct, frozen=True):
    """What a worker is started with; the fields are flags of `asterism worker start`. `root` may end in `:ro`."""

    name: str
    slots: int = 1
    root: str = ""
    labels: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    simulate: str = ""

    def argv(self) -> list[str]:
        row = ["--name", self.name, "--slots", str(self.slots)]
        for flag, values in (
            ("--root", (self.root,)),
            ("--label", self.labels),
            ("--resource", self.resources),
            ("--skills", self.skills),
            ("--allow", self.allow),
            ("--simulate", (self.simulate,)),
        ):
            for value in filter(None, values):
                row += [flag, value]
        return row


class Way(msgspec.Struct, frozen=True):
    """How a worker reaches the server: by another address than the client's; its command behind a prefix.

    `environ`: what its processes have beside the fleet's.
    """

    address: str = ""
    prefix: tuple[str, ...] = ()
    environ: Mapping[str, str] = {}


class Scenario:
    """`async with Scenario() as fleet`: a fresh folder in `parent`, else in the system's own, left only if `keep`.

    `listen`: where the server listens, if not on loopback; then the link is TLS, as with `tls`. `environ`: what its
    processes have beside the person's environment, whose settings for Asterism and for a model they don't have.
    """

    def __init__(
        self,
        parent: Path | None = None,
        *,
        keep: bool = False,
        slots_here: int = 0,
        tls: bool = False,
        listen: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.keep = keep
        self._arguments = ("--tls",) if tls else ()
        self._listen = listen
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="asterism-", dir=parent)).resolve()
        clean = {key: value for key, value in os.environ.items() if not key.startswith(_KEPT_AWAY)}
        home = {"ASTERISM_HOME": str(self.folder / "home"), "XDG_CONFIG_HOME": str(self.folder)}
        self.environ = {**clean, **(environ or {}), **home, "GRPC_ENABLE_FORK_SUPPORT": "0"}
        if slots_here:
            self.environ["ASTERISM_HERE__SLOTS"] = str(slots_here)
        self.server_pid = 0
        self._identities: dict[str, Identity] = {}
        self._machines: dict[str, Machine] = {}
        self._ways: dict[str, Way] = {}
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    async def __aenter__(self) -> Self:
        try:
            await self.start_server()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)

    @property
    def journal_folder(self) -> Path:
        return self.folder / "home" / "server"

    def new_folder(self, name: str) -> str:
        """An empty folder, the root of a machine."""
        made = self.folder / name
        made.mkdir()
        return str(made)

    def client(self, **options: Any) -> AsyncClient:
        """A client of this fleet; it joins as `here` only if asked to."""
        return AsyncClient(environ=self.environ, **{"home": False, **options})

    async def start_server(self) -> None:
        """Start the server, at the address it had if it ran before. Raises: ServerUnreachable."""
        before = self.folder / "home" / "address"
        listen = before.read_text() if before.exists() else self._listen
        endpoint = await start_server(self.environ, listen=listen, arguments=self._arguments)
        before.write_text(endpoint.address)
        self.server_pid = endpoint.pid

    async def restart_server(self, pid: int) -> None:
        """Start it after process `pid` was killed, and wait until it, or the one that a client started, is there."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.start_server)
            while True:
                found = read_endpoint(self.environ)
                if found is not None and found.pid != pid:
                    return
                await anyio.sleep(0.01)

    def kill_server(self) -> None:
        """SIGKILL, and wait until it is gone."""
        _kill(self.server_pid)

    async def start_worker(self, client: AsyncClient, machine: Machine, way: Way | None = None) -> int:
        """Start a worker, or one that was killed again under the identity it had; its process id.

        `way` is kept for its next start.
        """
        self._machines[machine.name] = machine
        if way is not None:
            self._ways[machine.name] = way
        credential = await self._credential(client, machine.name)
        child = await anyio.to_thread.run_sync(lambda: self._spawn(machine, credential))
        self._workers[machine.name] = child
        return child.pid

    async def _credential(self, client: AsyncClient, name: str) -> bytes:
        """Its first line of input: the identity that was bought for it, and where it finds the server."""
        if name not in self._identities:
            self._identities[name] = await client.connection.enroll(name, "")
        address = self._ways.get(name, Way()).address or client.connection.endpoint.address
        return msgspec.json.encode(msgspec.structs.replace(self._identities[name], address=address)) + b"\n"

    async def start_copy(self, client: AsyncClient, name: str) -> str:
        """Start a second daemon with this worker's identity, as on a copied machine; the name to kill it by."""
        machine, copy = self._machines[name], f"{name}-copy"
        credential = await self._credential(client, name)
        away = {**self.environ, "ASTERISM_HOME": str(self.folder / copy)}
        self._workers[copy] = await anyio.to_thread.run_sync(lambda: self._spawn(machine, credential, away))
        return copy

    async def ended(self, name: str, within_s: float) -> bool:
        """Whether the daemon ends by itself within this time."""
        try:
            await anyio.to_thread.run_sync(self._workers[name].wait, within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _spawn(
        self, machine: Machine, credential: bytes, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        way = self._ways.get(machine.name, Way())
        argv = [*way.prefix, sys.executable, "-P", "-m", "asterism", "worker", "start", "--join", "-", *machine.argv()]
        with (self.folder / f"{machine.name}.log").open("ab") as log:
            child = subprocess.Popen(
                argv,
                env={**(environ or self.environ), **way.environ},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
            )
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(credential)
            child.stdin.close()
        return child

    def kill_worker(self, name: str) -> None:
        """SIGKILL to the daemon, as a power cut would: no goodbye, no flush."""
        child = self._workers[name]
        child.send_signal(signal.SIGKILL)
        child.wait()

    async def end_worker(self, name: str) -> None:
        """SIGTERM: it hands back what it holds, says goodbye and ends; killed if that takes too long."""
        self._workers[name].terminate()
        if not await self.ended(name, STOP_GRACE_S):
            self.kill_worker(name)

    async def restart_worker(self, client: AsyncClient, name: str) -> int:
        return await self.start_worker(client, self._machines[name])

    async def dismiss_worker(self, client: AsyncClient, name: str) -> None:
        """Tell the fleet that it won't come back. If it does, it is enrolled anew."""
        del self._identities[name]
        await client.connection.call("dismiss", worker=name)

    def freeze_worker(self, name: str) -> None:
        """SIGSTOP to the daemon and everything below it, as when its machine stands still."""
        _signal_all(self._workers[name].pid, signal.SIGSTOP)

    def thaw_worker(self, name: str) -> None:
        _signal_all(self._workers[name].pid, signal.SIGCONT)

    def worker_pid(self, name: str) -> int:
        return self._workers[name].pid

    async def joined(self, client: AsyncClient, *names: str) -> None:
        """Wait until these workers are connected, well or in quarantine.

        Raises: ServerUnreachable with the last words of one that ended.
        """
        delay = 0.02
        with anyio.move_on_after(JOIN_DEADLINE_S):
            while True:
                rows = (await client.connection.call("workers"))["workers"]
                if set(names) <= {row["worker"] for row in rows if row["state"] in ("connected", "quarantine")}:
                    return
                for name in names:
                    if why := self.fallen(name):
                        raise ServerUnreachable(f"the worker {name} ended {why}")
                await anyio.sleep(delay)
                delay = min(0.1, delay * 1.5)
        raise ServerUnreachable(f"{', '.join(names)} did not join in {JOIN_DEADLINE_S:g} s", hint="asterism doctor")

    def fallen(self, name: str) -> str:
        """How its worker ended, and its last words; "" while it lives."""
        code = self._workers[name].poll()
        if code is None:
            return ""
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"{how}: {self._last_words(name)}"

    def _last_words(self, name: str) -> str:
        log = self.folder / f"{name}.log"
        lines = log.read_text("utf-8", "replace").splitlines()[-5:] if log.exists() else []
        try:
            return from_wire(msgspec.json.decode(lines[-1])["error"]).message
        except (LookupError, TypeError, msgspec.DecodeError):
            return "\n".join(lines)

    def close(self) -> None:
        """End every process that was started here and remove the folder, unless it is to be kept."""
        for child in self._workers.values():
            if child.poll() is None:
                _signal_all(child.pid, signal.SIGCONT)  # one that stands still would not hear that it shall end
                child.terminate()
        for child in self._workers.values():
            try:
                child.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        with contextlib.suppress(AsterismError):
            found = read_endpoint(self.environ)
            self.server_pid = found.pid if found is not None else self.server_pid
        if self.server_pid:
            _end(self.server_pid)
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def _signal_all(pid: int, what: signal.Signals) -> None:
    for one in (pid, *children(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, what)


def _kill(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.kill()
        process.wait(STOP_GRACE_S)


def _end(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        try:
            process.wait(STOP_GRACE_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_GRACE_S)
