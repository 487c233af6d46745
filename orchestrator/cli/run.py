"""`run`: a request or a plan file, to the end.

What a run printed is its report whether it succeeded or not; the exit code says which. It must not know how a run is
followed or drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import click

from protocol.errors import AwaitingApproval, DeadlineTooShort, Interrupted, UsageError
from protocol.ids import run_name
from protocol.report import SCHEMA, exit_code
from protocol.resource import span_s
from protocol.task import SLA_CLASSES
from protocol.workload import MODULE, is_workload

from ..client.client import AsyncClient
from ..client.live import AsyncLive
from ..client.result import Result
from ..client.submission import Work, declared_text, file_text, read_inputs
from . import forecast, show
from .option import has_server, output_option, read_pairs, server_option, use
from .plan import compile_request, read_plan_file, show_plan
from .planning import tell_who_plans
from .progress import Progress
from .spend import spend_text
from .view import choose
from .watch import Ending, Watcher

_BOUNDS: Final = ("rounds", "edits", "tasks", "proposals")
_BUDGET_COUNTS: Final = ("tasks", "depth", "attempts", "calls", "tokens")


@click.command()
@click.argument("request", required=False)
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    help="A plan file (JSON or TOML, or a recorded workflow) instead; a REQUEST then says in words what it is for.",
)
@click.option("--skills", multiple=True, metavar="FILE|MODULE", help="Skills for the worker here (repeatable).")
@click.option("--input", "inputs", multiple=True, metavar="K=V", help="A run input (repeatable).")
@click.option("--on-failure", type=click.Choice(["continue", "stop", "replan"]), help="After a task failed for good.")
@click.option("--deadline", metavar="TIME", help="End the run after this long, such as 90s or 10m.")
@click.option("--best-effort", is_flag=True, help="Start although the forecast says that the deadline can't be met.")
@click.option(
    "--schedule-grace", metavar="TIME", help="A task may be so long without a worker that could run it (30s)."
)
@click.option(
    "--prefer", type=click.Choice(["time", "price", "energy"]), help="What to spare once the deadline allows it."
)
@click.option("--budget", metavar="K=N,..", help="Caps, such as tokens=20000,price=0.5.")
@click.option(
    "--replan", metavar="K=N,..", help="Bounds of re-planning, such as rounds=5,edits=8,tasks=6,proposals=10."
)
@click.option("--review", type=click.IntRange(0), default=0, metavar="N", help="Ask the planner after every N tasks.")
@click.option("--priority", type=int, help="Among your own runs: higher goes first.")
@click.option("--sla", type=click.Choice(SLA_CLASSES), help="What it is for: a class goes before all of the next.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="A label of the run (repeatable).")
@click.option("--id", "key", metavar="KEY", help="Submitting the same KEY again is the same run.")
@click.option("--planner", metavar="NAME", help="The planner to use: llm or catalog.")
@click.option("--confirm", is_flag=True, help="Show the plan, ask, go.")
@click.option("--dry-run", is_flag=True, help="Show the plan, do nothing.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Save the report and all outputs there.")
@click.option("--detach", is_flag=True, help="Print the run's name and leave it running.")
@click.option("--local", type=click.IntRange(0), default=0, metavar="N", help="N workers besides here, for trials.")
@click.option("--slots", type=click.IntRange(0), default=0, metavar="S", help="Slots of each --local worker.")
@click.option("--root", "roots", multiple=True, metavar="DIR[:ro]", help="A further folder for here (repeatable).")
@click.option("--allow", multiple=True, metavar="PATTERN", help="Skills that need no approval on here (repeatable).")
@click.option("-q", "--quiet", is_flag=True, help="Only the result.")
@output_option("json", "jsonl")
@server_option
def run(
    request: str | None,
    file: Path | None,
    skills: tuple[str, ...],
    inputs: tuple[str, ...],
    on_failure: str | None,
    deadline: str | None,
    best_effort: bool,
    schedule_grace: str | None,
    prefer: str | None,
    budget: str | None,
    replan: str | None,
    review: int,
    priority: int | None,
    sla: str | None,
    labels: tuple[str, ...],
    key: str | None,
    planner: str | None,
    confirm: bool,
    dry_run: bool,
    out: Path | None,
    detach: bool,
    local: int,
    slots: int,
    roots: tuple[str, ...],
    allow: tuple[str, ...],
    quiet: bool,
    output: str,
    server: str | None,
) -> None:
    """Plan a REQUEST and run it to the end, or run a plan file.

    Ctrl-C cancels with grace, a second one leaves at once; d detaches.
    """
    work = _work(request, file)
    text = file_text(file) if file is not None else b""
    given = read_inputs(inputs, declared_text(text))
    skills += (MODULE,) if is_workload(text) else ()
    if confirm and not show.may_ask():
        raise UsageError("--confirm needs a terminal to ask on", hint="use --dry-run to see the plan, or leave it out")
    if dry_run and isinstance(work, Path):
        seen = None
        settings: dict[str, Any] = {"deadline": deadline or 0, "prefer": prefer or "", "best_effort": best_effort}
        if has_server(server):
            seen = use(
                lambda client: client.check(work, inputs=given, **settings),
                server,
                home=True,
                skills=skills,
                roots=roots,
            )
        show_plan({**read_plan_file(work, given), **({"forecast": seen} if seen else {})}, output)
        if seen and deadline and not best_effort and seen["least_s"] > span_s(deadline):
            show.say(f"a deadline of {deadline} can't be met")
            click.get_current_context().exit(DeadlineTooShort.exit_code)
        return
    options: dict[str, Any] = {
        "inputs": given,
        "id": key or "",
        "on_failure": on_failure or "",
        "deadline": deadline or 0,
        "prefer": prefer or "",
        "best_effort": best_effort,
        "schedule_grace": schedule_grace,
        "budget": read_budget(budget),
        "replan": read_bounds(replan),
        "review": review,
        "priority": priority,
        "sla": sla or "",
        "labels": read_pairs(labels, "label"),
        "planner": planner or "",
        "request": request or "",
    }

    async def main(client: AsyncClient) -> int:
        chosen: Work = work
        if (dry_run or confirm) and isinstance(work, str):
            chosen = await compile_request(client, work, given, planner or "")
        elif isinstance(work, str):
            await tell_who_plans(client, planner or "")
        if dry_run:
            show_plan(chosen, output)
            return 0
        if confirm:
            show_plan(read_plan_file(chosen, given) if isinstance(chosen, Path) else chosen, "text", err=True)
            if not click.confirm("run this?", err=True):
                return Interrupted.exit_code
        live = await client.submit(chosen, detach=detach, **options)
        if detach:
            _print_detached(live, output)
            return 0
        return await follow(client, live, output, quiet=quiet, out=out)

    click.get_current_context().exit(
        use(
            main,
            server,
            home=True,
            start=True,
            skills=skills,
            local=local,
            slots=slots,
            roots=roots,
            allow=allow,
        )
    )


async def follow(
    client: AsyncClient,
    live: AsyncLive,
    output: str,
    *,
    quiet: bool = False,
    out: Path | None = None,
    approve_all: bool = False,
    shows: Any = None,
) -> int:
    """Watch a run to its end, print what it came to, save it; the exit code.

    `shows` prints the outputs of a succeeded run in another way (`exec`).
    """
    progress = Progress()
    view = choose(output, progress, quiet=quiet)
    watcher = Watcher(client, live, view, progress, approve_all=approve_all)
    ending: Ending = await watcher.watch()
    if ending == "killed":
        return Interrupted.exit_code
    if ending == "detached":
        _print_detached(live, output)
        return 0
    result = await client.result_of(live.run)
    if out is not None:
        saved = await anyio.to_thread.run_sync(result.save, out)
        show.say(f"saved {len(saved)} files in {out}")
    if ending == "blocked":
        error = AwaitingApproval(
            f"{live.name} waits for a person",
            hint=f"asterism status {live.name}; it goes on when approved, answered or resolved",
        )
        result.report["error"] = error.to_wire()
    _print_report(result, output, shows, quiet)
    if ending == "blocked":
        return AwaitingApproval.exit_code
    return Interrupted.exit_code if watcher.cancelled else exit_code(result.report)


def read_budget(text: str | None) -> dict[str, float]:
    """`tokens=20000,price=0.5`. Raises: UsageError."""
    found: dict[str, float] = {}
    for key, value in read_pairs(text.split(",") if text else (), "budget").items():
        if key not in (*_BUDGET_COUNTS, "price", "wall"):
            raise UsageError(f"there is no budget for {key}", hint=f"one of {', '.join(_BUDGET_COUNTS)}, price, wall")
        try:
            found[key] = int(value) if key in _BUDGET_COUNTS else float(value)
        except ValueError:
            raise UsageError(f"{value!r} is no amount of {key}", hint=f"write {key}=NUMBER") from None
    return found


def read_bounds(text: str | None) -> dict[str, int]:
    """`rounds=5,tasks=10`. Raises: UsageError."""
    found: dict[str, int] = {}
    for key, value in read_pairs(text.split(",") if text else (), "replan").items():
        if key not in _BOUNDS or not value.isdecimal():
            raise UsageError(f"{key}={value} is no bound of re-planning", hint=f"{', '.join(_BOUNDS)}, each =NUMBER")
        found[key] = int(value)
    return found


def print_failures(report: Mapping[str, Any], limit: int = 20) -> None:
    """What went wrong, on standard error: the run's error, then each failed task's."""
    failed = [(name, row) for name, row in report["tasks"].items() if row["state"] == "failed"]
    for name, row in failed[:limit]:
        error = row.get("error") or {}
        show.say(f"{report['run']}/{name} failed: {error.get('code', '')}: {error.get('message', '')}")
    if len(failed) > limit:
        show.say(f"and {len(failed) - limit} more")
    error = report.get("error")
    if error:
        show.say(
            f"{error['code']}: {error.get('message') or report['state']}"
            + (f"\n  fix: {error['hint']}" if error.get("hint") else "")
        )


def _work(request: str | None, file: Path | None) -> Work:
    if request is None and file is None:
        raise UsageError("say what to run", hint='asterism run "REQUEST", or asterism run -f PLAN.json')
    if file is not None:
        return file
    assert request is not None
    if not request.strip():
        raise UsageError("the request is empty", hint='say what to do: asterism run "count the errors in logs/"')
    return request


def _print_detached(live: AsyncLive, output: str) -> None:
    if output == "text":
        click.echo(run_name(live.run))
    else:
        show.json_line({"schema": SCHEMA, "run": run_name(live.run)})


def _print_report(result: Result, output: str, shows: Any, quiet: bool) -> None:
    report = result.report
    if output == "json":
        show.json_value(report)
        return
    if output == "jsonl":
        show.json_line(report)
        return
    if report["state"] != "succeeded":
        print_failures(report)
    outputs: Sequence[tuple[str, Any]] = list(result.outputs.items())
    if shows is not None:
        shows(result)
    elif len(outputs) == 1:
        show.value(outputs[0][1])
    else:
        for name, value in outputs:
            click.echo(f"{name}:")
            show.value(value)
    if quiet and report["state"] == "succeeded":
        return
    span = show.seconds(report["makespan_s"])
    said = f", {forecast.beside(report['forecast'])}" if report.get("forecast") else ""
    show.say(f"{report['run']} {report['state']} in {span}, {show.many(len(report['tasks']), 'task')}{said}")
    if report["spend"]["tokens"] or report["spend"]["price"]:
        show.say(spend_text(report["spend"]))
