"""`gc`: free the disk from what no run needs. It must not know what that is: the server does."""

from __future__ import annotations

from typing import Any

import click

from protocol.resource import span_s

from ..client.client import AsyncClient
from . import show
from .option import output_option, server_option, use


@click.command()
@click.option("--grace", default="1h", show_default=True, metavar="TIME", help="Leave what was used this recently.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@output_option("json")
@server_option
def gc(grace: str, dry_run: bool, output: str, server: str | None) -> None:
    """Remove the values and files that no run names any more, and what gone workers left behind.

    `asterism rm RUN` takes a run's events and log lines away; what only it named goes with the next gc.
    """
    limit = span_s(grace)

    async def main(client: AsyncClient) -> Any:
        return await client.connection.call("gc", grace_s=limit, dry=dry_run)

    answer = use(main, server)
    if output == "json":
        show.json_value(answer)
        return
    did = "would remove" if dry_run else "removed"
    show.say(f"{did} {show.many(answer['artifacts'], 'artifact')} ({show.size(answer['artifact_bytes'])})")
    if answer["partial"]:
        uploads = show.many(answer["partial"], "broken upload")
        show.say(f"{did} {uploads} ({show.size(answer['partial_bytes'])})")
    if answer["workers"]:
        show.say(f"{did} what {show.many(answer['workers'], 'gone worker')} left behind")
    show.say(f"{show.many(answer['kept'], 'artifact')} in use or fresh")
