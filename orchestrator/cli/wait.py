"""`wait`: until a run is settled, or nothing of it goes on but by a person's word on a lost task.

It must not know how a run is shown.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import anyio
import click

from protocol.errors import AsterismError, AwaitingApproval
from protocol.report import exit_code

from ..client.client import AsyncClient
from ..client.live import AsyncLive
from . import show
from .option import output_option, run_argument, server_option, use
from .run import print_failures

_LOOK_S: Final = 1.0
_STILL_MOVING: Final = ("running", "ready", "awaiting_approval", "waiting")


@click.command()
@run_argument
@click.option("--timeout", metavar="TIME", help="Give up after this long (exit 124); the run goes on.")
@output_option("json")
@server_option
def wait(run: int, timeout: str | None, output: str, server: str | None) -> None:
    """Wait until a run is settled; exits as `run` would have. Ctrl-C only stops waiting.

    Exits 8 as soon as nothing goes on but by a word of a person on a lost task (asterism resolve).
    """

    async def main(client: AsyncClient) -> int:
        live = await client.live(run)
        state = ""
        async with anyio.create_task_group() as group:
            group.start_soon(_until_unknown, client, live, group.cancel_scope)
            state = await live.wait(timeout)
            group.cancel_scope.cancel()
        if not state:
            return await _say_unknown(client, live, output)
        if state == "succeeded" and output != "json":  # the report of a large run is large
            show.say(f"{live.name} {state}")
            return 0
        report = await client.report(live.run)
        if output == "json":
            show.json_value(report)
        else:
            print_failures(report)
            show.say(f"{report['run']} {report['state']}")
        return exit_code(report)

    click.get_current_context().exit(use(main, server))


async def _until_unknown(client: AsyncClient, live: AsyncLive, scope: anyio.CancelScope) -> None:
    """End the waiting when unknown tasks are all that the run still waits for."""
    while True:
        with suppress(AsterismError):  # a server that is away comes back, or ends the other wait
            tasks = (await client.ask("status", live.run))["tasks"]
            if tasks.get("unknown") and not any(tasks.get(state) for state in _STILL_MOVING):
                scope.cancel()
        await anyio.sleep(_LOOK_S)


async def _say_unknown(client: AsyncClient, live: AsyncLive, output: str) -> int:
    report = await client.report(live.run)
    lost = [name for name, row in report["tasks"].items() if row["state"] == "unknown"]
    error = AwaitingApproval(
        f"nobody knows what became of {', '.join(lost)}",
        hint=f"asterism resolve {live.name}/{lost[0]} --succeeded VALUE | --retry | --fail; see asterism explain",
    )
    if output == "json":
        show.json_value({**report, "error": error.to_wire()})
    else:
        show.say(f"{error.code}: {error}")
    return error.exit_code
