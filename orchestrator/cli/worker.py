"""`worker list/info/drain`: the workers as the orchestrator sees them. (`worker start` is the worker's own command.)

It must not know how a worker works.
"""

from __future__ import annotations

from typing import Any

import click
import msgspec

from protocol.errors import NotFound
from protocol.profile import DeviceProfile, LinkProfile, device_text
from protocol.report import SCHEMA
from protocol.resource import span_s

from ..client.client import AsyncClient
from . import show
from .inspect import print_workers
from .option import output_option, server_option, use

_Announced = tuple[tuple[DeviceProfile, ...], LinkProfile | None]


@click.command("list")
@output_option("json")
@server_option
def list_(output: str, server: str | None) -> None:
    """List the workers that are connected or known."""
    answer = use(_workers, server)
    if output == "json":
        show.json_value(answer)
    else:
        print_workers(answer)


@click.command()
@click.argument("name")
@output_option("json")
@server_option
def info(name: str, output: str, server: str | None) -> None:
    """Show one worker in full."""
    answer = use(_workers, server)
    rows = [row for row in answer["workers"] if row["worker"] == name]
    if not rows:
        raise NotFound(f"there is no worker {name}", hint="asterism worker list")
    if output == "json":
        show.json_value({"schema": SCHEMA, **rows[0]})
    else:
        row = dict(rows[0])
        hardware, link = msgspec.convert((row.pop("hardware"), row.pop("link")), _Announced)
        told = [(key, value) for key, value in row.items() if key != "devices" or not hardware]
        told += [("device", device_text(one)) for one in hardware]
        if link is not None:
            told.append(("link", f"{link.latency_s * 1e3:.3g} ms, {link.bandwidth / 1e6:.0f} MB/s"))
        show.table((("what", lambda one: one[0].replace("_", " ")), ("is", lambda one: one[1])), told)


@click.command()
@click.argument("name")
@click.option("--deadline", default="60s", show_default=True, metavar="TIME", help="Hand back what runs longer.")
@output_option("json")
@server_option
def drain(name: str, deadline: str, output: str, server: str | None) -> None:
    """Give a worker no new work and let it finish what it has."""
    limit = span_s(deadline)

    async def main(client: AsyncClient) -> Any:
        return await client.connection.call("drain", worker=name, deadline_s=limit)

    use(main, server)
    if output == "json":
        show.json_value({"schema": SCHEMA, "worker": name, "deadline_s": limit})
    else:
        show.say(f"{name} is draining")


@click.command()
@click.argument("name")
@output_option("json")
@server_option
def dismiss(name: str, output: str, server: str | None) -> None:
    """Forget a worker that will not come back: its credential ends at once, and others may have its name."""

    async def main(client: AsyncClient) -> Any:
        return await client.connection.call("dismiss", worker=name)

    answer = use(main, server)
    if output == "json":
        show.json_value({"schema": SCHEMA, **answer})
    else:
        show.say(f"{name} is dismissed")


async def _workers(client: AsyncClient) -> Any:
    return await client.connection.call("workers")
