"""`token create/list/revoke`: join tokens, which buy workers and clients their identities.

A token's text is printed once, to standard output, and is nowhere else. It must not know how tokens are kept.
"""

from __future__ import annotations

from typing import Any

import click

from protocol.errors import UsageError
from protocol.report import SCHEMA
from protocol.resource import span_s
from protocol.security import Join

from ..client.client import AsyncClient
from . import show
from .option import output_option, server_option, use

_ROLES = ("worker", "viewer", "submitter", "approver", "admin")


@click.command()
@click.option("--role", type=click.Choice(_ROLES), default="worker", show_default=True, help="What it buys.")
@click.option(
    "--uses", type=click.IntRange(0), default=1, show_default=True, help="How many may use it; 0: any number."
)
@click.option("--ttl", default="24h", show_default=True, metavar="TIME", help="How long it is good; 0: for ever.")
@output_option("json")
@server_option
def create(role: str, uses: int, ttl: str, output: str, server: str | None) -> None:
    """Make a join token and print the join string, this once.

    It is read by `asterism worker start --join -` or, for other roles, by `asterism connect HOST:PORT`.
    """
    limit = span_s(ttl)

    async def main(client: AsyncClient) -> tuple[Any, str]:
        answer = await client.connection.call("token", role=role, uses=uses, ttl_s=limit)
        tls = (await client.connection.call("info"))["tls"]
        address, ca = (tls["address"], tls["ca"]) if tls else (client.connection.endpoint.address, "")
        return answer, str(Join(address, answer["secret"], ca))

    answer, join = use(main, server)
    if output == "json":
        show.json_value({"schema": SCHEMA, "token": answer["token"], "role": role, "join": join})
        return
    click.echo(join)
    times = "any number of times" if not uses else "once" if uses == 1 else f"{uses} times"
    until = f"for {show.seconds(limit)}" if limit else "for ever"
    show.say(f"{answer['token']}: buys a {role} {times}, {until}; it is not shown again")


@click.command("list")
@output_option("json")
@server_option
def list_(output: str, server: str | None) -> None:
    """List the join tokens and the clients that came with them."""

    async def main(client: AsyncClient) -> Any:
        return await client.connection.call("tokens")

    answer = use(main, server)
    if output == "json":
        show.json_value(answer)
        return
    show.table(
        (
            ("token", lambda row: row["token"]),
            ("role", lambda row: row["role"]),
            ("state", lambda row: row["state"]),
            ("used", lambda row: f"{row['used']}/{row['uses']}" if row["uses"] else str(row["used"])),
            ("expires", lambda row: show.clock(row["expires_at"]) if row["expires_at"] else "never"),
            ("by", lambda row: row["by"]),
            ("clients", lambda row: ", ".join(client["name"] for client in row["clients"])),
        ),
        answer["tokens"],
    )


@click.command()
@click.argument("token", metavar="tN")
@output_option("json")
@server_option
def revoke(token: str, output: str, server: str | None) -> None:
    """End a join token and whoever came with it: the credentials of those clients and workers are good no more."""
    number = token.removeprefix("t")
    if not number.isdecimal():
        raise UsageError("that is not the name of a token", hint="write t3; asterism token list")  # it may be a secret

    async def main(client: AsyncClient) -> Any:
        return await client.connection.call("revoke", token=int(number))

    answer = use(main, server)
    if output == "json":
        show.json_value({"schema": SCHEMA, **answer})
    else:
        ended = f", and with it {answer['ended']} credentials" if answer["ended"] else ""
        show.say(f"{answer['token']} is revoked{ended}")
