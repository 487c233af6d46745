"""Looking: `ps status tasks workers skills result get explain logs events`.

Each asks the server once and shows the answer; `-o json` is the answer itself. They start a private server only to
look back at a journal. It must not know how answers come about.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import click

from protocol.builtin_model import NO_MODEL_FIX
from protocol.errors import NotFound
from protocol.ids import PersonRef, run_name
from protocol.report import SCHEMA, exit_code

from ..client.client import AsyncClient
from ..client.result import save_value
from . import show
from .option import RunParam, TaskParam, output_option, run_argument, server_option, use
from .predictor import accuracy_text
from .run import print_failures
from .share import share_text
from .spend import spend_text

_NAMES_SHOWN: Final = 4
"""Of a list in an event's line."""


def _ask(method: str, server: str | None, run: int | None = None, **body: Any) -> Any:
    async def main(client: AsyncClient) -> Any:
        return await (client.connection.call(method, **body) if run is None else client.ask(method, run, **body))

    return use(main, server)


@click.command()
@output_option("json")
@server_option
def ps(output: str, server: str | None) -> None:
    """List the runs, the newest last."""
    answer = _ask("ps", server)
    if output == "json":
        show.json_value(answer)
        return
    show.table(
        (
            ("run", lambda row: row["run"]),
            ("state", lambda row: show.state_text(row["state"])),
            ("submitted", lambda row: show.clock(row["submitted_at"])),
            ("took", lambda row: show.seconds(row["makespan_s"])),
            ("tasks", lambda row: show.counts(row["tasks"])),
            ("tokens", lambda row: f"{row['tokens']:,}" if row["tokens"] else ""),
            ("request", lambda row: show.short(row["request"])),
        ),
        answer["runs"],
    )


@click.command()
@run_argument
@output_option("json")
@server_option
def status(run: int, output: str, server: str | None) -> None:
    """Show one run in short, and what its tasks wait for."""
    answer = _ask("status", server, run)
    if output == "json":
        show.json_value(answer)
        return
    show.table(
        (("what", lambda row: row[0]), ("is", lambda row: row[1])),
        (
            ("run", answer["run"]),
            ("state", show.state_text(answer["state"])),
            ("request", answer["request"]),
            ("submitted", show.clock(answer["submitted_at"])),
            ("took", show.seconds(answer["makespan_s"])),
            ("version", answer["version"]),
            ("tasks", show.counts(answer["tasks"])),
            *((("spent", used),) if (used := spend_text(answer["spend"])) else ()),
            *((("share", share_text(answer["share"])),) if answer["state"] == "open" else ()),
            *((f"{task} waits for", why) for task, why in answer["waiting"].items()),
        ),
    )
    if answer.get("error"):
        show.say(f"{answer['error']['code']}: {answer['error']['message']}")


@click.command()
@run_argument
@click.option("--children", is_flag=True, help="The children of maps and spawns too.")
@output_option("json")
@server_option
def tasks(run: int, children: bool, output: str, server: str | None) -> None:
    """List the tasks of a run."""
    answer = _ask("tasks", server, run, children=children)
    if output == "json":
        show.json_value(answer)
        return
    show.table(
        (
            ("task", lambda row: row[0]),
            ("state", lambda row: show.state_text(row[1]["state"])),
            ("skill", lambda row: row[1]["skill"]),
            ("worker", lambda row: row[1]["worker"]),
            ("tries", lambda row: row[1]["attempts"]),
            ("took", lambda row: show.seconds(_took(row[1]))),
            ("note", lambda row: _note(row[1])),
        ),
        answer["tasks"].items(),
    )


@click.command()
@output_option("json")
@server_option
def workers(output: str, server: str | None) -> None:
    """List the workers that are connected or known."""
    answer = _ask("workers", server)
    if output == "json":
        show.json_value(answer)
        return
    print_workers(answer)


