"""The rules of the worker link on a real server, with workers that break them: each loses only what is its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from math import nan
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from orchestrator import gateway
from orchestrator.core.setting import CoreSettings
from protocol.frame import Bye, Heartbeat, Held, Hello, Progress, Report, Welcome
from protocol.ids import AttemptId, Fence
from protocol.outcome import Success
from protocol.port import Channel
from protocol.profile import DeviceProfile, LinkProfile, WorkerProfile
from protocol.resource import Resources
from protocol.security import ServerFile
from protocol.skill import SkillSpec
from protocol.transport import dial
from tests.integration.hand_worker import HandWorker, ask, client, events, submit
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
            other.stream = stream
            await other.say(Hello("somebody", "boot", WorkerProfile()))
            assert await stream.receive() is not None
            await stream.aclose()
        row = await fleet_event(channel, "peer_refused", code="NotAllowed")
        assert row["source"] == "worker:pi-1"
        assert (await fleet_event(channel, "epoch_started"))["seq"] == 1


@pytest.mark.anyio
async def test_a_flooding_worker_loses_its_stream_and_nobody_else_anything(tmp_path: Path) -> None:
    async def flood(pest: HandWorker) -> None:
        while not pest.byes:
            strays = [Report(AttemptId(77, k, 1), Fence(1, k), b"x" * 32, Success(b"1")) for k in range(60)]
            beat = Heartbeat(1.0, tuple(AttemptId(78, k, 1) for k in range(2000)), free=1e300, load=-1e300)
            await pest.say(beat, *strays, Progress(AttemptId(77, 1, 1), 1, "log", b"x" * 60_000))

    async with server(tmp_path) as (runtime, file), worker(file), client(file) as channel:
        async with worker(file, "pest") as pest, anyio.create_task_group() as group:
            with anyio.fail_after(20):
                group.start_soon(flood, pest)
                run = await submit(channel, chain(1, 2, 3), key="k")
                await pest.until(lambda: bool(pest.byes))
        assert pest.byes[0].code == "Flooding"
        assert pest.byes[0].retry_after_s > 1
        await events(channel, run)
        assert (await ask(channel, "status", run=run))["state"] == "succeeded"
        row = await fleet_event(channel, "peer_refused", code="Flooding")
        assert row["source"] == "worker:pest"
        assert len(await rows_of(channel, "peer_refused")) < 10
        assert runtime._engine is not None
        assert len(runtime._engine.machine._turn.refused) < 5000


@pytest.mark.anyio
async def test_a_worker_that_lies_about_itself_is_sent_away_and_believed_nothing(tmp_path: Path) -> None:
    lies: list[dict[str, Any]] = [
        {"slots": 0}, {"slots": 10**9}, {"capacity": Resources(cpu=-1.0)}, {"capacity": Resources(cpu=1e300)},
        {"link": LinkProfile(bandwidth=0.0)}, {"link": LinkProfile(bandwidth=1e30)},
        {"devices": (DeviceProfile("cpu", speed=-1.0),)}, {"devices": (DeviceProfile("gpu", price_per_s=nan),)},
        {"skills": (SkillSpec("a.b", "", {"properties": 5}),)},
    ]  # fmt: skip
    async with server(tmp_path) as (runtime, file), client(file) as channel:
        for number, lie in enumerate(lies):
            identity = await ask(channel, "enroll", name=f"liar-{number}")
            async with dial(file.address, identity["secret"]) as line:
                made = HandWorker(identity)
                made.stream = await line.link()
                await made.say(Hello(f"liar-{number}", "boot", WorkerProfile(**lie)))
                frame = await made.stream.receive()
                assert frame is not None
                (bye,) = frame.items
                assert isinstance(bye, Bye)
                if "=nan" in str(lie):  # JSON has no NaN: the frame can't be read, and its reason names the field
                    assert (bye.code, "devices[0].price_per_s" in bye.reason) == ("WireError", True)
                else:
                    assert (bye.code, bye.retry_after_s < 0) == ("BadProfile", True)
        assert runtime._engine is not None
        assert not runtime._engine.machine.fleet.sessions
        await fleet_event(channel, "peer_refused", code="BadProfile")
        assert not await rows_of(channel, "skills_announced")


@pytest.mark.anyio
async def test_a_journal_restored_from_a_copy_goes_on_behind_what_its_workers_have_seen(tmp_path: Path) -> None:
    async def joined(file: ServerFile, identity: dict[str, Any], journal: str, epoch: int) -> Welcome:
        async with dial(file.address, identity["secret"]) as line, anyio.create_task_group() as group:
            made = HandWorker(identity)
            group.start_soon(made.run, line, journal, epoch)
            await made.until(lambda: bool(made.welcomes))
            group.cancel_scope.cancel()
        return made.welcomes[0]

    async with server(tmp_path) as (_, file), client(file) as channel:
        identity = await ask(channel, "enroll", name="pi-1")
        first = await joined(file, identity, "", 0)
    shutil.copytree(tmp_path / "server", tmp_path / "copy")
    async with server(tmp_path) as (_, file):
        later = await joined(file, identity, first.journal, first.epoch)
        assert later.epoch == first.epoch + 1
    shutil.rmtree(tmp_path / "server")
    shutil.copytree(tmp_path / "copy", tmp_path / "server")
    async with server(tmp_path) as (_, file), client(file) as channel:
        assert (await ask(channel, "info"))["epoch"] == later.epoch
        welcome = await joined(file, identity, later.journal, later.epoch)
        assert (welcome.journal, welcome.epoch) == (later.journal, later.epoch + 1)
        info = await ask(channel, "info")
        assert info["epoch"] == later.epoch + 1
        assert "copy" in info["warnings"][0]
        row = await fleet_event(channel, "epoch_started", restored="pi-1")
        assert row["epoch"] == later.epoch + 1
    async with server(tmp_path) as (_, file), client(file) as channel:
        info = await ask(channel, "info")
        assert info["epoch"] == later.epoch + 2
        assert "copy" in info["warnings"][0]


@pytest.mark.anyio
async def test_what_was_given_up_and_still_runs_goes_on_when_its_worker_is_back(tmp_path: Path) -> None:
    async def slow(_: Any, __: HandWorker, ___: Any) -> None:
        """It does not end by itself."""

    core = CoreSettings(lease_factor=0.05)
    async with server(tmp_path, core=core) as (_, file), client(file) as channel:
        identity = await ask(channel, "enroll", name="pi-1")
        made = HandWorker(identity)
        made.skills["flow.echo"] = slow
        async with dial(file.address, identity["secret"]) as line, anyio.create_task_group() as group:
            group.start_soon(made.run, line)
            await made.until(lambda: bool(made.welcomes))
            run = await submit(channel, chain(1), detach=True)
            await made.until(lambda: bool(made.assigns))
            group.cancel_scope.cancel()
        lost = await fleet_event(channel, "worker_lost", worker="pi-1")
        assert lost["attempts"] == 1
        (assign,) = made.assigns
        running = (Held(assign.attempt, assign.fence, assign.pin),)
        async with dial(file.address, identity["secret"]) as line, anyio.create_task_group() as group:
            group.start_soon(made.run, line, made.welcomes[0].journal, made.welcomes[0].epoch, running)
            await made.until(lambda: len(made.welcomes) == 2)
            assert [one.verdict for one in made.welcomes[1].verdicts] == ["keep"]
            await made.report(assign.attempt, Success(b"1"))
            kinds = [row["kind"] for row in await events(channel, run)]
            group.cancel_scope.cancel()
        assert "attempt_regained" in kinds
        assert kinds.count("attempt_dispatched") == 1
        assert (await ask(channel, "status", run=run))["state"] == "succeeded"
        await fleet_event(channel, "worker_returned", worker="pi-1")


@pytest.mark.anyio
async def test_versions_that_do_not_meet_end_with_exit_code_9_and_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "PROTOCOL_VERSIONS", (7, 8))
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ASTERISM_")}
    environ["ASTERISM_HOME"] = str(tmp_path)

    async def asterism(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-P", "-m", "asterism", *words]
        with anyio.fail_after(30):
            return await anyio.run_process(command, env=environ, check=False)

    async with server(tmp_path) as (_, file), client(file) as channel:
        for form in ("text", "jsonl"):
            told = await asterism("events", "--fleet", "-o", form)
            assert told.returncode == 0, told.stderr
            assert b"epoch_started" in told.stdout
        done = await asterism("worker", "start", "--name", "old", "--slots", "1")
        assert done.returncode == 9, done.stderr
        assert b"1 to 1" in done.stderr
        assert b"fix: install the asterism of the server" in done.stderr
        assert (await fleet_event(channel, "peer_refused", code="VersionMismatch"))["source"] == "worker:old"
    async with server(tmp_path, version="99.0.0"):
        done = await asterism("ps")
        assert done.returncode == 9, done.stderr
        assert b"fix: " in done.stderr


async def rows_of(channel: Channel, kind: str) -> list[dict[str, Any]]:
    asked = msgspec.json.encode({"fleet": True, "kinds": [kind]})
    return [
        msgspec.json.decode(line) async for message in channel.watch("events", asked) for line in message.splitlines()
    ]
