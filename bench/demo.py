"""`asterism demo`: one request on three worker processes, one of which is killed on the way.

All but the model is real: a private server with the planner that asks models, workers that are processes of their own,
SIGKILL. The model is a scripted one that says a recorded plan, over HTTP and at a model's pace, or one of the person's
own. What is told afterwards is read from the run's event stream. Nothing outside one temporary folder is written.
Times are printed, never asserted.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from textwrap import TextWrapper
from typing import Any, Final

import anyio
import click

from orchestrator.client.client import AsyncClient
from orchestrator.client.live import AsyncLive
from planner.scripted.server import ScriptedServer
from protocol.errors import AsterismError, Interrupted, ServerUnreachable, Unavailable
from protocol.report import exit_code

from .model import environment
from .own_model import own_model
from .recorded import RATE, RecordedModel
from .scenario import Machine, Scenario
from .story import Killed, Story
from .tour import Tour

REQUEST: Final = (
    "Survey the Python standard library of this machine: measure every part in parallel, rank the hardest functions "
    "and look closer at what stands out, find near-duplicate functions on the GPU, list eval and exec calls if there "
    "are any, keep a verified copy of the hardest modules on the edge board, and write a report."
)
SKILLS: Final = "bench.code"
GPU: Final = "gpu-sim"
EDGE: Final = "edge-sim"
AWAY_S: Final = 0.8
"""How long the killed worker stays away."""
LATE: Final = 14
CRASH_AFTER: Final = 16
"""With --crash the orchestrator is killed once gpu-sim is back; if that was never killed, when so many are measured."""
CRASHED_S: Final = 0.3
LIVE_S: Final = 600.0
"""How long a plan that nobody knows beforehand may run."""


class Demo:
    """One demo. `run` does it all; the exit code is the run's. `writer` says who writes the plan."""

    def __init__(self, fleet: Scenario, crash: bool, writer: str, live: bool) -> None:
        self._fleet = fleet
        self._crash = crash
        self._writer = writer
        self._live = live
        self._library = sysconfig.get_paths()["stdlib"]
        self._gpu_killed = False
        self._server_killed = False

    async def run(self) -> int:
        began = time.monotonic()
        client = self._fleet.client(
            home=True, root=self._fleet.new_folder("here"), roots=(f"{self._library}:ro",), skills=(SKILLS,)
        )
        async with client:
            await self._start(client)
            story = Story(await client.join())
            started = time.monotonic()
            say(f'"{REQUEST}"\n')
            say(
                f"here reads {self._library} (2 slots). {GPU} (2 slots, label gpu) and {EDGE} (1 slot, half the speed, "
                f"20 Mbit/s, 20 ms) are simulated: "
                f"processes on this machine with empty folders of their own. "
                f"All were up in {started - began:.1f} s.\n\n{self._writer}\n"
            )
            limit = LIVE_S if self._live else 0.0
            live = await client.submit(REQUEST, inputs={"dir": self._library}, deadline=limit)
            report = await self._watch(client, live, story)
            self._tell(story, report)
            if report["tasks"]:
                await self._show(client, live, report)
            return exit_code(report)

    async def _start(self, client: AsyncClient) -> None:
        """The simulated machines and `here`, at once."""
        machines = (
            Machine(GPU, 2, self._fleet.new_folder(GPU), ("gpu",), ("gpu=1",), (SKILLS,), simulate="bandwidth=1Gbit"),
            Machine(
                EDGE,
                1,
                self._fleet.new_folder(EDGE),
                ("edge",),
                (),
                (SKILLS,),
                simulate="speed=0.5,bandwidth=20Mbit,latency=20ms",
            ),
        )
        async with anyio.create_task_group() as group:
            group.start_soon(client.join)
            for machine in machines:
                group.start_soon(self._fleet.start_worker, client, machine)
        await self._fleet.joined(client, GPU, EDGE)

    async def _watch(self, client: AsyncClient, live: AsyncLive, story: Story) -> dict[str, Any]:
        """Follow the run, kill what is to be killed on the way, until it is settled."""
        tour = Tour(story, ("here", GPU, EDGE))
        tour.open()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._look, client, live, tour, story)
                async with aclosing(live.events()) as rows:
                    async for row in rows:
                        story.feed(row)
                        self._strike(client, story, group)
                        if row["kind"] in ("approval_asked", "task_waited", "task_unknown"):
                            group.start_soon(self._decline, live, row)
                group.cancel_scope.cancel()
        finally:
            tour.close()
        return dict(await client.report(live.run))

    async def _decline(self, live: AsyncLive, row: Mapping[str, Any]) -> None:
        """A model of the person's may write tasks that ask; a demo asks nobody."""
        with suppress(AsterismError):
            if row["kind"] == "approval_asked":
                await live.reject(row["task"], "a demo asks nobody")
            elif row["kind"] == "task_unknown" or row.get("what") == "ask":
                await live.cancel(row["task"])

    async def _look(self, client: AsyncClient, live: AsyncLive, tour: Tour, story: Story) -> None:
        """What the events don't say: the state of the workers, what ready tasks wait for."""
        while True:
            try:
                rows = (await client.connection.call("workers"))["workers"]
                tour.workers = {story.name(row["worker"]): row for row in rows}
                away = {name for name, row in tour.workers.items() if row["state"] == "away"}
                for name in [name for worker in away for name in story.held_by(worker)]:
                    why = str((await client.ask("explain", live.run, task=name))["why"])
                    if "away" in why:
                        story.saw_reason(name, why)
            except (ServerUnreachable, Unavailable):
                tour.workers = {}
            await anyio.sleep(0.05)

    def _strike(self, client: AsyncClient, story: Story, group: anyio.abc.TaskGroup) -> None:
        """Kill gpu-sim once it has finished two parts and holds one; with --crash the orchestrator after it.

        Where `here` is so quick that there is no such moment, it is killed late in the measuring with what it holds.
        """
        held = story.held_by(GPU)
        parts = [name for name in held if "." in name]
        late = story.parts_done() >= LATE and bool(held)
        if not self._gpu_killed and ((story.finished_on(GPU) >= 2 and parts) or late):
            self._gpu_killed = True
            killed = Killed(GPU, time.time(), story.finished_on(GPU), held)
            self._fleet.kill_worker(GPU)
            story.killed.append(killed)
            group.start_soon(self._bring_back, client, killed)
        back = any(killed.back_at for killed in story.killed)
        missed = not self._gpu_killed and story.parts_done() >= CRASH_AFTER
        if self._crash and not self._server_killed and (back or missed):
            self._server_killed = True
            killed = Killed("orchestrator", time.time(), settled=story.settled())
            pid = self._fleet.server_pid
            self._fleet.kill_server()
            story.killed.append(killed)
            group.start_soon(self._restart, killed, pid)

    async def _bring_back(self, client: AsyncClient, killed: Killed) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(AWAY_S)
            killed.back_at = time.time()
            await self._fleet.restart_worker(client, GPU)

    async def _restart(self, killed: Killed, pid: int) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(CRASHED_S)
            await self._fleet.restart_server(pid)
            killed.back_at = time.time()

    def _tell(self, story: Story, report: dict[str, Any]) -> None:
        for at, text in story.lines(report):
            say(f"{at:>8}  {text}", indent=10)
        if report["tasks"] and not self._gpu_killed:
            say(f"          {GPU} never held a part after finishing two, so it was not killed this time.")

    async def _show(self, client: AsyncClient, live: AsyncLive, report: dict[str, Any]) -> None:
        rows = report["outputs"].get("ranking") or []
        if not self._live and rows:
            top = rows[0]
            say(f"\nHardest: {top['function']} in {top['module']}, complexity {top['complexity']}.")
        uri = report["outputs"].get("report")
        if self._fleet.keep and uri:
            target = self._fleet.folder / "report.md"
            await client.fetch(live.run, uri, target)
            say(f"Report: {target}")
            home = self._fleet.environ["ASTERISM_HOME"]
            say(f"Look back: export ASTERISM_HOME={home}")
            say("  asterism explain last/twins      asterism graph last -o mermaid      asterism events last")
        else:
            say("Keep the report and the journal: asterism demo --keep")
        if not self._crash:
            say("Kill the orchestrator too: asterism demo --crash")
        if not self._live:
            say("A model of your own writes the plan: asterism demo --live")
        say('Your own: asterism run "find(., *.py) -> count(TODO) each"')


