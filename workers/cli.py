"""`asterism worker start`, `probe` and `label`: the worker daemon's own commands.

Listing, draining and looking at workers are the orchestrator's commands: they ask a server. Heavy modules are
imported by the commands, so `--help` stays fast, and the launcher is started before anything imports gRPC.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import click
import msgspec

from protocol.errors import AsterismError, UsageError

if TYPE_CHECKING:
    from devices.calibration import Calibration
    from devices.inventory import Inventory
    from protocol.port import Channel

    from .identity import Credential
    from .profile import Declared
    from .worker import Worker, WorkerSettings

ALONE_S: Final = 300.0
"""A `here` worker that its client left to a server outlives that server's absence for so long."""
_LABEL: Final = re.compile(r"[A-Za-z0-9_.-]{1,63}")


@click.group(name="worker")
def worker() -> None:
    """This machine as a worker: start the daemon, look at what it would offer, label it."""


@worker.command()
@click.option(
    "--join", metavar="-", default="", help="Read the join string from standard input. Default: ASTERISM_JOIN."
)
@click.option("--name", default="", help="The worker's name; the host name otherwise.")
@click.option("--slots", type=click.IntRange(1), default=None, help="Attempts at once; the number of cores otherwise.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="A label for `on`.")
@click.option("--resource", "resources", multiple=True, metavar="K=V", help="An amount: gpu=1, vram=16GiB, licence=2.")
@click.option("--root", "roots", multiple=True, metavar="DIR[:ro]", help="A folder whose files may be used.")
@click.option("--allow", multiple=True, metavar="PATTERN", help="Skills that run here without asking (process.*).")
@click.option(
    "--skills", multiple=True, metavar="FILE|MODULE", help="Load skills from a .py or .toml file or a module."
)
@click.option("--untrusted", multiple=True, metavar="FILE|MODULE", help="Load such skills in bubblewrap only.")
@click.option(
    "--simulate", default="", metavar="K=V,..", help="Act slower: speed=0.5,start=50ms,bandwidth=20Mbit,latency=20ms."
)
@click.option("--price", "prices", multiple=True, metavar="K=V", help="An hour of a core or card costs: gpu=2.5.")
@click.option("--watts", multiple=True, metavar="K=V", help="What a core or card at work draws: gpu=300.")
@click.option("--calibrate", is_flag=True, help="Measure this machine first, unless that was done before.")
@click.option("--serves", default="", hidden=True)
def start(
    join: str,
    name: str,
    slots: int | None,
    labels: tuple[str, ...],
    resources: tuple[str, ...],
    roots: tuple[str, ...],
    allow: tuple[str, ...],
    skills: tuple[str, ...],
    untrusted: tuple[str, ...],
    simulate: str,
    prices: tuple[str, ...],
    watts: tuple[str, ...],
    calibrate: bool,
    serves: str,
) -> None:
    """Join a server and run its attempts until told to stop.

    Standard error says that it is up once its skills are loaded, and connected once a server has taken it in. Of a
    server that can't be reached it says why, after some seconds and when that changes, and tries on.
    """
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    if join not in ("", "-"):
        raise UsageError("a join string is a secret: it is not taken from the command line", hint="--join - < FILE")
    from devices.cpu import threads, usable_cores
    from protocol.config import load
    from protocol.security import Identity, Join, claim, home
    from protocol.unpickling import refuse_unpickling

    from .address import VARIABLE
    from .identity import check_name, default_name, parse_join_line
    from .profile import Declared, rates
    from .root import parse_root
    from .shaping import parse_shape
    from .spawned import Spawned

    line = read_line(0) if join == "-" else os.environ.pop("ASTERISM_JOIN", "")
    known: Join | Identity | None = parse_join_line(line) if line else None
    is_child = isinstance(known, Identity)
    try:
        called = check_name(name or (known.name if isinstance(known, Identity) else default_name()))
        folder = home() / "workers" / called
        settings = load().settings
        declared = Declared(
            slots=slots or 0,
            labels={**saved_labels(folder), **pairs(labels, "--label")},
            resources=pairs(resources, "--resource"),
            policies=settings.policy.rules(allow),
            serves=serves,
            roots=tuple(map(parse_root, roots)),
            shape=parse_shape(simulate),
            price=rates(pairs(prices, "--price"), settings.device.price, "--price"),
            watts=rates(pairs(watts, "--watts"), settings.device.watts, "--watts"),
            calibrate=calibrate,
        )
        sources = tuple(map(_source, skills))
        strange = tuple(map(_source, untrusted))
        with claim(folder / "lock"):
            os.environ[VARIABLE] = msgspec.json.encode(settings.http.allow).decode()
            refuse_unpickling()
            cores = usable_cores()  # else every slot's numeric library takes all of them
            for variable, value in threads(cores / (slots or cores)).items():
                os.environ.setdefault(variable, value)
            spawned = Spawned(hashlib.sha256(os.fsencode(folder)).hexdigest()[:12])
            anyio.run(serve, called, folder, declared, sources, known, spawned, strange)
    except AsterismError as error:
        if is_child:  # whoever started us reads the reason from our last line
            click.echo(msgspec.json.encode({"error": error.to_wire()}).decode(), err=True)
            sys.exit(error.exit_code)
        raise


async def _calibrated(inventory: Inventory, home: Path, name: str, wanted: bool) -> Calibration:
    """What was measured of this machine; `wanted`: now, if it was not. In a process of its own: the libraries that
    compute are no burden of a daemon. Raises: UsageError."""
    from devices.calibration import Calibration, kept
    from devices.cpu import threads

    devices = inventory.profile()
    found = kept(home, devices)
    if found is None and wanted:
        command = [sys.executable, "-P", "-m", "asterism", "worker", "probe", "--calibrate", "--name", name]
        environ = {key: value for key, value in os.environ.items() if key not in threads(1)}  # all cores, for once
        done = await anyio.run_process(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=None, check=False, env=environ
        )
        found = kept(home, devices)
        if done.returncode or found is None:
            raise UsageError("this machine can't be measured", hint="see above, or start without --calibrate")
    return found or Calibration()


def _source(given: str) -> str:
    return str(Path(given).resolve()) if Path(given).is_file() else given


async def serve(
    name: str,
    folder: Path,
    declared: Declared,
    sources: tuple[str, ...],
    known: Any,
    spawned: Any,
    untrusted: tuple[str, ...] = (),
) -> None:
    """Everything after the launcher is there. Raises: the refusal that ended the daemon."""
    from devices.inventory import discover
    from protocol.config import load
    from protocol.resource import parse_amounts
    from protocol.security import home

    from .custody import custody_of
    from .folder import clear
    from .identity import obtain
    from .profile import profile_of, slots_of
    from .registry import Registry
    from .standing import Standing
    from .worker import Worker, WorkerSettings

    said, found = parse_amounts(declared.resources), discover(folder=folder)
    inventory = found.declared(said.gpu, said.vram)
    try:
        credential = await obtain(home(), name, known, declared.serves)
        custody = custody_of(load().settings, home())
        measured = await _calibrated(found, home(), name, declared.calibrate)
    except BaseException:
        spawned.close()
        raise
    custody.redactor.add("credential", credential.identity.secret)
    custody.redactor.add("token", getattr(known, "token", ""))
    if credential.identity.tls is not None:
        custody.redactor.add("key", credential.identity.tls.key)
    settings = WorkerSettings(
        name=credential.identity.name,
        folder=folder,
        skills=sources,
        untrusted=untrusted,
        roots=declared.roots,
        slots=slots_of(declared, inventory),
        serves=declared.serves,
        shape=declared.shape,
        memory_bytes=int(inventory.capacity().memory),
        custody=custody,
    )
    daemon = Worker(
        settings,
        spawned,
        dialler(credential),
        Standing(credential.address, lambda line: click.echo(line, err=True)),
        lambda skills: profile_of(declared, inventory, skills, measured, credential.address()),
        Registry().get,
        inventory.gpu,
    )
    failed: AsterismError | None = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(on_signals, daemon, group.cancel_scope)
            group.start_soon(when_ready, daemon, settings)
            group.start_soon(credential.stay_fresh)
            try:
                await daemon.run()
            except AsterismError as error:
                failed = error
            group.cancel_scope.cancel()
    finally:
        if declared.serves:
            clear(folder)
    if failed is not None:
        raise failed


async def when_ready(daemon: Worker, settings: WorkerSettings) -> None:
    await daemon.ready.wait()
    click.echo(f"worker {settings.name} is up, {settings.slots} slots", err=True)
    if settings.custody.no_access:
        click.echo(f"it has no model: {settings.custody.no_access}", err=True)
    if settings.serves:
        if at_end(0):
            daemon.alone_s = ALONE_S
        else:
            await on_end_of_input(daemon)


async def on_signals(daemon: Worker, scope: anyio.CancelScope) -> None:
    """The first SIGTERM or SIGINT drains, the second ends at once, as does one before there is anything to drain."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        first = True
        async for _ in signals:
            if not daemon.ready.is_set():
                scope.cancel()
                return
            daemon.drain(None if first else 0.0)
            first = False


async def on_end_of_input(daemon: Worker) -> None:
    """A `here` worker ends with the client that holds the other end of its standard input.

    A client that leaves it to the server (a detached run) says so first, with a line.
    """
    await anyio.wait_readable(0)
    if os.read(0, 4096):
        daemon.alone_s = ALONE_S
    else:
        daemon.drain(0.0)


def dialler(credential: Credential) -> Callable[[], AbstractAsyncContextManager[Channel]]:
    from protocol.membership import dial_as

    return lambda: dial_as(credential.address(), credential.identity.secret, credential.identity.tls)


def read_line(descriptor: int) -> str:
    """One line, byte by byte: what follows it stays unread. Raises: UsageError when there is none."""
    found = bytearray()
    while len(found) < 16384:
        byte = os.read(descriptor, 1)
        if byte in (b"", b"\n"):
            break
        found += byte
    if not found.strip():
        raise UsageError("there is no join string on standard input", hint="asterism worker start --join - < FILE")
    return found.decode("utf-8", "replace")


def at_end(descriptor: int) -> bool:
    """Whether nothing more can come from the descriptor: the other end is closed already."""
    import select

    readable, _, _ = select.select([descriptor], [], [], 0)
    return bool(readable) and not os.read(descriptor, 1)


def pairs(texts: Iterable[str], flag: str) -> dict[str, str]:
    """`k=v` flags. Raises: UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        for part in text.split(","):
            key, equals, value = part.partition("=")
            if not _LABEL.fullmatch(key):
                raise UsageError(f"{flag} {text!r} is not K=V", hint=f"{flag} room=lab")
            found[key] = value if equals else "true"
    return found


def saved_labels(folder: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode((folder / "labels.json").read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}


@worker.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
@click.option("--calibrate", is_flag=True, help="Measure devices, disk and link first (seconds), and keep that.")
@click.option("--name", default="", help="Whose link is measured, without a server here; the host name otherwise.")
def probe(output: str, calibrate: bool, name: str) -> None:
    """Show what this machine would offer as a worker, and what was measured of it."""
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    from .identity import check_name, default_name
    from .probe import lines

    for line in lines(output, calibrate, check_name(name or default_name())):
        click.echo(line)


@worker.command()
@click.argument("labels", nargs=-1, metavar="K=V...")
@click.option("--name", default="", help="Which worker of this machine; the host name otherwise.")
def label(labels: tuple[str, ...], name: str) -> None:
    """Label this machine's worker from its next start on; without arguments show its labels. `K=` removes one."""
    from protocol.security import home, private_directory

    from .identity import check_name, default_name

    folder = private_directory(home() / "workers" / check_name(name or default_name()))
    kept = {**saved_labels(folder), **pairs(labels, "label")}
    kept = {key: value for key, value in kept.items() if value}
    if labels:
        (folder / "labels.json").write_bytes(msgspec.json.encode(kept, order="sorted"))
    for key, value in sorted(kept.items()):
        click.echo(f"{key}={value}")


@worker.command()
@click.option("--join", metavar="-", default="", help="Read a join string from standard input. Default: ASTERISM_JOIN.")
@click.option("--name", default="", help="The worker's name; the host name otherwise.")
@click.option("--slots", type=click.IntRange(1), default=None, help="As for worker start, like those below.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="A label for `on`.")
@click.option("--resource", "resources", multiple=True, metavar="K=V", help="An amount: gpu=1, vram=16GiB, licence=2.")
@click.option("--root", "roots", multiple=True, metavar="DIR[:ro]", help="A folder whose files may be used.")
@click.option("--allow", multiple=True, metavar="PATTERN", help="Skills that run here without asking (process.*).")
@click.option("--skills", multiple=True, metavar="FILE|MODULE", help="Load skills from a file or a module.")
@click.option("--print", "show", is_flag=True, help="Print the unit file and write nothing.")
def install(
    join: str,
    name: str,
    slots: int | None,
    labels: tuple[str, ...],
    resources: tuple[str, ...],
    roots: tuple[str, ...],
    allow: tuple[str, ...],
    skills: tuple[str, ...],
    show: bool,
) -> None:
    """Write a systemd user unit that keeps a worker running on this machine, and say how to enable it.

    A join string buys the worker's identity now; none is written into the unit. Without one the worker joins this
    machine's own server.
    """
    if join not in ("", "-"):
        raise UsageError("a join string is a secret: it is not taken from the command line", hint="--join - < FILE")
    from protocol.security import home

    from .identity import check_name, default_name, obtain, parse_join_line
    from .unit import unit_name, unit_path, unit_text, write_unit

    called = check_name(name or default_name())
    pairs(labels, "--label")
    pairs(resources, "--resource")
    places = [
        str(Path(root).resolve()) if not root.endswith(":ro") else f"{Path(root[:-3]).resolve()}:ro" for root in roots
    ]
    sources = list(map(_source, skills))
    arguments = ["--slots", str(slots)] if slots else []
    for flag, values in (
        ("--label", labels), ("--resource", resources), ("--root", places), ("--allow", allow), ("--skills", sources),
    ):  # fmt: skip
        arguments += [word for value in values for word in (flag, value)]
    text = unit_text(called, arguments, os.environ)
    if show:
        click.echo(text, nl=False)
        return
    line = read_line(0) if join == "-" else os.environ.pop("ASTERISM_JOIN", "")
    if line:
        anyio.run(obtain, home(), called, parse_join_line(line))
    path = unit_path(unit_name(called), os.environ)
    write_unit(path, text)
    click.echo(str(path))
    click.echo(
        f"enable it: systemctl --user daemon-reload && systemctl --user enable --now {unit_name(called)}", err=True
    )