def print_workers(answer: Mapping[str, Any]) -> None:
    show.table(
        (
            ("worker", lambda row: row["worker"]),
            ("state", lambda row: show.state_text(row["state"])),
            ("running", lambda row: f"{row['running']}/{row['slots']}"),
            ("devices", lambda row: ", ".join(row["devices"])),
            ("labels", lambda row: ", ".join(f"{key}={value}" for key, value in row["labels"].items())),
            ("skills", lambda row: row["skills"]),
            ("sandbox", lambda row: row["sandbox"] or ""),
            ("model", lambda row: "yes" if row["model"] else "no"),
        ),
        answer["workers"],
    )
    for row in answer["workers"]:
        if row["state"] == "quarantine":
            show.say(f"{row['worker']} is in quarantine: {row['short']}")
    if answer["workers"] and not any(row["model"] for row in answer["workers"]):
        show.say(f"nobody can run llm.* and agent.run: no worker has a model\n  fix: {NO_MODEL_FIX}")


@click.command()
@click.argument("name", required=False)
@output_option("json")
@server_option
def skills(name: str | None, output: str, server: str | None) -> None:
    """List the skills on offer; with NAME show one in full."""
    answer = _ask("skills", server)
    rows = [row for row in answer["skills"] if name is None or row["name"] == name]
    if name is not None and not rows:
        raise NotFound(f"there is no skill {name}", hint="asterism skills lists what there is")
    if output == "json":
        show.json_value({**answer, "skills": rows})
    elif name is not None:
        show.json_value(rows[0])
    else:
        show.table(
            (
                ("skill", lambda row: row["name"]),
                ("effect", lambda row: row["effect"]),
                ("arguments", lambda row: ", ".join(_params(row["params"]))),
                ("does", lambda row: show.short(row["doc"].partition("\n")[0])),
            ),
            rows,
        )


@click.command()
@run_argument
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Save the report and all outputs there.")
@output_option("json")
@server_option
def result(run: int, out: Path | None, output: str, server: str | None) -> None:
    """Show what a run came to; exits as `run` would have."""

    async def main(client: AsyncClient) -> int:
        found = await client.result_of(run)
        if out is not None:
            saved = await anyio.to_thread.run_sync(found.save, out)
            show.say(f"saved {len(saved)} files in {out}")
        if output == "json":
            show.json_value(found.report)
        else:
            for name, value in found.outputs.items():
                if len(found.outputs) > 1:
                    click.echo(f"{name}:")
                show.value(value)
            print_failures(found.report)
            show.say(f"{found.run} {found.state}")
            if (accuracy := found.report["predictions"])["n"]:
                show.say(f"run times were {accuracy_text(accuracy)}")
        return exit_code(found.report) if found.report["state"] in ("succeeded", "failed", "cancelled") else 0

    click.get_current_context().exit(use(main, server))


@click.command()
@click.argument("where", type=TaskParam(run_alone=True), metavar="RUN[/TASK][/POINTER]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Bring the value and its files there.")
@output_option("json")
@server_option
def get(where: PersonRef, out: Path | None, output: str, server: str | None) -> None:
    """Bring out the value of a task (or all outputs of a run), and files with --out."""

    async def main(client: AsyncClient) -> None:
        if where.task is None:
            report = await client.report(where.run or 0)
            name, run, value = report["run"], report["run"], report["outputs"]
        else:
            run = run_name(where.run) if where.run else "last"
            name, value = where.task, await client.value(run, where.task, where.pointer)
        if out is not None:
            result = await client.result_of(run)
            out.mkdir(parents=True, exist_ok=True)
            saved = await anyio.to_thread.run_sync(save_value, value, out, name, result.fetch_file)
            for path in saved:
                show.say(str(path))
        elif output == "json":
            show.json_value({"schema": SCHEMA, "value": value})
        else:
            show.value(value)

    use(main, server)


@click.command()
@click.argument("task", type=TaskParam(), metavar="RUN/TASK")
@output_option("json")
@server_option
def explain(task: PersonRef, output: str, server: str | None) -> None:
    """Say why a task is where it is: what it waits for, who refused it and why, how it was placed."""
    answer = _ask("explain", server, task.run or 0, task=task.task)
    if output == "json":
        show.json_value(answer)
        return
    why = f": {answer['why']}" if answer["why"] else ""
    click.echo(f"{answer['run']}/{answer['task']} {show.state_text(answer['state'])}{why}")
    for upstream in answer["waits_for"]:
        click.echo(f"  waits for {upstream}")
    for verdict in answer["workers"]:
        reasons = "; ".join(verdict["reasons"]) or "eligible"
        click.echo(f"  {verdict['worker']}: {'can take it' if verdict['eligible'] else 'refused'}: {reasons}")
    for attempt in answer["attempts"]:
        error = attempt.get("error") or {}
        why = f": {error.get('code')}: {error.get('message')}" if error else ""
        took = show.seconds(_took(attempt))
        state = show.state_text(attempt["state"])
        click.echo(f"  #{attempt['number']} on {attempt['worker']} ({attempt['device']}) {state} {took}{why}")
        if attempt["why"]:
            click.echo(f"     placed there: {attempt['why']}")
        if said := attempt.get("predicted"):
            low, high = show.span(said["low_s"]), show.span(said["p95_s"])
            rests = f"{said['by']}, {show.many(said['n'], 'run')}" if said["n"] else said["by"]
            click.echo(f"     expected there: {show.span(said['run_s'])} ({low} to {high}; {rests})")
    for line in answer["history"]:
        click.echo(f"  {line}")


