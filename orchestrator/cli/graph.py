"""`graph` and `diff`: the graph of a run, as it is or was, and what changed between two versions.

It must not know how a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from protocol.report import SCHEMA

from ..client.client import AsyncClient
from . import picture, show
from .option import output_option, run_and_versions, run_argument, server_option, use

_DRAW: Final = {"mermaid": picture.mermaid, "dot": picture.dot, "svg": picture.svg}


@click.command()
@run_argument
@click.option("--version", "version", type=click.IntRange(1), metavar="N", help="As it was at version N.")
@output_option("mermaid", "dot", "json", "svg")
@server_option
def graph(run: int, version: int | None, output: str, server: str | None) -> None:
    """Show the task graph of a run."""
    found = use(lambda client: _graph(client, run, version), server)
    if output == "json":
        show.json_value(found)
    elif output in _DRAW:
        click.echo(_DRAW[output](found))
    else:
        upstream: dict[str, list[str]] = {}
        for source, target, _ in found["edges"]:
            upstream.setdefault(target, []).append(source)
        show.table(
            (
                ("task", lambda task: task["id"]),
                ("state", lambda task: show.state_text(task["state"])),
                ("skill", lambda task: task["skill"]),
                ("after", lambda task: ", ".join(upstream.get(task["id"], ()))),
            ),
            found["tasks"],
        )


@click.command()
@click.argument("args", nargs=-1, required=True, metavar="[RUN] N M")
@output_option("json")
@server_option
def diff(args: tuple[str, ...], output: str, server: str | None) -> None:
    """Show what changed in a run's graph between versions N and M."""
    run, (one, two) = run_and_versions(args, 2)

    async def main(client: AsyncClient) -> tuple[Any, Any]:
        return await _graph(client, run, one), await _graph(client, run, two)

    before, after = use(main, server)
    found = compare(before, after)
    if output == "json":
        show.json_value({"schema": SCHEMA, "run": after["run"], "from": one, "to": two, **found})
        return
    for name in found["added"]:
        click.echo(f"+ {name}")
    for name in found["removed"]:
        click.echo(f"- {name}")
    for name, keys in found["changed"].items():
        for key, (old, new) in keys.items():
            click.echo(f"~ {name} {key}: {show.compact(old)} -> {show.compact(new)}")
    if not any(found.values()):
        show.say("no difference")


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Tasks added and removed by id, and per changed task each key with its old and new value."""
    old, new = _specs(before), _specs(after)
    changed: dict[str, dict[str, list[Any]]] = {}
    for name in old.keys() & new.keys():
        keys = sorted(old[name].keys() | new[name].keys())
        rows = {
            key: [old[name].get(key), new[name].get(key)] for key in keys if old[name].get(key) != new[name].get(key)
        }
        if rows:
            changed[name] = rows
    return {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": dict(sorted(changed.items())),
    }


def _specs(graph: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        task["id"]: {key: value for key, value in task.items() if key not in ("id", "state")} for task in graph["tasks"]
    }


async def _graph(client: AsyncClient, run: int, version: int | None) -> Any:
    return await client.ask("graph", run, **({"version": version} if version else {}))
