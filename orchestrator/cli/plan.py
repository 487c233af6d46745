"""`plan`: a request compiled and shown, or saved as a template; nothing runs.

It must not know how runs are followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from protocol.errors import PlanRefused, UsageError
from protocol.plan import parse_plan, plan_document

from ..client.client import AsyncClient
from ..client.submission import plan_text, read_inputs
from . import forecast, show, template
from .option import output_option, read_pairs, server_option, use
from .planning import tell_who_plans


@click.command()
@click.argument("request")
@click.option("--skills", multiple=True, metavar="FILE|MODULE", help="Skills that may be planned (repeatable).")
@click.option("--input", "inputs", multiple=True, metavar="K=V", help="A run input (repeatable).")
@click.option("--planner", metavar="NAME", help="The planner to use: llm or catalog.")
@click.option("--save", metavar="NAME", help="Save it as a template: the like is then served without a planner.")
@click.option("--param", "params", multiple=True, metavar="K=V", help="With --save: the value V is open (repeatable).")
@click.option("--doc", default="", metavar="TEXT", help="With --save: what it is for.")
@click.option("--force", is_flag=True, help="With --save: replace a template of that name.")
@output_option("json")
@server_option
def plan(
    request: str,
    skills: tuple[str, ...],
    inputs: tuple[str, ...],
    planner: str | None,
    save: str | None,
    params: tuple[str, ...],
    doc: str,
    force: bool,
    output: str,
    server: str | None,
) -> None:
    """Compile a REQUEST into a plan and show it; nothing runs."""
    given, opened = read_inputs(inputs), read_pairs(params, "parameter")
    if len(opened) < len(params):
        raise UsageError("a parameter is named twice", hint="one --param for each")
    if (opened or doc or force) and save is None:
        raise UsageError("--param, --doc and --force belong to --save", hint="add --save NAME")
    if save is not None and not force:
        template.require_free(save)

    async def main(client: AsyncClient) -> Mapping[str, Any]:
        return await compile_request(client, request, given, planner or "")

    document = use(main, server, home=True, start=True, skills=skills)
    if save is not None:
        saved = template.save(save, request, document, opened, given, doc=doc)
        document = saved if output != "text" else document
    show_plan(document, output)
    who = document.get("planner", {})
    if output == "text" and who.get("kind"):
        show.say(f"planned by {who['kind']}: {who.get('message') or show.many(len(document['tasks']), 'task')}")
        for remark in who.get("remarks", ()):
            show.say(f"  {remark}")
    examples = who.get("examples")
    if examples:
        show.say(f"the planner was shown what served {', '.join(one['run'] for one in examples)}")


async def compile_request(
    client: AsyncClient, request: str, inputs: Mapping[str, Any], planner: str
) -> Mapping[str, Any]:
    """The plan document of a request, and who planned it. Raises: PlannerAbstained, PlanRefused."""
    home = await client.join()
    await tell_who_plans(client, planner)
    document = await client.connection.call("plan", request=request, inputs=dict(inputs), planner=planner, home=home)
    if not isinstance(document, dict) or not document.get("tasks"):
        raise PlanRefused("the planner wrote no task", hint="say it in other words, or give a plan file with -f")
    return document


def read_plan_file(path: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A plan file as it would be read. Raises: PlanRefused with every problem."""
    return plan_document(parse_plan(plan_text(path, inputs), inputs=tuple(inputs)))


def show_plan(plan: Any, output: str, *, err: bool = False) -> None:
    """One line a task, or the document."""
    if output != "text":
        show.json_value(plan)
        return
    for task in plan["tasks"]:
        on = f"  on {', '.join(map(_place, task['on']))}" if task.get("on") else ""
        click.echo(f"{task['id']}: {task['skill']}{on}  {show.short(_args(task.get('args', {})), 90)}", err=err)
    if plan.get("forecast"):
        for line in forecast.lines(plan["forecast"]):
            click.echo(line, err=err)


def _place(place: Any) -> str:
    return f"where {place['ref']} ran" if isinstance(place, dict) else str(place)


def _args(args: Mapping[str, Any]) -> str:
    parts = []
    for key, value in args.items():
        if isinstance(value, dict) and set(value) == {"ref"}:
            ref = value["ref"]
            parts.append(f"{key}=<{' | '.join(ref) if isinstance(ref, list) else ref}>")
        else:
            parts.append(f"{key}={value if isinstance(value, str) else show.compact(value)}")
    return " ".join(parts)
