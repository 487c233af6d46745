"""What many commands share: the server to use, the form of the answer, how a run or a task is named; and the client
that a command works with.

It must not know any one command.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio
import click

from protocol.config import load
from protocol.errors import AsterismError, UsageError
from protocol.ids import PersonRef, parse_ref

from .. import local
from ..client.client import AsyncClient

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def server_option(command: F) -> F:
    return click.option(
        "--server", metavar="HOST:PORT", help="Use this server instead of the local one.", default=None
    )(command)


def output_option(*forms: str, default: str = "text") -> Callable[[F], F]:
    """`-o`: text for reading, or one of `forms`."""
    choices = click.Choice([*({default: None} | dict.fromkeys(forms))])
    return click.option("-o", "--output", type=choices, default=default, show_default=True, help="Form of the answer.")


class RunParam(click.ParamType):  # type: ignore[type-arg]
    """`r7`, `7` or `last`, as a number (0: the last one)."""

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = read_ref(str(value))
        if found is None or found.task is not None or found.attempt is not None:
            self.fail(f"{value!r} is not a run: write r7, or last", param, ctx)
        return found.run or 0


class TaskParam(click.ParamType):  # type: ignore[type-arg]
    """`r7/scan`, `last/scan` or `/scan` (of the last run), with `#2` for an attempt and `/a/0` for a pointer."""

    name = "task"

    def __init__(self, *, run_alone: bool = False) -> None:
        self._run_alone = run_alone

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PersonRef:
        if isinstance(value, PersonRef):
            return value
        found = read_ref(str(value))
        if found is None or (found.task is None and not self._run_alone):
            wanted = "r7 or r7/scan" if self._run_alone else "r7/scan, or last/scan"
            self.fail(f"{value!r} names no task: write {wanted}", param, ctx)
        return found


def read_ref(text: str) -> PersonRef | None:
    """`parse_ref`, and a run as a bare number."""
    head, slash, rest = text.partition("/")
    return parse_ref(f"r{head}{slash}{rest}" if head.isdecimal() else text)


def run_argument(command: F) -> F:
    return click.argument("run", type=RunParam(), default="last", required=False)(command)


def run_and_versions(args: Sequence[str], count: int) -> tuple[int, list[int]]:
    """`[RUN] N ...`: an optional run, then so many version numbers. Raises: click.UsageError."""
    if len(args) not in (count, count + 1) or not all(text.isdecimal() for text in args[-count:]):
        raise click.UsageError(f"write {'a version number' if count == 1 else f'{count} version numbers'}, such as 2")
    run = RunParam().convert(args[0], None, None) if len(args) > count else 0
    return run, [int(text) for text in args[-count:]]


def use(
    work: Callable[[AsyncClient], Awaitable[T]],
    server: str | None = None,
    *,
    home: bool = False,
    start: bool = False,
    **options: Any,
) -> T:
    """Run `work` with a client. Without `start` a private server is only started to look back at its journal.

    Raises: the AsterismError that ended it, taken out of the groups that concurrency wraps it in.
    """

    async def main() -> T:
        async with AsyncClient(server, home=home, start=start, **options) as client:
            return await work(client)

    return go(main)


def has_server(server: str | None) -> bool:
    """Whether there is a server to ask: named by a flag or a setting, or running here."""
    settings = load({"server": server}).settings
    environ = {**os.environ, **({"ASTERISM_HOME": settings.home} if settings.home else {})}
    return bool(settings.server) or local.read_endpoint(environ) is not None


def go(main: Callable[[], Awaitable[T]]) -> T:
    """One event loop, one piece of work. Raises: the AsterismError inside an exception group, alone."""
    try:
        return anyio.run(main)
    except BaseExceptionGroup as group:
        found = first_error(group)
        if found is None:
            raise
        raise found from None


def first_error(group: BaseExceptionGroup[BaseException]) -> AsterismError | KeyboardInterrupt | None:
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop()
        if isinstance(error, AsterismError | KeyboardInterrupt):
            return error
        if isinstance(error, BaseExceptionGroup):
            stack.extend(reversed(error.exceptions))
    return None


def read_pairs(pairs: Sequence[str], what: str) -> dict[str, str]:
    """`k=v` options as a table. Raises: UsageError."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"{pair!r} is no {what}", hint="write key=value")
        found[key] = text
    return found
