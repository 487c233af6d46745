"""Steering: `cancel retry pause resume edit approve reject answer resolve fork undo rm`.

Each asks for one thing and says what the server made of it. It must not decide whether it is allowed: the server does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from protocol.errors import PlanRefused, UsageError
from protocol.ids import PersonRef, run_name
from protocol.report import SCHEMA

from ..client.client import AsyncClient
from ..client.submission import plan_text
from . import show
from .option import RunParam, TaskParam, output_option, run_and_versions, run_argument, server_option, use
from .run import follow


def _tell(method: str, said: str, server: str | None, output: str, run: int, **body: Any) -> None:
    """Ask, then say `said` (with {run}) or, with -o json, give the answer under the run's name."""

    async def main(client: AsyncClient) -> tuple[str, Any]:
        name = run_name(run) if run else (await client.ask("status", 0))["run"]
        return name, await client.ask(method, name, **body)

    name, answer = use(main, server)
    if output == "json":
        show.json_value({"schema": SCHEMA, "run": name, **(answer if isinstance(answer, dict) else {})})
    else:
        show.say(said.format(run=name))


@click.command()
@click.argument("where", type=TaskParam(run_alone=True), metavar="RUN[/TASK]")
@output_option("json")
@server_option
def cancel(where: PersonRef, output: str, server: str | None) -> None:
    """Cancel a run or one task, with grace."""
    task = {"task": where.task} if where.task else {}
    what = f"/{where.task}" if where.task else ""
    _tell("cancel", "{run}" + what + " is being cancelled", server, output, where.run or 0, **task)


@click.command()
@run_argument
@output_option("json")
@server_option
def pause(run: int, output: str, server: str | None) -> None:
    """Start nothing more of a run; what runs goes on."""
    _tell("pause", "{run} is paused", server, output, run)


@click.command()
@run_argument
@output_option("json")
@server_option
def resume(run: int, output: str, server: str | None) -> None:
    """Let a paused run go on."""
    _tell("resume", "{run} goes on", server, output, run)


@click.command()
@click.argument("run", type=RunParam())
@click.option("-f", "--file", type=click.Path(path_type=Path), required=True, help="The patch (JSON or TOML).")
@click.option("--why", default="", help="Kept with the version and shown.")
@output_option("json")
@server_option
def edit(run: int, file: Path, why: str, output: str, server: str | None) -> None:
    """Change the graph of a run while it runs: a new version, accepted whole or refused with every problem."""
    try:
        document = msgspec.json.decode(plan_text(file))
    except msgspec.MsgspecError as error:
        raise PlanRefused(f"{file} is not JSON: {error}", hint="mend that place", where=str(file)) from None

    async def main(client: AsyncClient) -> tuple[str, int]:
        live = await client.live(run)
        return live.name, await live.patch(document, why=why)

    name, version = use(main, server)
    if output == "json":
        show.json_value({"schema": SCHEMA, "run": name, "version": version})
    else:
        show.say(f"{name} is at version {version}")


@click.command()
@click.argument("where", type=TaskParam(), metavar="RUN/TASK")
@click.option("-m", "--message", default="", help="Kept with the approval and shown.")
@output_option("json")
@server_option
def approve(where: PersonRef, message: str, output: str, server: str | None) -> None:
    """Let a task run that waits for approval."""
    said = "{run}/" + str(where.task) + " is approved"
    _tell("approve", said, server, output, where.run or 0, task=where.task, message=message)


@click.command()
@click.argument("where", type=TaskParam(), metavar="RUN/TASK")
@click.option("-m", "--message", default="", help="Kept with the refusal and shown.")
@output_option("json")
@server_option
def reject(where: PersonRef, message: str, output: str, server: str | None) -> None:
    """Refuse a task that waits for approval."""
    said = "{run}/" + str(where.task) + " is rejected"
    _tell("reject", said, server, output, where.run or 0, task=where.task, message=message)


@click.command()
@click.argument("where", type=TaskParam(), metavar="RUN/TASK")
@click.argument("value")
@output_option("json")
@server_option
def answer(where: PersonRef, value: str, output: str, server: str | None) -> None:
    """Answer a task that asks. VALUE is JSON, or else text."""
    said = "{run}/" + str(where.task) + " has its answer"
    _tell("answer", said, server, output, where.run or 0, task=where.task, value=_json_or_text(value))


