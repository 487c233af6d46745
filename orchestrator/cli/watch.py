"""Following one run from a command: show its events, pass on Ctrl-C, `d` and a person's decisions, until it ends.

The first Ctrl-C cancels the run with grace, the second leaves at once; `d` lets it go on without us. Without a
terminal nobody is asked: when only a person can bring the run on, it is left open and the exit code says so.
It must not know how the run was started or how its result is shown.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel
import click
import msgspec

from protocol.errors import AsterismError

from ..client.client import AsyncClient
from ..client.live import AsyncLive
from .progress import Progress
from .show import may_ask
from .view import View

Ending = Literal["settled", "detached", "killed", "blocked"]
"""How the watching ended: the run is final, goes on without us, was left in a hurry, or needs a person."""
_HOME_CHECK_S: Final = 1.0
_COUNT_S: Final = 1.0
_MOVING: Final = ("running", "ready")
_BLOCKED: Final = ("awaiting_approval", "waiting", "unknown")
LARGE_TASKS: Final = 2000
"""From here on a run is told by its failures and counts: its events would cost more than its tasks."""
_ASKS: Final = (
    *("run_settled", "approval_asked", "approval_given", "approval_refused"),
    *("task_waited", "task_resumed", "task_unknown"),
)
_TURNS: Final = (*_ASKS, "patch_accepted", "patch_refused", "run_paused", "run_resumed", "task_settled")


class Watcher:
    """Watches one run. `approve_all`: the person asked for exactly this (`exec`), so nothing is asked again."""

    def __init__(
        self, client: AsyncClient, live: AsyncLive, view: View, progress: Progress, *, approve_all: bool = False
    ) -> None:
        self._client = client
        self._live = live
        self._view = view
        self._progress = progress
        self._approve_all = approve_all
        self._ending: Ending = "settled"
        self._terminal = anyio.Lock()
        self._key_scope = anyio.CancelScope()
        self._ask_scope = anyio.CancelScope()
        self.cancelled = False
        """A Ctrl-C cancelled the run."""

    async def watch(self) -> Ending:
        """Until the run is settled or left. Raises: what the server or our own worker ended with."""
        try:
            tasks = (await self._client.ask("status", self._live.run))["tasks"]
            self._progress.large = self._view.wants != "everything" and sum(tasks.values()) >= LARGE_TASKS
            async with anyio.create_task_group() as group:
                if self._progress.large and self._view.wants == "story":
                    group.start_soon(self._counts)
                group.start_soon(self._signals, group.cancel_scope)
                group.start_soon(self._keys, group.cancel_scope)
                group.start_soon(self._home)
                group.start_soon(self._stuck, group.cancel_scope)
                await self._events(group.cancel_scope)
                group.cancel_scope.cancel()
        finally:
            self._view.close()
        return self._ending

    async def _events(self, scope: anyio.CancelScope) -> None:
        async with aclosing(self._rows()) as rows:
            async for row in rows:
                said = self._progress.feed(row)
                self._view.row(row, said)
                if row["kind"] in ("approval_asked", "task_waited", "task_unknown"):
                    await self._person(row)
                if await self._left_blocked(scope):
                    return

    def _rows(self) -> AsyncGenerator[Any, None]:
        """The events that the view shows; the server leaves out the others."""
        if self._view.wants == "asks":
            return self._live.events(kinds=_ASKS)
        if self._progress.large:
            return self._live.events(kinds=_TURNS, states=("failed",))
        return self._live.events()

    async def _counts(self) -> None:
        while True:
            self._progress.count((await self._client.ask("status", self._live.run))["tasks"])
            self._view.count()
            await anyio.sleep(_COUNT_S)

    async def _person(self, row: Mapping[str, Any]) -> None:
        """Ask the person at the terminal what the run asks."""
        task, kind = row.get("task", ""), row["kind"]
        if kind == "approval_asked" and self._approve_all:
            await self._live.approve(task)
            self._progress.asked.pop(task, None)
        elif kind == "approval_asked" and may_ask():
            told = await self._client.ask("explain", self._live.run, task=task)  # with what it would run
            why = str(told["why"]).partition("; asterism approve")[0]
            said = await self._ask(f"run {self._live.name}/{task} ({why})? [y/n]")
            if said.lower() in ("y", "yes"):
                await self._live.approve(task)
            elif said:
                await self._live.reject(task)
        elif kind == "task_waited" and row.get("what") == "ask" and may_ask():
            offered = f" ({', '.join(map(str, row['choices']))})" if row.get("choices") else ""
            said = await self._ask(f"{row.get('detail') or task}{offered}:")
            if said:
                await self._live.answer(task, _answer(said))

    async def _ask(self, question: str) -> str:
        """A line from the person; the event stream waits, the connection does not, and Ctrl-C ends the question."""
        self._view.pause()
        self._key_scope.cancel()
        try:
            async with self._terminal:
                with anyio.CancelScope() as self._ask_scope:
                    click.echo(question + " ", err=True, nl=False)
                    await anyio.wait_readable(sys.stdin)
                    return sys.stdin.readline().strip()
                return ""
        finally:
            self._view.resume()

    async def _left_blocked(self, scope: anyio.CancelScope) -> bool:
        """Leave a run that only a person can bring on, where there is none to ask; whether it was left."""
        if not self._progress.asked or may_ask() or not await self._blocked() or self._ending == "blocked":
            return False
        self._ending = "blocked"
        for task, why in self._progress.asked.items():
            self._view.note(f"{self._live.name}/{task} waits for a person: {why}")
        await self._live.detach()
        scope.cancel()
        return True

    async def _blocked(self) -> bool:
        """Whether nothing moves until a person decides."""
        tasks = (await self._client.ask("status", self._live.run))["tasks"]
        blocked = any(tasks.get(state) for state in _BLOCKED)
        return blocked and not any(tasks.get(state) for state in _MOVING)

    async def _signals(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT) as received:
            async for _ in received:
                if self.cancelled:
                    self._ending = "killed"
                    scope.cancel()
                    return
                self.cancelled = True
                self._ask_scope.cancel()
                self._view.note("cancelling; Ctrl-C again leaves at once")
                await self._live.cancel()

    async def _keys(self, scope: anyio.CancelScope) -> None:
        """`d` detaches. A question takes the keyboard away for its time."""
        if not may_ask():
            return
        while True:
            async with self._terminal:
                with anyio.CancelScope() as self._key_scope, _single_keys():
                    await anyio.wait_readable(sys.stdin)
                    if os.read(sys.stdin.fileno(), 1) in (b"d", b"D"):
                        await self._live.detach()
                        self._ending = "detached"
                        scope.cancel()
                        return
            await anyio.lowlevel.checkpoint()

    async def _stuck(self, scope: anyio.CancelScope) -> None:
        """The last task that moved may have ended without an event that the view shows."""
        while True:
            await anyio.sleep(_COUNT_S)
            if await self._left_blocked(scope):
                return

    async def _home(self) -> None:
        """A worker of ours that died takes its reason with it; say it once, the server decides what becomes of it."""
        while True:
            await anyio.sleep(_HOME_CHECK_S)
            try:
                self._client.check_home()
            except AsterismError as error:
                self._view.note(str(error))
                return


def _answer(text: str) -> Any:
    """What a person typed: JSON where it is JSON, else text."""
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.MsgspecError:
        return text


@contextmanager
def _single_keys() -> Iterator[None]:
    """The terminal hands over each key as it is pressed, unseen; Ctrl-C stays a signal."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
