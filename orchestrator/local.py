"""Servers and workers on this machine, found or started as child processes of a client.

A server is found by an address that was given, else by `server.json` under ASTERISM_HOME, else a private one is
started: its own process and session, so that Ctrl-C in a terminal reaches only the client. Two clients that start one
at once get one: the journal's lock decides, the loser reads the winner's `server.json`. Nothing is imported from the
other side: a worker is `asterism worker start`, its credential goes over its standard input, never its arguments.

It must not know runs: what a worker is started for is its caller's business.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import anyio
import anyio.to_thread
import msgspec

from protocol.errors import AsterismError, JournalBusy, ServerUnreachable, UsageError, from_wire
from protocol.security import (
    Identity,
    ServerFile,
    Tls,
    home,
    load_client,
    load_client_file,
    load_identity,
    load_server,
    private_directory,
    save_client,
)

START_DEADLINE_S: Final = 30.0
STOP_GRACE_S: Final = 5.0
_POLL_S: Final = 0.02
_TAIL_BYTES: Final = 4000
_KEEP: Final = b"keep\n"


def home_of(environ: Mapping[str, str]) -> Path:
    """Where everything of Asterism lives, for a process with this environment."""
    chosen = environ.get("ASTERISM_HOME")
    return Path(chosen).expanduser().absolute() if chosen else home()


def read_endpoint(environ: Mapping[str, str]) -> ServerFile | None:
    """The local server, or None if there is none or its process is gone."""
    found = load_server(home_of(environ))
    return found if found is not None and _lives(found.pid) else None


def given_endpoint(address: str, environ: Mapping[str, str]) -> ServerFile:
    """A server somebody named. Its credential: ASTERISM_TOKEN, else that of `server.json` if it is this very server,
    else what `asterism connect` bought there."""
    token, tls = environ.get("ASTERISM_TOKEN", ""), None
    local = read_endpoint(environ)
    if not token and local is not None and local.address == address:
        return local
    if not token and (kept := load_client(home_of(environ), address)) is not None:
        token, tls = kept.secret, kept.tls
    return ServerFile(address=address, pid=0, token=token, journal="", started=0.0, version="", tls=tls)


def keep_client(environ: Mapping[str, str], endpoint: ServerFile, tls: Tls) -> None:
    """Keep a renewed certificate for that server, where `asterism connect` kept the first."""
    directory = home_of(environ)
    if (kept := load_client(directory, endpoint.address)) is not None:
        save_client(directory, msgspec.structs.replace(kept, tls=tls))


def memberships(environ: Mapping[str, str]) -> Iterator[tuple[str, Tls]]:
    """The certificates kept here, as `client of ADDRESS` and `worker NAME`."""
    directory = home_of(environ)
    for path in sorted((directory / "servers").glob("*.json")):
        if (client := load_client_file(path)) is not None and client.tls is not None:
            yield f"client of {client.address}", client.tls
    for path in sorted((directory / "workers").glob("*/identity.json")):
        if (identity := load_identity(path.parent)) is not None and identity.tls is not None:
            yield f"worker {identity.name}", identity.tls


def has_journal(environ: Mapping[str, str]) -> bool:
    """Whether a server has ever run here: then there is something to look back at."""
    return (home_of(environ) / "server" / "journal.db").exists()


async def start_server(
    environ: Mapping[str, str],
    *,
    listen: str = "",
    private: bool = True,
    arguments: Sequence[str] = (),
    deadline_s: float = START_DEADLINE_S,
) -> ServerFile:
    """Start a server in the background, or find the one that another client starts at this moment.

    Raises: ServerUnreachable with what the server said last, the error it ended with, or after `deadline_s`.
    """
    log = private_directory(home_of(environ)) / "server.log"
    argv = [*_asterism(), "server", "start"]
    argv += ["-o", "json", *(("--private",) if private else ()), *(("--listen", listen) if listen else ()), *arguments]
    with log.open("ab") as output:
        start = log.stat().st_size
        others = {name: value for name, value in environ.items() if not name.startswith("ASTERISM_SECRET_")}
        child = await anyio.to_thread.run_sync(lambda: _spawn(argv, others, subprocess.DEVNULL, output))
    with anyio.move_on_after(deadline_s):
        while True:
            found = read_endpoint(environ)
            if found is not None and (found.pid == child.pid or child.poll() is not None):
                child.returncode = 0  # it outlives us by design; without this Popen warns about it
                return found
            if child.poll() is not None:
                error = _died("the server did not start", child, log, start)
                if not isinstance(error, JournalBusy):  # then another one is about to write its file
                    raise error
            await anyio.sleep(_POLL_S)
    raise _died("the server did not start", child, log, start)


async def gone(pid: int, deadline_s: float = START_DEADLINE_S) -> None:
    """Wait until a server's process has ended (pid 0: of another machine, nothing to wait for)."""
    with anyio.move_on_after(deadline_s):
        while True:
            if not pid or not _lives(pid):
                return
            await anyio.sleep(_POLL_S)


