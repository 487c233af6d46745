"""The worker daemon as a real process, against a scripted orchestrator over real gRPC."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import msgspec
import psutil
import pytest

from protocol.artifact import ArtifactRef, digest_of
from protocol.frame import (
    Call,
    Cancel,
    Drain,
    Drained,
    Goodbye,
    Heartbeat,
    HeldVerdict,
    Input,
    Rejected,
    Report,
    Stage,
    Staged,
    StagedFile,
)
from protocol.outcome import Failure, Stopped, Success
from tests.integration.scripted_server import Daemon, ScriptedServer, assign, said, scene

SKILLS = '''
import asyncio, os, signal, subprocess, sys, time
from pathlib import Path
from workers.context import AsyncSkillContext, SkillContext
from workers.skill import File, skill

@skill(effect="pure")
def add(a: int, b: int) -> int:
    print("adding", a, b)
    return a + b

@skill(effect="pure")
def lines(file: File) -> dict[str, int]:
    return {"lines": len(file.read_text().splitlines())}

@skill(effect="pure")
def sizes(files: list[File]) -> list[int]:
    return [len(file.read_bytes()) for file in files]

@skill(effect="pure")
def make(ctx: SkillContext, text: str) -> File:
    made = ctx.file("made.txt")
    made.path.write_text(text)
    return made

@skill(effect="pure")
def family(marker: str) -> str:
    """Two generations that ignore SIGTERM, so that only the death of the whole group ends them."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code, marker])
    Path(marker).write_text(str(os.getpid()))
    time.sleep(600)
    return "never"

@skill(effect="pure")
def tidy(marker: str) -> str:
    Path(marker).write_text("begun")
    try:
        time.sleep(600)
    finally:
        Path(marker).write_text("tidied")
    return "never"

@skill(effect="pure")
def die() -> int:
    print("last words", file=sys.stderr)
    os._exit(3)

@skill(effect="pure")
def where() -> int:
    return os.getpid()

@skill(effect="pure")
def big(size: int) -> str:
    return "x" * size

@skill(effect="pure")
def grumble() -> int:
    raise ValueError("no good")

@skill(effect="pure")
def flaky() -> int:
    raise ConnectionError("try later")

@skill(effect="pure")
async def slow(seconds: float) -> float:
    print("sleeping")
    await asyncio.sleep(seconds)
    return seconds

@skill(effect="pure", batch=3, batch_wait="10m")
def fused(x: list[int]) -> list[dict[str, int] | Exception]:
    print("fused", sorted(x))
    if min(x) < 0:
        time.sleep(600)
    return [ValueError("seven") if one == 7 else {"x": one, "of": len(x)} for one in x]

@skill(effect="pure")
async def stubborn(seconds: float) -> float:
    time.sleep(seconds)
    return seconds

@skill(effect="pure")
def blurt(ctx: SkillContext, size: int) -> None:
    ctx.checkpoint("x" * size)

@skill(effect="once")
def pay(ctx: SkillContext) -> str:
    return ctx.idempotency_key

@skill(effect="pure", spawns=True)
def parent(ctx: SkillContext) -> list:
    one = ctx.spawn("add", a=1, b=2)
    two = ctx.spawn("add", key="two", a=3, b=4)
    return ctx.join(one, two)

@skill(effect="pure")
async def aparent(ctx: AsyncSkillContext) -> list:
    ctx.progress(0.5)
    return await ctx.join(await ctx.spawn("add", a=1, b=2))