@click.command()
@click.argument("where", type=TaskParam(), metavar="RUN/TASK")
@click.option("--succeeded", metavar="VALUE", help="The effect happened; VALUE (JSON, or else text) is its result.")
@click.option("--retry", "again", is_flag=True, help="The effect did not happen: try it again.")
@click.option("--fail", is_flag=True, help="The task failed.")
@output_option("json")
@server_option
def resolve(where: PersonRef, succeeded: str | None, again: bool, fail: bool, output: str, server: str | None) -> None:
    """Say what became of a task that was lost after its effect began: one of the three."""
    if (succeeded is not None) + again + fail != 1:
        raise UsageError(
            "say one thing of what became of it", hint="asterism resolve RUN/TASK --succeeded VALUE, --retry or --fail"
        )
    how = "retry" if again else "fail" if fail else "succeeded"
    body = {"value": _json_or_text(succeeded)} if succeeded is not None else {}
    said = "{run}/" + f"{where.task} is resolved: {how}"
    _tell("resolve", said, server, output, where.run or 0, task=where.task, how=how, **body)


@click.command()
@run_argument
@click.option("--at", type=click.IntRange(1), metavar="V", help="The version to begin from (the last one).")
@click.option("--detach", is_flag=True, help="Print the new run's name and leave it running.")
@output_option("json", "jsonl")
@server_option
def fork(run: int, at: int | None, detach: bool, output: str, server: str | None) -> None:
    """Start a new run with the graph of another; results of equal inputs are reused."""
    _start("fork", run, {} if at is None else {"at": at}, detach, output, server)


@click.command()
@run_argument
@click.option("--from-failed", is_flag=True, required=True, help="Reuse what succeeded, run the rest again.")
@click.option("--detach", is_flag=True, help="Print the new run's name and leave it running.")
@output_option("json", "jsonl")
@server_option
def retry(run: int, from_failed: bool, detach: bool, output: str, server: str | None) -> None:
    """Run a failed run again, as a new run."""
    _start("retry", run, {}, detach, output, server)


@click.command()
@click.argument("args", nargs=-1, required=True, metavar="[RUN] N")
@output_option("json")
@server_option
def undo(args: tuple[str, ...], output: str, server: str | None) -> None:
    """Take back version N of a run's graph, if nothing of it was dispatched."""
    run, (version,) = run_and_versions(args, 1)
    _tell("undo", f"version {version} of {{run}} is undone", server, output, run, version=version)


@click.command()
@click.argument("runs", type=RunParam(), nargs=-1, required=True, metavar="RUN...")
@output_option("json")
@server_option
def rm(runs: tuple[int, ...], output: str, server: str | None) -> None:
    """Forget settled runs: their events, values and log lines."""

    async def main(client: AsyncClient) -> list[str]:
        names: list[str] = []
        for run in runs:
            names.append(run_name(run) if run else (await client.ask("status", 0))["run"])
            await client.ask("rm", names[-1])
            if output != "json":
                show.say(f"{names[-1]} is removed")
        return names

    names = use(main, server)
    if output == "json":
        show.json_value({"schema": SCHEMA, "run": names[0], "runs": names})


def _start(method: str, run: int, body: dict[str, Any], detach: bool, output: str, server: str | None) -> None:
    """A new run out of an old one, with a `here` of its own, followed as `run` does."""

    async def main(client: AsyncClient) -> int:
        home = await client.join()
        found = await client.ask(method, run, home=home, **body)
        live = await client.live(int(found["run"]))
        if detach:
            await live.detach()
            if output == "text":
                click.echo(live.name)
            else:
                show.json_line({"schema": SCHEMA, "run": live.name})
            return 0
        show.say(f"{live.name} is a fork of {run_name(run) if run else 'the last run'}")
        return await follow(client, live, output)

    click.get_current_context().exit(use(main, server, home=True))


def _json_or_text(text: str) -> Any:
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.MsgspecError:
        return text
