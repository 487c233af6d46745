"""`doctor`: what could be wrong here, each with the one fix. It looks and never mends, and starts no server.

It must not know how any of what it checks works inside.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from protocol.builtin_model import NO_MODEL_FIX
from protocol.certificate import times
from protocol.errors import AsterismError
from protocol.security import is_loopback
from protocol.task import SECRET_NAME

from .. import local
from ..client.client import AsyncClient
from ..client.connection import own_version
from ..journal.archive import Archive
from . import show
from .doctor_llm import llm
from .finding import Check, Level, conclude, tell
from .option import output_option, use
from .server import tls_words

_SLOW_FSYNC_MS: Final = 20.0
_ROUNDS: Final = 20
_FREE_BYTES: Final = 1024**3
_WORN: Final = 0.75
_SOON_S: Final = 5 * 86400.0
_PROBE_S: Final = 60.0


@click.group(invoke_without_command=True)
@output_option("json")
@click.pass_context
def doctor(context: click.Context, output: str) -> None:
    """Check this machine and the server, each finding with its fix. Exits 1 if something is broken."""
    if context.invoked_subcommand is not None:
        return
    checks = [check for look in _CHECKS for check in _safely(look)]
    if output != "json":
        for check in checks:
            tell(check)
    conclude(checks, output)


doctor.add_command(llm)


def _safely(look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except (OSError, AsterismError) as error:
        hint = error.hint if isinstance(error, AsterismError) else "check permissions and free space"
        said = error.message if isinstance(error, AsterismError) else str(error)
        yield Check(look.__name__.strip("_").replace("_", " "), "error", said, hint)


def _python() -> Iterator[Check]:
    version = platform.python_version()
    yield Check("python", "ok", f"{version}, asterism {own_version() or 'from source'}")
    if sys.platform not in ("linux", "darwin"):
        yield Check("system", "error", sys.platform, "use Linux or macOS; on Windows use WSL")


def _journal_folder() -> Iterator[Check]:
    """fsync in the folder of the journal bounds how fast durable results come."""
    folder = local.home_of(os.environ)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        yield Check("home", "warning", f"others may read {folder}", f"chmod 700 {folder}")
    else:
        yield Check("home", "ok", str(folder))
    p50 = fsync_p50_ms(folder)
    if p50 > _SLOW_FSYNC_MS:
        yield Check("disk", "warning", f"fsync takes {p50:.1f} ms", "set ASTERISM_HOME to a folder on a faster disk")
    else:
        yield Check("disk", "ok", f"fsync takes {p50:.2f} ms (median of {_ROUNDS})")
    free = shutil.disk_usage(folder).free
    if free < _FREE_BYTES:
        yield Check("space", "warning", f"{free // 2**20} MiB are free", "make room, or move ASTERISM_HOME")


def fsync_p50_ms(folder: Path, rounds: int = _ROUNDS) -> float:
    """Median milliseconds of a 4 KiB write and fsync in a folder."""
    spans: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(rounds):
            begun = time.perf_counter()
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
            spans.append((time.perf_counter() - begun) * 1000)
    return statistics.median(spans)


def _clock() -> Iterator[Check]:
    """A wall clock that runs apart from the monotonic one would stretch or shrink deadlines."""
    wall, steady = time.time(), time.monotonic()
    for _ in range(50_000):
        pass
    drift = abs((time.time() - wall) - (time.monotonic() - steady))
    year = time.gmtime().tm_year
    if year < 2024:
        yield Check("clock", "error", f"the year is {year}", "set the clock, for example with NTP")
    elif drift > 0.05:
        yield Check("clock", "warning", f"it jumped {drift:.2f} s while we looked", "let NTP slew it, not step it")
    else:
        yield Check("clock", "ok", "steady")


def _sandbox() -> Iterator[Check]:
    """What can hold user code in here, as a worker finds it by trying."""
    argv = [sys.executable, "-P", "-m", "asterism", "worker", "probe", "-o", "json"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_S, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
        yield Check("sandbox", "error", f"worker probe: {lines[0]}", lines[-1].strip().removeprefix("fix: "))
        return
    probed = msgspec.json.decode(done.stdout)
    for trial in probed["levels"]:
        if trial["held"]:
            yield Check(f"sandbox {trial['level']}", "ok", trial["note"])
        else:
            bad: Level = "error" if trial["level"] == "process" else "ok"
            yield Check(f"sandbox {trial['level']}", bad, f"does not hold: {trial['note']}", trial["fix"])
    yield Check("sandbox", "ok", f"skills may ask for {probed['sandbox']} here")


def _secrets() -> Iterator[Check]:
    """Secrets that workers of this machine hand out: private files, named as plans name them."""
    folder = local.home_of(os.environ) / "secrets"
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in found:
        if SECRET_NAME.fullmatch(path.name) is None:
            yield Check("secrets", "warning", f"no plan can name {path.name}", "use capital letters, digits and _")
        elif path.is_symlink() or path.stat().st_mode & 0o077:
            yield Check("secrets", "warning", f"{path} is not private: it is not used", f"chmod 600 {path}")
    if found:
        names = ", ".join(path.name for path in found)
        yield Check("secrets", "ok", f"{names}; who may have them: secrets.allow")


def _model() -> Iterator[Check]:
    """Whether planner and workers of this machine have one; what it can do is for `doctor llm`."""
    from protocol.chat_endpoint import find_endpoint
    from protocol.config import load

    settings = load().settings
    endpoint = find_endpoint(settings.llm, os.environ)
    if endpoint is None:
        found = "none is set: the catalog planner plans, workers here offer no llm.* and agent.run"
        yield Check("model", "ok", found, NO_MODEL_FIX)
    else:
        called = f"{settings.llm.model} at " if settings.llm.model else ""
        yield Check("model", "ok", f"{called}{endpoint.base_url}; `asterism doctor llm` tries it")


def _journal() -> Iterator[Check]:
    """What its file says of itself; whether every record is sound is for `journal verify`."""
    path = local.home_of(os.environ) / "server" / "journal.db"
    if path.exists():
        with Archive(path) as archive:
            last, _ = archive.last()
            yield Check(
                "journal", "ok", f"up to event {last}, epoch {archive.epoch}, {show.size(archive.size_bytes())}"
            )


def _server() -> Iterator[Check]:
    environ = dict(os.environ)
    if local.read_endpoint(environ) is None and not environ.get("ASTERISM_SERVER"):
        yield Check("server", "ok", "none is running; `asterism run` starts a private one")
        return

    async def look(client: AsyncClient) -> tuple[Any, Any]:
        return await client.connection.call("info"), await client.connection.call("workers")

    info, workers = use(look)
    yield Check("server", "ok", f"{info['address']}, version {info['version']}, epoch {info['epoch']}")
    yield _tls(info.get("tls"), info["address"])
    for warning in info.get("warnings", ()):
        yield Check("server", "warning", str(warning), "asterism server info")
    away = [row["worker"] for row in workers["workers"] if row["state"] in ("suspect", "away")]
    here = len(workers["workers"]) - len(away)
    if away:
        yield Check("workers", "warning", f"{here} connected, away: {', '.join(away)}", "start them again")
    else:
        yield Check("workers", "ok", f"{here} connected")


def _tls(tls: dict[str, Any] | None, address: str) -> Check:
    """Certificates are renewed half way through their life: one that is older shows that something is wrong."""
    if tls is None:
        level: Level = "ok" if is_loopback(address) else "error"
        return Check("tls", level, tls_words(None), "" if level == "ok" else "asterism server stop, then start it")
    worn = (time.time() - tls["since"]) / (tls["until"] - tls["since"])
    fix = "set the clocks of both machines; else asterism server stop, then start it" if worn > _WORN else ""
    return Check("tls", "warning" if fix else "ok", tls_words(tls), fix)


def _membership() -> Iterator[Check]:
    """The certificates that `connect` bought and that workers of this machine have."""
    from protocol.membership import due_s

    now = time.time()
    for name, tls in local.memberships(os.environ):
        left_s = times(tls.certificate)[1] - now
        if left_s <= 0:
            yield Check(name, "error", "the certificate has expired", "enrol again with a new join string")
        elif due_s(tls, now) < 0 and left_s < _SOON_S:
            yield Check(
                name, "warning", f"the certificate is good for {show.seconds(left_s)}", "use it, that renews it"
            )
        else:
            yield Check(name, "ok", f"the certificate is good for {show.seconds(left_s)}")


_CHECKS: Final = (_python, _journal_folder, _clock, _sandbox, _secrets, _model, _journal, _server, _membership)
