"""Asterism: one request, many machines.

The front door. `run`, `Client`, `AsyncClient`, `Graph`, `File`, `skill`, `Resources`, `SkillContext` and the errors
are loaded when they are first used, and so is each command of `main()`: importing this module costs nothing. Nothing
inside imports it.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click

    from orchestrator.client.blocking import Client as Client
    from orchestrator.client.blocking import run as run
    from orchestrator.client.client import AsyncClient as AsyncClient
    from protocol.errors import AsterismError as AsterismError
    from protocol.errors import AwaitingApproval as AwaitingApproval
    from protocol.errors import BudgetSpent as BudgetSpent
    from protocol.errors import CalledWhileLoading as CalledWhileLoading
    from protocol.errors import Conflict as Conflict
    from protocol.errors import NoEligibleWorker as NoEligibleWorker
    from protocol.errors import NotAllowed as NotAllowed
    from protocol.errors import NotFound as NotFound
    from protocol.errors import PlannerAbstained as PlannerAbstained
    from protocol.errors import PlanRefused as PlanRefused
    from protocol.errors import RunFailed as RunFailed
    from protocol.errors import ServerUnreachable as ServerUnreachable
    from protocol.errors import TimedOut as TimedOut
    from protocol.errors import UsageError as UsageError
    from protocol.graph import Graph as Graph
    from protocol.resource import Resources as Resources
    from workers.context import SkillContext as SkillContext
    from workers.skill import File as File
    from workers.skill import skill as skill

_ERRORS = (
    "AsterismError",
    "AwaitingApproval",
    "BudgetSpent",
    "CalledWhileLoading",
    "Conflict",
    "NoEligibleWorker",
    "NotAllowed",
    "NotFound",
    "PlannerAbstained",
    "PlanRefused",
    "RunFailed",
    "ServerUnreachable",
    "TimedOut",
    "UsageError",
)
_PUBLIC = {
    "run": "orchestrator.client.blocking",
    "Client": "orchestrator.client.blocking",
    "AsyncClient": "orchestrator.client.client",
    "Graph": "protocol.graph",
    "File": "workers.skill",
    "skill": "workers.skill",
    "SkillContext": "workers.context",
    "Resources": "protocol.resource",
    **dict.fromkeys(_ERRORS, "protocol.errors"),
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'asterism' has no attribute {name!r}")
    found = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "main"]


# The command: sections of (name, where it is, what it does). A command is listed once it works.

_CLI = "orchestrator.cli"
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "run": (f"{_CLI}.run:run", "Plan a request and run it to the end."),
        "plan": (f"{_CLI}.plan:plan", "Compile a request and show the plan."),
        "template": ("asterism:TEMPLATE", "Saved requests: list, show, remove."),
        "exec": (f"{_CLI}.exec:exec_", "Run one command on the fleet."),
        "call": (f"{_CLI}.exec:call", "Call one skill on the fleet."),
    },
    "Look": {
        "ps": (f"{_CLI}.inspect:ps", "List the runs."),
        "status": (f"{_CLI}.inspect:status", "Show one run in short."),
        "tasks": (f"{_CLI}.inspect:tasks", "List the tasks of a run."),
        "explain": (f"{_CLI}.inspect:explain", "Say why a task is where it is."),
        "logs": (f"{_CLI}.inspect:logs", "Show what tasks wrote."),
        "events": (f"{_CLI}.inspect:events", "Show the events of a run."),
        "wait": (f"{_CLI}.wait:wait", "Wait until a run is settled."),
        "result": (f"{_CLI}.inspect:result", "Show what a run came to."),
        "get": (f"{_CLI}.inspect:get", "Bring values and files out."),
        "graph": (f"{_CLI}.graph:graph", "Show the task graph."),
        "diff": (f"{_CLI}.graph:diff", "Compare two versions of the graph."),
    },
    "Steer": {
        "cancel": (f"{_CLI}.steer:cancel", "Cancel a run or a task."),
        "pause": (f"{_CLI}.steer:pause", "Start nothing more of a run."),
        "resume": (f"{_CLI}.steer:resume", "Let a paused run go on."),
        "edit": (f"{_CLI}.steer:edit", "Change a graph while it runs."),
        "undo": (f"{_CLI}.steer:undo", "Take a version back."),
        "fork": (f"{_CLI}.steer:fork", "Run a graph again as a new run."),
        "retry": (f"{_CLI}.steer:retry", "Run a failed run again."),
        "approve": (f"{_CLI}.steer:approve", "Let a task run that waits for approval."),
        "reject": (f"{_CLI}.steer:reject", "Refuse a task that waits for approval."),
        "answer": (f"{_CLI}.steer:answer", "Answer a task that asks."),
        "resolve": (f"{_CLI}.steer:resolve", "Say what became of a lost task."),
        "rm": (f"{_CLI}.steer:rm", "Forget a settled run."),
        "gc": (f"{_CLI}.gc:gc", "Free the disk from what no run needs."),
    },
    "Fleet": {
        "server": ("asterism:SERVER", "The orchestrator: start, stop, info."),
        "worker": ("asterism:WORKER", "Workers: start, list, info, drain, ..."),
        "workers": (f"{_CLI}.inspect:workers", "List the workers."),
        "skills": (f"{_CLI}.inspect:skills", "List the skills on offer."),
        "connect": (f"{_CLI}.connect:connect", "Enrol as a client of a server."),
        "token": ("asterism:TOKEN", "Join tokens: create, list, revoke."),
        "predictor": ("asterism:PREDICTOR", "What is known of run times, and how well."),
        "journal": ("asterism:JOURNAL", "The journal: info, verify, export."),
        "doctor": (f"{_CLI}.doctor:doctor", "Check this machine, the server, the model."),
        "config": ("asterism:CONFIG", "The settings and their sources."),
    },
    "Try": {
        "demo": ("bench.cli:demo", "The tour: one request, three workers, one real failure."),
        "bench": ("bench.cli:bench", "Measure."),
    },
}
SERVER = {
    "start": (f"{_CLI}.server:start", "Start the orchestrator."),
    "stop": (f"{_CLI}.server:stop", "End it; runs go on when it starts again."),
    "info": (f"{_CLI}.server:info", "Show it, with the join string for workers."),
}
WORKER = {
    "start": ("workers.cli:start", "Start a worker on this machine."),
    "list": (f"{_CLI}.worker:list_", "List the workers."),
    "info": (f"{_CLI}.worker:info", "Show one worker in full."),
    "drain": (f"{_CLI}.worker:drain", "Give a worker no new work."),
    "dismiss": (f"{_CLI}.worker:dismiss", "Forget a worker, and end its credential."),
    "label": ("workers.cli:label", "Set the labels of a worker on this machine."),
    "install": ("workers.cli:install", "Write a systemd unit that keeps a worker running."),
    "probe": ("workers.cli:probe", "Show what this machine offers as a worker."),
}
TOKEN = {
    "create": (f"{_CLI}.token:create", "Make a join token for workers or clients."),
    "list": (f"{_CLI}.token:list_", "List the tokens, and who came with them."),
    "revoke": (f"{_CLI}.token:revoke", "End a token and its clients."),
}
PREDICTOR = {
    "stats": (f"{_CLI}.predictor:stats", "Show what is known, and how far off it was."),
}
JOURNAL = {
    "info": (f"{_CLI}.journal:info", "Show what it is and holds."),
    "verify": (f"{_CLI}.journal:verify", "Check every record."),
    "export": (f"{_CLI}.journal:export", "Write its events out, or copy it."),
}
TEMPLATE = {
    "list": (f"{_CLI}.template:list_", "List the templates."),
    "show": (f"{_CLI}.template:show_", "Show one as its file says it."),
    "remove": (f"{_CLI}.template:remove", "Remove a saved one."),
}
CONFIG = {"view": (f"{_CLI}.config:view", "Show every setting.")}


def _load(where: str, name: str) -> click.Command:
    module, _, attribute = where.partition(":")
    found = globals()[attribute] if module == "asterism" else getattr(importlib.import_module(module), attribute)
    if isinstance(found, dict):
        return _group(name, {"Commands": found}, f"The {name} commands.")
    command: click.Command = found
    command.name = name
    return command


def _group(name: str, sections: dict[str, dict[str, tuple[str, str]]], text: str) -> click.Group:
    """A group whose commands are imported when they are called, and listed without being imported."""
    import click

    table = {key: entry for section in sections.values() for key, entry in section.items()}

    class Lazy(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(table)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            entry = table.get(cmd_name)
            return _load(entry[0], cmd_name) if entry else None

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            for title, section in sections.items():
                with formatter.section(title):
                    formatter.write_dl([(key, short) for key, (_, short) in section.items()])

        def resolve_command(
            self, ctx: click.Context, args: list[str]
        ) -> tuple[str | None, click.Command | None, list[str]]:
            if args and args[0] not in table and not args[0].startswith("-"):
                import difflib

                near = difflib.get_close_matches(args[0], table, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                ctx.fail(f"There is no command {args[0]!r}.{hint}")
            return super().resolve_command(ctx, args)

    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    return Lazy(name, help=text, context_settings=settings, no_args_is_help=True)


def command() -> click.Group:
    """The whole command line as a click group."""
    import click

    group = _group(
        "asterism",
        SECTIONS,
        "One request, many machines: a task graph planned, dispatched and rewritten while it runs.\n\n"
        'Start with: asterism run "count the errors in logs/"',
    )

    def version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            from importlib.metadata import version as installed

            click.echo(f"asterism {installed('asterism')}")
            ctx.exit()

    option = click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=version, help="Show the version."
    )
    group.params.append(option)
    return group


def main(argv: list[str] | None = None) -> None:
    """The console script. Never a traceback (unless ASTERISM_DEBUG is set): an error's text and its exit code."""
    import click

    args = sys.argv[1:] if argv is None else argv
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        code = command().main(args, prog_name="asterism", standalone_mode=False)
    except click.ClickException as error:
        code = _usage(error, args)
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except SystemExit as ended:  # click ends so when whoever read us has gone: that is no error of ours
        code = 0 if type(sys.stdout).__name__.endswith("PacifyFlushWrapper") else ended.code
    except Exception as error:  # noqa: BLE001 - the last line of defence: everything becomes a message and a code
        code = _failed(error, args)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: click.ClickException, args: list[str]) -> int:
    import click

    if type(error).__name__ == "NoArgsIsHelpError":  # a group by itself: its help is the answer
        click.echo(error.format_message())
        return 0
    if _wants_json(args):
        from protocol.errors import UsageError

        return _failed(UsageError(error.format_message(), hint="see --help"), args)
    context = getattr(error, "ctx", None)
    if context is not None:
        click.echo(context.get_usage(), err=True)
    click.echo(f"error: {error.format_message()}", err=True)
    return 2


