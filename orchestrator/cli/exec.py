"""`exec` and `call`: one command or one skill on the fleet, as a graph of one task.

Whoever types the command has approved it: its approvals are given as they are asked. It must not know how runs are
followed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from protocol.errors import NotFound, UsageError
from protocol.graph import Graph, Handle

from ..client.client import AsyncClient
from ..client.result import Result
from ..client.submission import read_inputs
from . import show
from .option import output_option, server_option, use
from .run import follow

_SLOT: Final = "{}"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--on", "on", multiple=True, metavar="WHERE", help="A worker, a label, gpu, any, all (repeatable).")
@click.option("--gpu", type=float, metavar="N", help="It needs so many GPUs.")
@click.option("--cpu", type=float, metavar="N", help="It needs so many cores.")
@click.option("--each", metavar="FILE", help="Once per line of FILE (- for standard input); {} stands for the line.")
@click.option("--limit", type=click.IntRange(0), default=0, help="With --each: at most so many at once.")
@click.option("--cwd", metavar="DIR", help="The folder to run in; here it is the current one.")
@click.option("--collect", multiple=True, metavar="GLOB", help="Files that it makes and you want (repeatable).")
@click.option("--timeout", metavar="TIME", help="Kill it after this long.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Save the report and all files there.")
@click.option("-q", "--quiet", is_flag=True, help="Only what the command prints.")
@output_option("json", "jsonl")
@server_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def exec_(
    on: tuple[str, ...],
    gpu: float | None,
    cpu: float | None,
    each: str | None,
    limit: int,
    cwd: str | None,
    collect: tuple[str, ...],
    timeout: str | None,
    out: Path | None,
    quiet: bool,
    output: str,
    server: str | None,
    command: tuple[str, ...],
) -> None:
    """Run a command on the fleet; its output comes back here.

    The words after -- are its arguments, never a shell line. Without --on or --gpu it runs here.
    """
    lines = _lines(each) if each is not None else None
    graph = Graph(inputs={"items": lines} if lines is not None else None)
    argv: list[Any] = list(command)
    if gpu and not on:
        on = ("any",)
    options: dict[str, Any] = {"on": list(on) or None, "timeout": timeout}
    if lines is not None:
        item: Handle = graph.input("items").each()
        argv = [item if word == _SLOT else word for word in argv] if _SLOT in argv else [*argv, item]
        options["map"] = {"limit": limit, "on_error": "collect"} if limit else {"on_error": "collect"}
    needs = {key: amount for key, amount in (("gpu", gpu), ("cpu", cpu)) if amount is not None}
    if needs:
        options["needs"] = needs
    folder = cwd or (str(Path.cwd()) if set(on) <= {"here"} else "")
    args: dict[str, Any] = {"argv": argv, **({"collect": list(collect)} if collect else {})}
    args |= {"cwd": folder} if folder else {}
    graph.output("exec", graph.add("process.run", id="exec", args=args, **options))

    async def main(client: AsyncClient) -> int:
        live = await client.submit(graph)
        code = await follow(client, live, output, quiet=quiet, out=out, approve_all=True, shows=_print_streams)
        return code if lines is None or code else _worst(await client.report(live.run))

    click.get_current_context().exit(use(main, server, home=True, start=True, allow=("process.run",)))


@click.command()
@click.argument("skill")
@click.argument("args", nargs=-1, metavar="[K=V]...")
@click.option("--on", "on", multiple=True, metavar="WHERE", help="A worker, a label, gpu, any, all (repeatable).")
@click.option("--skills", multiple=True, metavar="FILE|MODULE", help="Skills for the worker here (repeatable).")
@click.option("-q", "--quiet", is_flag=True, help="Only the value.")
@output_option("json", "jsonl")
@server_option
def call(
    skill: str,
    args: tuple[str, ...],
    on: tuple[str, ...],
    skills: tuple[str, ...],
    quiet: bool,
    output: str,
    server: str | None,
) -> None:
    """Call one skill on the fleet. Values are JSON, or else text: `asterism call text.count file=notes.txt`."""
    given = read_inputs(args)

    async def main(client: AsyncClient) -> int:
        await client.join()
        known = {row["name"]: row for row in (await client.connection.call("skills"))["skills"]}
        if skill not in known:
            raise NotFound(f"there is no skill {skill}", hint="asterism skills lists what there is")
        graph = Graph()
        typed = _typed(args, given, known[skill]["params"])
        graph.output("value", graph.add(skill, id="call", on=list(on) or None, args=typed))
        live = await client.submit(graph)
        return await follow(client, live, output, quiet=quiet, approve_all=True)

    click.get_current_context().exit(use(main, server, home=True, start=True, skills=skills))


def _typed(pairs: tuple[str, ...], given: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """What a parameter declares as text or a file stays the text that was typed, `7` included."""
    raw = dict(pair.split("=", 1) for pair in pairs)
    text = {name for name, row in schema.get("properties", {}).items() if row.get("type") in ("string", "file")}
    return {name: raw[name] if name in text else value for name, value in given.items()}


def _lines(path: str) -> list[str]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", hint="give a file with one item a line, or - for input") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {error}", hint="give a text file with one item a line") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"{path} has no lines", hint="give a file with one item a line")
    return lines


def _print_streams(result: Result) -> None:
    """The output of each command in order, on the stream that it was written to."""
    value = result.outputs.get("exec")
    for row in value if isinstance(value, list) else [value]:
        if not isinstance(row, dict):
            continue
        if row.get("error"):
            show.say(f"{row['error'].get('code')}: {row['error'].get('message')}")
            continue
        click.echo(row.get("stdout", ""), nl=False)
        click.echo(row.get("stderr", ""), nl=False, err=True)


def _worst(report: Mapping[str, Any]) -> int:
    """1 if any of the mapped commands failed (their errors are collected in place)."""
    value = report["outputs"].get("exec") or ()
    return int(any(isinstance(row, dict) and row.get("error") for row in value))