class WorkerOptions(msgspec.Struct, frozen=True):
    """What a worker process is started with. `roots` may end in `:ro`; `slots` 0 leaves it to the worker."""

    name: str
    serves: str = ""
    slots: int = 0
    roots: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()

    def argv(self) -> list[str]:
        row = ["--name", self.name]
        if self.serves:
            row += ["--serves", self.serves]
        if self.slots:
            row += ["--slots", str(self.slots)]
        for flag, values in (
            ("--root", self.roots),
            ("--skills", self.skills),
            ("--allow", self.allow),
            ("--label", self.labels),
            ("--resource", self.resources),
        ):
            for value in values:
                row += [flag, value]
        return row


class WorkerProcess:
    """A worker daemon that was started here, in a session of its own.

    It ends when the pipe to its standard input closes, so a client that is killed leaves none behind; one that
    leaves it on purpose says so first.
    """

    def __init__(self, options: WorkerOptions, child: subprocess.Popen[bytes], log: Path) -> None:
        self.options = options
        self._child = child
        self._log = log

    def check(self) -> None:
        """Raises: the error the worker ended with, if it has ended."""
        if self._child.poll() is not None:
            raise _died(f"the worker {self.options.name} ended", self._child, self._log, 0)

    def leave(self) -> None:
        """Let it live on without us (a detached run): its server ends it when the run is settled."""
        _tell(self._child, _KEEP)
        _hang_up(self._child)
        self._child.returncode = 0  # it outlives us by design; without this Popen warns about it

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """SIGTERM, grace, SIGKILL; returns when it is gone. Shielded: a cancelled client leaves no worker behind."""
        with anyio.CancelScope(shield=True):
            if self._child.poll() is None:
                self._child.terminate()
                await anyio.to_thread.run_sync(_wait_or_kill, self._child, grace_s)
            _hang_up(self._child)
            self._log.unlink(missing_ok=True)


async def start_worker(
    environ: Mapping[str, str], endpoint: ServerFile, identity: Identity, options: WorkerOptions
) -> WorkerProcess:
    """Start `asterism worker start` with an identity that the server gave (`enroll`); it has not joined yet."""
    log = private_directory(home_of(environ)) / f"{options.name}.log"
    argv = [*_asterism(), "worker", "start", "--join", "-", *options.argv()]
    credential = msgspec.json.encode(msgspec.structs.replace(identity, address=endpoint.address)) + b"\n"

    def spawn() -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            child = _spawn(argv, environ, subprocess.PIPE, output)
        _tell(child, credential)
        return child

    child = await anyio.to_thread.run_sync(spawn)
    return WorkerProcess(options, child, log)


def _lives(pid: int) -> bool:
    """Whether a process is there; one that is dead but not yet buried by whoever started it is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _tell(child: subprocess.Popen[bytes], line: bytes) -> None:
    """Write to a child's standard input; one that has ended hears nothing, `check` tells why."""
    assert child.stdin is not None
    try:
        child.stdin.write(line)
        child.stdin.flush()
    except BrokenPipeError:
        pass


def _hang_up(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    try:
        child.stdin.close()
    except BrokenPipeError:
        pass


def _wait_or_kill(child: subprocess.Popen[bytes], grace_s: float) -> None:
    try:
        child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def skill_sources(sources: Sequence[str], folder: Path) -> tuple[str, ...]:
    """`--skills` values as a worker elsewhere reads them: files as absolute paths, modules by name."""
    found: list[str] = []
    for source in sources:
        path = (folder / source).expanduser()
        looks_like_file = source.endswith((".py", ".toml")) or os.sep in source
        if looks_like_file and not path.is_file():
            raise UsageError(f"there is no skill file {source}", hint="give a .py or .toml file, or a module name")
        found.append(str(path.resolve()) if looks_like_file else source)
    return tuple(dict.fromkeys(found))


def _asterism() -> list[str]:
    """This very installation. -P: the folder we are in must not hide our packages behind its own of the same name."""
    return [sys.executable, "-P", "-m", "asterism"]


def _spawn(argv: list[str], environ: Mapping[str, str], stdin: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """A child in a session of its own. No preexec_fn: it would crash beside gRPC."""
    env = {**environ, "GRPC_ENABLE_FORK_SUPPORT": "0"}
    return subprocess.Popen(
        argv, env=env, stdin=stdin, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, close_fds=True
    )


def _died(what: str, child: subprocess.Popen[bytes], log: Path, start: int) -> AsterismError:
    """The error a child left as JSON in its last line of output, else its last words."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    if lines and lines[-1].startswith("{"):
        try:
            return from_wire(msgspec.json.decode(lines[-1])["error"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            pass
    status = child.poll()
    how = "it is still starting" if status is None else f"exit status {status}"
    said = "\n".join(lines[-5:])
    return ServerUnreachable(
        f"{what} ({how})" + (f":\n{said}" if said else ""), hint=f"see {log}, or run: asterism doctor"
    )