'''


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "errand_skills.py").write_text(SKILLS)
    return tmp_path


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def open_scene(home: Path, *flags: str, server=None):  # type: ignore[no-untyped-def]
    return scene(
        home,
        server or ScriptedServer(),
        "--skills",
        str(home / "errand_skills.py"),
        "--slots",
        "2",
        "--root",
        str(home),
        *flags,
    )


@pytest.mark.anyio
async def test_inline_python_and_async_skills_run_and_report(home: Path) -> None:
    async with open_scene(home) as (server, _):
        server.send(
            assign(1, "flow.echo", {"value": {"deep": [1]}}),
            assign(2, "add", {"a": 1, "b": 2}),
            assign(3, "slow", {"seconds": 0.01}),
            assign(4, "flow.sleep", {"seconds": 0.01, "value": "up"}),
        )
        assert (await server.report(1)).outcome == Success(b'{"value":{"deep":[1]}}')
        assert (await server.report(2)).outcome == Success(b"3")
        assert (await server.report(3)).outcome == Success(b"0.01")
        assert (await server.report(4)).outcome == Success(b'{"value":"up"}')
        assert server.logs(2) == ["adding 1 2"]
        assert server.logs(3) == ["sleeping"]
        await server.until(server.holds_nothing)


@pytest.mark.anyio
async def test_failures_have_the_right_class(home: Path) -> None:
    async with open_scene(home) as (server, _):
        server.send(
            assign(1, "grumble"), assign(2, "flaky"), assign(3, "add", {"a": "one"}), assign(4, "die"),
            assign(5, "nobody.knows"),
        )  # fmt: skip
        found, took_s = {}, {}
        for number in (1, 2, 3, 4):
            report = await server.report(number)
            assert isinstance(report.outcome, Failure)
            found[number], took_s[number] = report.outcome, report.usage.run_s
        assert (found[1].code, found[1].klass, found[1].message) == ("ValueError", "permanent", "no good")
        assert 'raise ValueError("no good")' in found[1].detail
        assert (found[2].code, found[2].klass) == ("ConnectionError", "transient")
        assert (found[3].code, found[3].klass) == ("SchemaMismatch", "permanent")
        assert "a" in found[3].message
        assert "b" in found[3].message
        assert (found[4].code, found[4].klass, found[4].detail) == ("HostDied", "transient", "last words")
        assert "exit 3" in found[4].message
        assert took_s[4] > 0  # by the daemon's clock: its own died with it
        rejected = await server.until(lambda: next((i for i in server.items if isinstance(i, Rejected)), None))
        assert rejected.code == "NoSuchSkill"


@pytest.mark.anyio
async def test_cancel_ends_the_whole_process_group_before_it_is_confirmed(home: Path) -> None:
    marker = home / "family.pid"
    async with open_scene(home) as (server, daemon):
        work = assign(1, "family", {"marker": str(marker)})
        server.send(work)
        await server.until(marker.exists)
        ours = [p for p in psutil.Process(daemon.process.pid).children(recursive=True) if str(marker) in p.cmdline()]
        server.send(Cancel(work.attempt, grace_s=0.1))
        assert isinstance((await server.report(1)).outcome, Stopped)
        assert ours
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in ours)
        server.send(assign(2, "add", {"a": 1, "b": 1}))
        assert (await server.report(2)).outcome == Success(b"2")


@pytest.mark.anyio
async def test_cancelled_skill_may_tidy_up_within_its_grace(home: Path) -> None:
    marker = home / "tidy"
    async with open_scene(home) as (server, _):
        work = assign(1, "tidy", {"marker": str(marker)})
        server.send(work)
        await server.until(lambda: marker.exists() and marker.read_text() == "begun")
        server.send(Cancel(work.attempt, grace_s=10.0))
        assert isinstance((await server.report(1)).outcome, Stopped)
        assert marker.read_text() == "tidied"


@pytest.mark.anyio
async def test_hang_is_stopped_at_its_timeout(home: Path) -> None:
    async with open_scene(home) as (server, _):
        server.send(assign(1, "flow.fail", {"times": 9, "how": "hang"}, timeout_s=0.3))
        server.send(assign(2, "flow.fail", {"times": 9, "how": "exit"}))
        late = (await server.report(1)).outcome
        assert isinstance(late, Failure)
        assert (late.code, late.klass) == ("Timeout", "transient")
        dead = (await server.report(2)).outcome
        assert isinstance(dead, Failure)
        assert dead.code == "HostDied"


@pytest.mark.anyio
async def test_tasks_of_a_batched_skill_share_a_call_and_fail_alone(home: Path) -> None:
    async with open_scene(home) as (server, _):  # two slots, and three of them at once
        server.send(*(assign(n, "fused", {"x": x}, cpu=0.0) for n, x in ((1, 5), (2, 7), (3, 9))))
        assert (await server.report(1)).outcome == Success(b'{"x":5,"of":3}')
        seven = (await server.report(2)).outcome
        assert isinstance(seven, Failure)
        assert (seven.code, seven.message) == ("ValueError", "seven")
        assert (await server.report(3)).outcome == Success(b'{"x":9,"of":3}')
        assert [line for n in (1, 2, 3) for line in server.logs(n)] == ["fused [5, 7, 9]"]


@pytest.mark.anyio
async def test_a_batched_call_that_hangs_is_left_one_by_one_and_ends_with_its_host(home: Path) -> None:
    async with open_scene(home) as (server, _):
        works = [assign(n, "fused", {"x": x}, cpu=0.0) for n, x in ((1, -1), (2, 2), (3, 3), (4, 4))]
        server.send(*works)
        await server.until(lambda: any(server.logs(n) for n in (1, 2, 3)))
        server.send(*(Cancel(work.attempt, grace_s=0.1) for work in works[:3]))
        for n in (1, 2, 3):
            assert isinstance((await server.report(n)).outcome, Stopped)
        waiting = (await server.report(4)).outcome  # it had not begun, and goes elsewhere
        assert isinstance(waiting, Failure)
        assert waiting.klass == "infra"


@pytest.mark.anyio
async def test_blocking_async_skill_delays_no_heartbeat_and_is_stopped_with_its_host(home: Path) -> None:
    async with open_scene(home) as (server, _):
        server.send(assign(1, "stubborn", {"seconds": 600.0}, timeout_s=0.3), assign(2, "slow", {"seconds": 600.0}))
        late, bystander = (await server.report(1)).outcome, (await server.report(2)).outcome
        assert isinstance(late, Failure)
        assert late.code == "Timeout"
        assert isinstance(bystander, Failure)
        assert bystander.klass == "infra"


@pytest.mark.anyio
async def test_death_of_the_launcher_costs_only_its_running_attempts(home: Path) -> None:
    async with open_scene(home) as (server, daemon):
        server.send(assign(1, "flow.fail", {"times": 9, "how": "hang"}), assign(2, "slow", {"seconds": 600.0}))
        await server.until(lambda: bool(server.logs(2)))
        launcher = psutil.Process(daemon.process.pid).children()[0]
        launcher.kill()
        for number in (1, 2):
            outcome = (await server.report(number)).outcome
            assert isinstance(outcome, Failure)
            assert outcome.code == "HostDied"
        server.send(assign(3, "add", {"a": 1, "b": 1}))
        assert (await server.report(3)).outcome == Success(b"2")


@pytest.mark.anyio
async def test_call_too_large_for_the_link_fails_in_the_skill_alone(home: Path) -> None:
    async with open_scene(home) as (server, _):
        server.send(assign(1, "blurt", {"size": 3_000_000}))
        outcome = (await server.report(1)).outcome
        assert isinstance(outcome, Failure)
        assert outcome.code == "Usage"
        assert not any(isinstance(item, Call) for item in server.items)


@pytest.mark.anyio
async def test_host_stays_warm_between_attempts(home: Path) -> None:
    async with open_scene(home) as (server, _):
        server.send(assign(1, "where"))
        first = (await server.report(1)).outcome
        server.send(assign(2, "where"))
        assert (await server.report(2)).outcome == first


@pytest.mark.anyio
async def test_report_survives_the_death_of_the_daemon_and_is_offered_again(home: Path) -> None:
    server = ScriptedServer()
    server.acks = False
    await server.start()
    flags = ("--skills", str(home / "errand_skills.py"), "--slots", "1")
    daemon = Daemon(home, server.port, *flags)
    try:
        await server.joined()
        server.send(assign(1, "add", {"a": 20, "b": 22}))
        report = await server.report(1)
        children = psutil.Process(daemon.process.pid).children(recursive=True)
        await anyio.to_thread.run_sync(daemon.kill)
        _, alive = await anyio.to_thread.run_sync(lambda: psutil.wait_procs(children, 10))
        assert not alive, "a host outlived its daemon"
        server.acks = True
        server.items.clear()
        server.verdicts = lambda hello: tuple(HeldVerdict(held.attempt, "resend") for held in hello.spooled)
        daemon = Daemon(home, server.port, *flags)
        assert await server.report(1) == report
        assert [held.attempt for held in server.hellos[-1].spooled] == [report.attempt]
        assert server.hellos[-1].last_epoch == 1
        await server.until(server.holds_nothing)
    finally:
        await anyio.to_thread.run_sync(daemon.close)
        await server.stop()


@pytest.mark.anyio
async def test_work_goes_on_while_the_orchestrator_is_away(home: Path) -> None:
    server = ScriptedServer()
    await server.start()
    daemon = Daemon(home, server.port, "--skills", str(home / "errand_skills.py"), "--slots", "1")
    try:
        await server.joined()
        server.send(assign(1, "slow", {"seconds": 0.5}))
        await server.until(lambda: bool(server.logs(1)))
        port = server.port
        await server.stop()
        again = ScriptedServer()
        await again.start(port)
        server = again
        assert (await server.report(1)).outcome == Success(b"0.5")
        held = server.hellos[0]
        assert {one.attempt.task for one in (*held.running, *held.spooled)} == {1}
    finally:
        await anyio.to_thread.run_sync(daemon.close)
        await server.stop()


@pytest.mark.anyio
async def test_once_asks_before_it_acts_and_gets_its_idempotency_key(home: Path) -> None:
    async with open_scene(home) as (server, _):
        server.send(assign(1, "pay", effect="once"))
        assert (await server.report(1)).outcome == Success(b'"key-1"')
        calls = [item for item in server.items if isinstance(item, Call)]
        assert [(call.k, call.what) for call in calls] == [(1, "begin_effect")]
        assert server.items.index(calls[0]) < server.items.index(await server.report(1))


@pytest.mark.anyio
async def test_once_is_refused_when_the_lease_is_over(home: Path) -> None:
    server = ScriptedServer()
    server.lease_s = 0.3
    server.heartbeats = False  # none is acknowledged, so the lease that Welcome gave runs out
    async with open_scene(home, server=server) as (server, _):
        beats = [item for item in server.items if isinstance(item, Heartbeat)]
        await server.until(lambda: any(b.at - beats[0].at > 0.4 for b in server.items if isinstance(b, Heartbeat)))
        server.send(assign(1, "pay", effect="once"))
        rejected = await server.until(lambda: next((i for i in server.items if isinstance(i, Rejected)), None))
        assert rejected.code == "Fenced"


@pytest.mark.anyio
async def test_spawn_and_join_go_through_the_orchestrator(home: Path) -> None:
    def answer(call: Call) -> bytes:
        body = msgspec.json.decode(call.body)
        return b"[3,7]" if call.what == "join" else msgspec.json.encode({"id": f"parent.{body.get('key', call.k)}"})

    async with open_scene(home) as (server, _):
        server.answer = answer
        server.send(assign(1, "parent"), assign(2, "aparent"))
        assert (await server.report(1)).outcome == Success(b"[3,7]")
        assert (await server.report(2)).outcome == Success(b"[3,7]")
        calls = [item for item in server.items if isinstance(item, Call) and item.attempt.task == 1]
        assert [(call.k, call.what) for call in calls] == [(1, "spawn"), (2, "spawn"), (3, "join")]
        assert msgspec.json.decode(calls[1].body) == {"skill": "add", "args": {"a": 3, "b": 4}, "key": "two"}
        assert msgspec.json.decode(calls[2].body) == {"ids": ["parent.1", "parent.two"]}


@pytest.mark.anyio
async def test_inputs_come_inline_from_artifacts_and_as_items(home: Path) -> None:
    async with open_scene(home) as (server, _):
        whole = msgspec.json.encode({"numbers": [5, 6], "pad": "p" * 100_000})
        digest = digest_of(whole)
        server.store[digest] = whole
        ref = ArtifactRef(digest, "application/json", len(whole))
        args = {"a": {"ref": "x/numbers/0"}, "b": {"ref": "y"}}
        inputs = (Input("x/numbers/0", ref, ("numbers", "0")), Input("y", b"4"))
        server.send(assign(1, "add", args, inputs=inputs))
        assert (await server.report(1)).outcome == Success(b"9")
        told = await server.until(lambda: [i.moved for i in server.items if isinstance(i, Heartbeat) and i.moved])
        assert len(told) == 1
        assert told[0][0] == len(whole)
        assert told[0][1] > 0.0
        items = tuple((Input("x[]", str(n).encode()),) for n in range(3))
        server.send(assign(2, "add", {"a": {"ref": "x[]"}, "b": 10}, items=items))
        assert (await server.report(2)).outcome == Success(b"[10,11,12]")
        parts = Input("p", parts=(b"1", b"2", b"3"))
        server.send(assign(3, "flow.echo", {"value": {"ref": "p"}}, inputs=(parts,)))
        assert (await server.report(3)).outcome == Success(b'{"value":[1,2,3]}')


@pytest.mark.anyio
async def test_large_result_is_stored_before_it_is_reported(home: Path) -> None:
    async with open_scene(home) as (server, _):
        server.send(assign(1, "big", {"size": 200_000}), assign(2, "flow.echo", {"value": "y" * 100_000}))
        for number, length in ((1, 200_002), (2, 100_012)):
            outcome = (await server.report(number)).outcome
            assert isinstance(outcome, Success)
            assert isinstance(outcome.value, ArtifactRef)
            assert outcome.value.size == length
            assert len(server.store[outcome.value.digest]) == length
        spill = home / "workers" / "pi-1" / "spill"
        await server.until(lambda: not list(spill.iterdir()))


@pytest.mark.anyio
async def test_many_small_files_leave_together_and_large_ones_alone(home: Path) -> None:
    contents = {f"f{k}": b"x" * k for k in range(200)} | {"large": b"l" * 300_000, "same": b"x" * 7}
    for name, content in contents.items():
        (home / name).write_bytes(content)
    async with open_scene(home) as (server, _):
        server.store[digest_of(b"x" * 9)] = b"x" * 9
        wanted = [*contents, "absent", ".."]
        server.send(*(Stage(1, f"file://pi-1{home}/{name}", named=True) for name in wanted))
        staged = await server.until(
            lambda: found if len(found := [i for i in server.items if isinstance(i, Staged)]) == len(wanted) else None
        )
        by_name = {one.uri.rpartition("/")[2]: one for one in staged}
        assert by_name["absent"].code == "NotFound"
        assert by_name[".."].code == "NotAllowed"
        for name, content in contents.items():
            ref = by_name[name].ref
            assert (ref.digest, ref.size) == (digest_of(content), len(content))
            assert server.store[ref.digest] == content
        assert server.bundles < 20


@pytest.mark.anyio
async def test_many_small_files_arrive_together_and_large_ones_alone(home: Path) -> None:
    contents = [b"y" * k for k in range(200)] + [b"m" * 300_000]
    async with open_scene(home) as (server, _):
        server.store.update((digest_of(content), content) for content in contents)
        files = [
            StagedFile(f"file://pc/{k}", ArtifactRef(digest_of(content), "text/plain", len(content)))
            for k, content in enumerate(contents)
        ]
        args = {"files": [one.uri for one in files]}
        server.send(assign(1, "sizes", args, files=tuple(files)), assign(2, "sizes", args, files=tuple(files)))
        for number in (1, 2):
            outcome = (await server.report(number)).outcome
            assert isinstance(outcome, Success)
            assert msgspec.json.decode(outcome.value) == [len(content) for content in contents]
        assert server.bundles == 1


@pytest.mark.anyio
async def test_one_file_that_is_gone_fails_its_attempt_alone(home: Path) -> None:
    async with open_scene(home) as (server, _):
        server.store.update((digest_of(one), one) for one in (b"a", b"b"))
        files = [StagedFile(f"file://pc/{one}", ArtifactRef(digest_of(one), "", 1)) for one in (b"a", b"gone", b"b")]
        args = {"files": [one.uri for one in files]}
        server.send(assign(1, "sizes", args, files=tuple(files)), assign(2, "add", {"a": 1, "b": 2}))
        outcome = (await server.report(1)).outcome
        assert isinstance(outcome, Failure)
        assert outcome.code == "NotFound"
        assert (await server.report(2)).outcome == Success(b"3")


@pytest.mark.anyio
async def test_files_are_issued_staged_and_refused_by_the_rules(home: Path) -> None:
    (home / "secret.txt").write_text("not yours")
    async with open_scene(home) as (server, _):
        server.send(assign(1, "make", {"text": "a\nb\n"}))
        outcome = (await server.report(1)).outcome
        assert isinstance(outcome, Success)
        uri = msgspec.json.decode(outcome.value)
        assert uri.startswith("file://pi-1/")
        server.send(
            Stage(1, uri), Stage(2, uri), Stage(1, f"file://pi-1{home}/secret.txt"),
            Stage(1, f"file://pi-1{home}/secret.txt", named=True), Stage(1, "file://pi-1/etc/passwd", named=True),
        )  # fmt: skip
        staged = await server.until(
            lambda: found if len(found := [i for i in server.items if isinstance(i, Staged)]) == 5 else None
        )
        by_key = [(one.run, one.uri.rpartition("/")[2], one.code, one.ref is not None) for one in staged]
        assert sorted(by_key) == sorted(
            [
                (1, "made.txt", "", True),
                (2, "made.txt", "NotAllowed", False),
                (1, "secret.txt", "NotAllowed", False),
                (1, "secret.txt", "", True),
                (1, "passwd", "NotAllowed", False),
            ]
        )
        assert server.store[digest_of(b"a\nb\n")] == b"a\nb\n"
        server.send(assign(2, "lines", {"file": uri}), assign(3, "lines", {"file": digest_of(b"a\nb\n")}))
        assert (await server.report(2)).outcome == Success(b'{"lines":2}')
        assert (await server.report(3)).outcome == Success(b'{"lines":2}')


@pytest.mark.anyio
async def test_drain_finishes_what_runs_refuses_what_is_new_and_says_goodbye(home: Path) -> None:
    async with open_scene(home) as (server, daemon):
        server.send(assign(1, "slow", {"seconds": 0.3}))
        await server.until(lambda: bool(server.logs(1)))
        server.send(Drain(20.0))
        server.send(assign(2, "flow.echo", {"value": 1}))
        assert (await server.report(1)).outcome == Success(b"0.3")
        assert await daemon.exit_status() == 0
        kinds = [type(item) for item in server.items]
        assert kinds.index(Report) < kinds.index(Drained) < kinds.index(Goodbye)
        assert any(isinstance(item, Rejected) and item.code == "Draining" for item in server.items)


@pytest.mark.anyio
async def test_sigterm_drains(home: Path) -> None:
    async with open_scene(home) as (server, daemon):
        os.kill(daemon.process.pid, signal.SIGTERM)
        assert await daemon.exit_status() == 0
        assert said(server, Goodbye)


@pytest.mark.anyio
async def test_here_worker_ends_with_the_client_that_holds_its_input(home: Path) -> None:
    async with open_scene(home, "--serves", "client-1") as (server, daemon):
        assert server.hellos[0].profile.serves == "client-1"
        daemon.process.stdin.close()
        assert await daemon.exit_status() == 0


@pytest.mark.anyio
async def test_simulated_worker_says_so_and_is_slower(home: Path) -> None:
    async with open_scene(home, "--simulate", "speed=0.25,latency=5ms") as (server, _):
        profile = server.hellos[0].profile
        assert profile.labels["simulated"] == "true"
        assert all(device.simulated for device in profile.devices)
        server.send(assign(1, "slow", {"seconds": 0.1}))
        assert (await server.report(1)).usage.run_s >= 0.4


@pytest.mark.anyio
async def test_skill_file_that_cannot_be_loaded_ends_the_daemon_with_the_reason(home: Path) -> None:
    (home / "broken.py").write_text("import nothing_of_that_name\n")
    server = ScriptedServer()
    await server.start()
    daemon = Daemon(home, server.port, "--skills", str(home / "broken.py"))
    try:
        assert await daemon.exit_status() == 2
        last = msgspec.json.decode((home / "daemon.err").read_text().strip().splitlines()[-1])
        assert "nothing_of_that_name" in last["error"]["message"]
    finally:
        daemon.close()
        await server.stop()
