"""`server start/stop/info`: the orchestrator as a daemon.

`start` becomes the server; everything else asks it. It must not know what a server is made of: orchestrator.runtime
does.
"""

from __future__ import annotations

import os
import time
from typing import Any

import click

from protocol.config import load
from protocol.errors import JournalBusy, ServerUnreachable, UsageError
from protocol.report import SCHEMA
from protocol.security import ServerFile, is_loopback
from protocol.setting import ServerDefaults
from protocol.unpickling import refuse_unpickling

from .. import local
from ..client.client import AsyncClient
from . import show
from .option import go, output_option, server_option, use


@click.command()
@click.option("--listen", metavar="HOST[:PORT]", help="Where to listen; port 0 takes a free one.")
@click.option("--name", "names", multiple=True, help="What others call this machine; the first is in join strings.")
@click.option("--tls", is_flag=True, help="Use TLS on loopback too; off loopback there is nothing else.")
@click.option("--detach", is_flag=True, help="Start it in the background and return.")
@click.option("--private", is_flag=True, help="End by itself after 5 minutes without run, watcher or client.")
@output_option("json")
def start(listen: str | None, names: tuple[str, ...], tls: bool, detach: bool, private: bool, output: str) -> None:
    """Start the orchestrator. Prints the join string for workers; with -o json errors, and the answer of --detach.

    Where other machines can reach it, it is its own certificate authority: every peer proves itself with a
    certificate, which a join string buys.
    """
    flags = {"daemon.listen": listen, "daemon.name": names or None, "daemon.tls": tls or None}
    settings = load(flags).settings
    if detach:
        if private:
            raise UsageError("--private servers are started by clients", hint="leave one of the two out")
        found = go(lambda: _detached(settings.daemon))
        if output == "json":
            show.json_value({"schema": SCHEMA, "address": found.address, "pid": found.pid, "join": found.join})
        else:
            click.echo(found.join)
        return
    from ..runtime import serve

    refuse_unpickling()
    serve(private=private, flags=flags)


async def _detached(daemon: ServerDefaults) -> ServerFile:
    environ, listen = dict(os.environ), daemon.listen
    found = local.read_endpoint(environ)
    if found is not None and listen and not listen.endswith(":0") and not _listens(found, listen):
        raise JournalBusy(f"a server listens on {found.address} already", hint="asterism server stop, then start it")
    arguments = [word for name in daemon.name for word in ("--name", name)] + ["--tls"] * daemon.tls
    return found or await local.start_server(environ, listen=listen, private=False, arguments=arguments)


def _listens(found: ServerFile, listen: str) -> bool:
    """Whether a running server is where another start would be: told by the port alone where that is for anybody."""
    host, _, port = listen.rpartition(":")
    return found.address == listen or (not is_loopback(listen) and host != "" and found.address.endswith(f":{port}"))


@click.command()
@server_option
def stop(server: str | None) -> None:
    """End the server; runs go on where they are when it starts again."""

    async def main() -> None:
        environ = dict(os.environ)
        if server is None and local.read_endpoint(environ) is None:
            raise ServerUnreachable("there is no server here", hint="nothing to stop")
        async with AsyncClient(server, home=False, start=False) as client:
            pid = client.connection.endpoint.pid
            await client.connection.call("shutdown")
        await local.gone(pid)
        show.say("the server has ended")

    go(main)


@click.command()
@output_option("json")
@server_option
def info(output: str, server: str | None) -> None:
    """Show the server: where it listens, what it holds, the join string for workers."""

    async def main(client: AsyncClient) -> tuple[Any, str]:
        return await client.connection.call("info"), client.connection.endpoint.join

    answer, join = use(main, server)
    if output == "json":
        show.json_value(answer)
        return
    rows = [(key.replace("_", " "), value) for key, value in answer.items() if key not in ("schema", "warnings", "tls")]
    rows += [("tls", tls_words(answer["tls"]))]
    show.table(
        (("what", lambda row: row[0]), ("is", lambda row: row[1])), [*rows, *((("join", join),) if join else ())]
    )
    for warning in answer.get("warnings", ()):
        show.say(f"warning: {warning}")


def tls_words(tls: dict[str, Any] | None, now: float | None = None) -> str:
    """The TLS state of a server in a line: from `info`."""
    if tls is None:
        return "none: this machine only"
    left_s = tls["until"] - (time.time() if now is None else now)
    age = f"its certificate is good for {show.seconds(left_s)}" if left_s > 0 else "its certificate has expired"
    return f"CA {tls['ca'][:16]}, {age}"
