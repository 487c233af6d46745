"""The rules of the worker link on a real server, with workers that break them: each loses only what is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from protocol.frame import Hello, Report
from protocol.ids import AttemptId, Fence
from protocol.outcome import Success
from protocol.port import Channel
from protocol.profile import WorkerProfile
from protocol.transport import dial
from tests.integration.hand_worker import client, events, submit
from tests.integration.test_server import chain, server, worker


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def fleet_event(channel: Channel, kind: str, **fields: Any) -> dict[str, Any]:
    """The first event of the fleet like this, waited for."""
    asked = msgspec.json.encode({"fleet": True, "follow": True, "kinds": [kind]})
    with anyio.fail_after(20):
        async for message in channel.watch("events", asked):
            for line in message.splitlines():
                row: dict[str, Any] = msgspec.json.decode(line)
                if all(row.get(name) == value for name, value in fields.items()):
                    return row
    raise AssertionError(f"no {kind} with {fields}")


@pytest.mark.anyio
async def test_a_forged_report_is_seen_in_the_events_of_the_fleet_and_of_its_run(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), worker(file) as pi, client(file) as channel:
        run = await submit(channel, chain(1))
        await pi.until(lambda: bool(pi.assigns))
        assign = pi.assigns[0]
        async with worker(file, "cam") as cam:
            await cam.say(Report(assign.attempt, assign.fence, assign.pin, Success(b'"stolen"')))
            await cam.say(Report(AttemptId(99, 0, 1), Fence(1, 1), b"", Success(b"1")))
            assert (await fleet_event(channel, "peer_refused", code="UnknownAttempt"))["run"] is None
        row = await fleet_event(channel, "peer_refused", code="ForeignAttempt")
        assert (row["source"], row["run"], row["task"]) == ("worker:cam", f"r{run}", "t0")
        rows = await events(channel, run, follow=False)
        assert any(one["kind"] == "peer_refused" and one["seq"] == row["seq"] for one in rows)


@pytest.mark.anyio
async def test_a_session_under_a_wrong_name_ends_and_is_told(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), worker(file) as pi, client(file) as channel:
        async with dial(file.address, pi.identity["secret"]) as line:
            stream = await line.link()
            other = type(pi)(pi.identity | {"name": "somebody"})
            other._stream = stream
            await other.say(Hello("somebody", "boot", WorkerProfile()))
            assert await stream.receive() is not None
            await stream.aclose()
        row = await fleet_event(channel, "peer_refused", code="NotAllowed")
        assert row["source"] == "worker:pi-1"
        assert (await fleet_event(channel, "epoch_started"))["seq"] == 1