def _failed(error: Exception, args: list[str]) -> int:
    """Say what went wrong, as JSON on standard output with `-o json`; the exit code."""
    import click

    from protocol.errors import AsterismError
    from protocol.report import SCHEMA, error_report

    if os.environ.get("ASTERISM_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, AsterismError):
        found, code = error_report(error), error.exit_code
        text = f"{error.code}: {error}"
    else:
        hint = "this is a bug: please report it, with the output of the same command under ASTERISM_DEBUG=1"
        message = f"{type(error).__name__}: {error}"
        found, code = {"schema": SCHEMA, "error": {"code": "Bug", "ref": "", "message": message, "hint": hint}}, 1
        text = f"{message}\n  fix: {hint}"
    if _wants_json(args):
        import json

        click.echo(json.dumps(found))
    else:
        click.echo(text, err=True)
    return code


def _wants_json(args: list[str]) -> bool:
    """Whether the caller asked for JSON, read off the words themselves: the parser may have failed before it knew."""
    words = args[: args.index("--")] if "--" in args else args
    pairs = zip(words, [*words[1:], ""])
    forms = ("json", "jsonl")
    return any(
        (word in ("-o", "--output") and after in forms)
        or word in [f"{flag}{form}" for flag in ("-o", "--output=") for form in forms]
        for word, after in pairs
    )


if __name__ == "__main__":
    main()