async def run_demo(crash: bool, keep: bool, live: bool) -> int:
    """The command. Raises: whatever ended the server or a worker, with its last words; Unavailable for a model that
    can't be asked."""
    code, failed = Interrupted.exit_code, None
    async with anyio.create_task_group() as group:
        group.start_soon(_interrupted, group.cancel_scope)
        try:
            code = await play(crash, keep, live)
        except AsterismError as error:
            failed = error
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return code


async def _interrupted(scope: anyio.CancelScope) -> None:
    """A closed terminal ends it as Ctrl-C does, workers and all."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            scope.cancel()


async def play(crash: bool, keep: bool, live: bool) -> int:
    """The demo from its first process to its last; the exit code."""
    parent = os.environ.get("ASTERISM_HOME")
    async with AsyncExitStack() as stack:
        environ, writer = await own_model() if live else await recorded_model(stack)
        writer += " What asks a person is declined." if live else ""
        environ |= {"ASTERISM_PLANNER__DEFAULT": "llm", "ASTERISM_PLANNER__FALLBACK": "none"}
        folder = Path(parent).expanduser() if parent else None
        fleet = Scenario(folder, keep=keep, slots_here=2, environ=environ)
        return await Demo(await stack.enter_async_context(fleet), crash, writer, live).run()


async def recorded_model(stack: AsyncExitStack) -> tuple[dict[str, str], str]:
    """A scripted model as long as the stack is open: how it is found, and what it is."""
    server = await stack.enter_async_context(ScriptedServer(RecordedModel()))
    said = f"The planner streams the plan from {server.base_url}. No model is behind it:\n"
    # Its plan is fixed, so every skill in it has to be among those that a plan may use.
    environ = {**environment(server), "ASTERISM_PLANNER__SHORTLIST": "64"}
    return environ, f"{said}a scripted model plays a recorded plan at {RATE:g} tokens/s."


def say(text: str, indent: int = 0) -> None:
    """A line, or more of them where the terminal is narrow; what is read by programs is never broken."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        fold = TextWrapper(width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
        text = "\n".join(fold.fill(line) for line in text.split("\n"))
    click.echo(text)
    sys.stdout.flush()
