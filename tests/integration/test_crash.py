"""A server killed with SIGKILL in the middle of a run: nothing finished is lost, nothing finished runs again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from protocol.frame import Assign
from protocol.outcome import Outcome
from protocol.security import ServerFile, load_server
from protocol.transport import dial
from tests.integration.hand_worker import HandWorker, ask, client, echo, events, submit

TASKS = 400


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextmanager
def process(home: Path) -> Iterator[subprocess.Popen[str]]:
    """`asterism server start`, ready: it has printed its join string."""
    argv = [sys.executable, "-P", "-m", "asterism", "server", "start"]
    environ = {**os.environ, "ASTERISM_HOME": str(home)}
    child = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    try:
        assert child.stdout.readline().count("/") == 1
        yield child
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()


def found(home: Path) -> ServerFile:
    file = load_server(home)
    assert file is not None
    return file


@pytest.mark.anyio
async def test_kill_9_in_the_middle_loses_nothing_and_repeats_nothing_finished(tmp_path: Path) -> None:
    executed: Counter[str] = Counter()
    plan = {"tasks": [{"id": f"t{k}", "skill": "flow.echo", "args": {"value": k}} for k in range(TASKS)]}

    async def counted(args: Any, worker: HandWorker, assign: Assign) -> Outcome:
        executed[assign.name.partition("#")[0]] += 1
        return await echo(args, worker, assign)

    with process(tmp_path) as first:
        file = found(tmp_path)
        async with client(file) as channel:
            hand = HandWorker(await ask(channel, "enroll", name="pi-1"), slots=8)
            hand.skills["flow.echo"] = counted
            async with dial(file.address, hand.identity["secret"]) as link, anyio.create_task_group() as group:
                group.start_soon(hand.run, link)
                await hand.until(lambda: bool(hand.welcomes))
                run = await submit(channel, plan, key="k", detach=True)
                await hand.until(lambda: len(hand.acked) > TASKS // 4)
                first.kill()
                await anyio.to_thread.run_sync(first.wait)
                group.cancel_scope.cancel()
    finished = set(executed)
    with process(tmp_path):
        file = found(tmp_path)
        async with client(file) as channel:
            async with dial(file.address, hand.identity["secret"]) as link, anyio.create_task_group() as group:
                group.start_soon(hand.run, link, file.journal, 1)
                assert await submit(channel, plan, key="k", detach=True) == run
                rows = await events(channel, run)
                group.cancel_scope.cancel()
            report = await ask(channel, "result", run=run)
    assert rows[-1]["state"] == "succeeded"
    assert report["outputs"] == {f"t{k}": k for k in range(TASKS)}
    assert {name: count for name, count in executed.items() if name in finished and count > 1} == {}
    settled = Counter(row["task"] for row in rows if row["kind"] == "task_settled")
    assert settled == Counter({f"t{k}": 1 for k in range(TASKS)})