@click.command()
@click.argument("where", type=TaskParam(run_alone=True), metavar="RUN[/TASK]", default="last", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run is settled.")
@output_option("jsonl")
@server_option
def logs(where: PersonRef, follow: bool, output: str, server: str | None) -> None:
    """Show what tasks wrote: their output, and ctx.log."""

    async def main(client: AsyncClient) -> None:
        async for row in client.logs(where.run or 0, where.task or "", follow=follow):
            if output == "jsonl":
                show.json_line(row)
            else:
                name = "" if where.task else f"{row['task']} | "
                click.echo(f"{name}{row['text']}", err=row["stream"] == "stderr")

    use(main, server)


@click.command()
@click.argument("run", type=RunParam(), default="last", required=False)
@click.option("--fleet", is_flag=True, help="Of the server and its workers instead: who came, went or was refused.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run is settled.")
@click.option("--after", type=int, default=0, metavar="SEQ", help="Begin behind this event.")
@output_option("jsonl")
@server_option
def events(run: int, fleet: bool, follow: bool, after: int, output: str, server: str | None) -> None:
    """Show the events of a run, numbered; a stream goes on where it stopped when the server restarts."""

    async def main(client: AsyncClient) -> None:
        rows = client.events(run, after=after, follow=follow)
        async for row in client.fleet_events(after=after, follow=follow) if fleet else rows:
            if output == "jsonl":
                show.json_line(row)
                continue
            of_run = f"{row['run']}/" if fleet and "task" in row else ""
            name = of_run + row.get("task", "") + (f"#{row['attempt']}" if row.get("attempt") else "")
            known = ("seq", "at", "run", "task", "attempt", "kind")
            rest = " ".join(
                f"{key}={_brief(value)}" for key, value in row.items() if key not in known and not _empty(value)
            )
            click.echo(
                f"{row['seq']:>6} {show.clock(row['at'], millis=True)} {row['kind']:<20} {name:<16} {rest}".rstrip()
            )

    use(main, server)


def _empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, list | dict) and not value)


def _brief(value: Any) -> str:
    """A value of an event in a line: lists by the names of what they hold, objects by what they say."""
    if isinstance(value, list) and all(
        isinstance(one, str) or (isinstance(one, dict) and "name" in one) for one in value
    ):
        names = [one if isinstance(one, str) else str(one["name"]) for one in value]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        return show.short(", ".join(names[:_NAMES_SHOWN]) + more, 120)
    if isinstance(value, dict) and all(not one or isinstance(one, str | int | float) for one in value.values()):
        return show.short(" ".join(f"{key}:{_amount(key, one)}" for key, one in value.items() if one), 80)
    return show.short(value if isinstance(value, str) else show.compact(value), 80)


def _amount(key: str, value: Any) -> str:
    return (
        show.size(value)
        if key in ("memory", "vram", "disk", "bytes", "size")
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _took(row: Mapping[str, Any]) -> float | None:
    if row["started_s"] is None or row["finished_s"] is None:
        return None
    return float(row["finished_s"] - row["started_s"])


def _note(row: Mapping[str, Any]) -> str:
    if row.get("error"):
        return show.short(f"{row['error']['code']}: {row['error']['message']}")
    return show.counts(row["children"]) if row.get("children") else ""


def _params(schema: Mapping[str, Any]) -> list[str]:
    needed = schema.get("required", ())
    return [name if name in needed else f"[{name}]" for name in schema.get("properties", {})]
