"""`server start/stop/info`: the orchestrator as a daemon.

`start` becomes the server; everything else asks it. It must not know what a server is made of: orchestrator.runtime
does.
"""

from __future__ import annotations

import os
from typing import Any

import click

from protocol.config import load
from protocol.errors import JournalBusy, ServerUnreachable, UsageError
from protocol.report import SCHEMA
from protocol.security import Join, ServerFile

from .. import local
from ..client.client import AsyncClient
from . import show
from .option import go, output_option, server_option, use


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")
@click.option("--detach", is_flag=True, help="Start it in the background and return.")
@click.option("--private", is_flag=True, help="End by itself after 5 minutes without run, watcher or client.")
@output_option("json")
def start(listen: str | None, detach: bool, private: bool, output: str) -> None:
    """Start the orchestrator. Prints the join string for workers; with -o json errors, and the answer of --detach."""
    settings = load({"daemon.listen": listen}).settings
    if detach:
        if private:
            raise UsageError("--private servers are started by clients", hint="leave one of the two out")
        found = go(lambda: _detached(settings.daemon.listen))
        join = str(Join(found.address, found.token))
        if output == "json":
            show.json_value({"schema": SCHEMA, "address": found.address, "pid": found.pid, "join": join})
        else:
            click.echo(join)
        return
    from ..runtime import serve

    serve(listen=settings.daemon.listen, private=private)


async def _detached(listen: str) -> ServerFile:
    environ = dict(os.environ)
    found = local.read_endpoint(environ)
    if found is not None and listen and not listen.endswith(":0") and found.address != listen:
        raise JournalBusy(f"a server listens on {found.address} already", hint="asterism server stop, then start it")
    return found or await local.start_server(environ, listen=listen, private=False)


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
        endpoint = client.connection.endpoint
        ours = bool(endpoint.pid)  # a credential that was bought with a token is nobody else's
        return await client.connection.call("info"), str(Join(endpoint.address, endpoint.token)) if ours else ""

    answer, join = use(main, server)
    if output == "json":
        show.json_value(answer)
        return
    rows = [(key.replace("_", " "), value) for key, value in answer.items() if key not in ("schema", "warnings")]
    show.table(
        (("what", lambda row: row[0]), ("is", lambda row: row[1])), [*rows, *((("join", join),) if join else ())]
    )
    for warning in answer.get("warnings", ()):
        show.say(f"warning: {warning}")
