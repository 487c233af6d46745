"""The server process on real parts: gRPC on loopback, the real core, a journal on disk; only the worker is scripted."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from orchestrator.runtime import Runtime, ServerSettings
from orchestrator.service.service import methods
from protocol.artifact import digest_of
from protocol.errors import (
    AsterismError,
    JournalBusy,
    NotAllowed,
    NotFound,
    PlanRefused,
    UsageError,
)
from protocol.frame import Assign, Goodbye, Progress, Report
from protocol.ids import AttemptId
from protocol.outcome import Outcome, Success
from protocol.security import ROLES, ServerFile, load_server
from protocol.transport import dial
from tests.integration.hand_worker import HandWorker, ask, client, enrolled, events, line, submit


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def server(directory: Path, **options: Any) -> AsyncIterator[tuple[Runtime, ServerFile]]:
    """A server that ends cleanly with the block."""
    version = options.pop("version", "")
    runtime = Runtime(ServerSettings(directory=directory, **options), version)
    ready = anyio.Event()
    files: list[ServerFile] = []

    def tell(file: ServerFile) -> None:
        files.append(file)
        ready.set()

    async with anyio.create_task_group() as group:
        group.start_soon(runtime.run, tell)
        await ready.wait()
        try:
            yield runtime, files[0]
        finally:
            runtime.shut_down()


@asynccontextmanager
async def worker(file: ServerFile, name: str = "pi-1", **options: Any) -> AsyncIterator[HandWorker]:
    """Enrolled, connected and welcomed."""
    identity = await enrolled(file, name, options.get("serves", ""))
    made = HandWorker(identity, **options)
    async with line(file, identity) as channel, anyio.create_task_group() as group:
        group.start_soon(made.run, channel)
        await made.until(lambda: bool(made.welcomes))
        try:
            yield made
        finally:
            group.cancel_scope.cancel()


def chain(*values: Any) -> dict[str, Any]:
    tasks: list[dict[str, Any]] = []
    for number, value in enumerate(values):
        args = {"value": value if number == 0 else {"before": {"ref": f"t{number - 1}"}, "own": value}}
        tasks.append({"id": f"t{number}", "skill": "flow.echo", "args": args})
    return {"schema": "asterism/plan/v1", "tasks": tasks}


@pytest.mark.anyio
async def test_a_plan_runs_to_its_end_and_the_report_tells_it(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), worker(file) as pi, client(file) as channel:
        run = await submit(channel, chain(1, 2, 3), key="k1")
        rows = await events(channel, run)
        assert rows[0]["kind"] == "run_submitted"
        assert rows[-1]["kind"] == "run_settled"
        assert [row["seq"] for row in rows] == sorted({row["seq"] for row in rows})
        report = await ask(channel, "result", run=run)
        assert report["schema"] == "asterism/v1"
        assert (report["run"], report["state"]) == ("r1", "succeeded")
        assert report["outputs"] == {"t2": {"before": {"before": 1, "own": 2}, "own": 3}}
        assert {name: row["worker"] for name, row in report["tasks"].items()} == dict.fromkeys(report["tasks"], "pi-1")
        assert await ask(channel, "get", run=run, task="t1", pointer="/own") == {"value": 2}
        with pytest.raises(NotFound):
            await ask(channel, "get", run=run, task="t1", pointer="/nothing")
        await pi.until(lambda: len(pi.acked) == 3)


@pytest.mark.anyio
async def test_the_same_key_is_the_same_run(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), client(file) as channel:
        first = await submit(channel, chain(1), key="once", detach=True)
        assert await submit(channel, chain(1), key="once", detach=True) == first
        assert await submit(channel, chain(1), key="twice", detach=True) != first
        assert len((await ask(channel, "ps"))["runs"]) == 2


@pytest.mark.anyio
async def test_a_refused_plan_names_every_problem_and_makes_no_run(tmp_path: Path) -> None:
    plan = {"tasks": [{"id": "a", "skill": "no.such"}, {"id": "b", "skill": "flow.echo", "args": {"valu": 1}}]}
    async with server(tmp_path) as (_, file), worker(file), client(file) as channel:
        with pytest.raises(PlanRefused) as caught:
            await submit(channel, plan, key="k")
        assert len(caught.value.problems) >= 2
        with pytest.raises(PlanRefused):
            await submit(channel, {"tasks": [{"id": "A B"}]}, key="k")
        assert (await ask(channel, "ps"))["runs"] == []


@pytest.mark.anyio
async def test_flags_win_over_the_plan_and_inputs_are_bound(tmp_path: Path) -> None:
    plan = {
        "inputs": [{"name": "n", "type": "integer"}, {"name": "m", "type": "integer", "default": 5}],
        "run": {"deadline": "10m", "budget": {"tasks": 7, "tokens": 9}},
        "tasks": [{"id": "a", "skill": "flow.echo", "args": {"value": [{"ref": "input/n"}, {"ref": "input/m"}]}}],
    }
    async with server(tmp_path) as (runtime, file), worker(file), client(file) as channel:
        with pytest.raises(PlanRefused, match="MissingInput"):
            await submit(channel, plan, key="k")
        run = await submit(channel, plan, inputs={"n": 4}, settings={"deadline": 60, "budget": {"tasks": 8}})
        await events(channel, run)
        assert (await ask(channel, "result", run=run))["outputs"] == {"a": [4, 5]}
        assert runtime._engine is not None
        settings = runtime._engine.machine.state.runs[run].settings
        assert (settings.deadline_s, settings.budget.tasks, settings.budget.tokens) == (60.0, 8, 9)


@pytest.mark.anyio
async def test_a_map_collects_its_children_and_explain_speaks_of_each(tmp_path: Path) -> None:
    plan = {
        "tasks": [
            {"id": "items", "skill": "flow.list", "args": {"items": [1, 2, 3]}},
            {"id": "each", "skill": "flow.echo", "args": {"value": {"ref": "items[]"}}},
        ]
    }
    async with server(tmp_path) as (_, file), worker(file), client(file) as channel:
        run = await submit(channel, plan)
        await events(channel, run)
        report = await ask(channel, "result")
        assert report["outputs"] == {"each": [1, 2, 3]}
        assert report["tasks"]["each"]["children"] == {"succeeded": 3}
        assert await ask(channel, "get", run=run, task="each.1") == {"value": 2}
        tasks = await ask(channel, "tasks", run=run, children=True)
        assert set(tasks["tasks"]) == {"items", "each", "each.0", "each.1", "each.2"}
        explained = await ask(channel, "explain", run=run, task="each.1")
        assert explained["attempts"][0]["worker"] == "pi-1"
        graph = await ask(channel, "graph", run=run)
        assert graph["edges"] == [["items", "each", "data"]]


@pytest.mark.anyio
async def test_a_failure_reaches_the_report_with_its_code(tmp_path: Path) -> None:
    plan = {
        "tasks": [
            {"id": "bad", "skill": "flow.fail"},
            {"id": "next", "skill": "flow.echo", "args": {"value": {"ref": "bad"}}},
        ]
    }
    async with server(tmp_path) as (_, file), worker(file), client(file) as channel:
        run = await submit(channel, plan)
        await events(channel, run)
        report = await ask(channel, "result", run=run)
        assert report["state"] == "failed"
        assert report["tasks"]["bad"]["error"]["code"] == "Boom"
        assert report["tasks"]["next"]["state"] == "skipped"


@pytest.mark.anyio
async def test_a_finished_result_survives_the_server_and_is_acknowledged_by_the_next(tmp_path: Path) -> None:
    """The server is gone between dispatch and report: the worker's copy still wins, nothing runs twice."""
    held: list[HandWorker] = []
    async with server(tmp_path) as (_, file), worker(file) as pi, client(file) as channel:

        async def silent(args: Any, worker: HandWorker, assign: Assign) -> Outcome | None:
            worker.spool[assign.attempt] = Report(assign.attempt, assign.fence, assign.pin, Success(b'"late"'))
            worker.news.set()
            return None

        pi.skills["flow.echo"] = silent
        run = await submit(channel, chain("x"), key="k", detach=True)
        await pi.until(lambda: bool(pi.spool))
        held.append(pi)
    async with server(tmp_path) as (_, file):
        pi = held[0]
        dispatched = len(pi.assigns)
        async with dial(file.address, pi.identity["secret"]) as link, client(file) as channel:
            async with anyio.create_task_group() as group:
                group.start_soon(pi.run, link, file.journal, 1)
                rows = await events(channel, run)
                assert rows[-1]["state"] == "succeeded"
                assert (await ask(channel, "result", run=run))["outputs"] == {"t0": "late"}
                await pi.until(lambda: not pi.spool)
                assert len(pi.assigns) == dispatched
                assert pi.welcomes[-1].epoch == 2
                group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_events_resume_by_number_and_a_filter_leaves_the_rest_out(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), worker(file), client(file) as channel:
        run = await submit(channel, chain(*range(20)))
        rows = await events(channel, run)
        middle = rows[len(rows) // 2]["seq"]
        assert await events(channel, run, after=middle) == [row for row in rows if row["seq"] > middle]
        settled = await events(channel, run, kinds=["run_settled"])
        assert [row["kind"] for row in settled] == ["run_settled"]
        assert await events(channel, run, after=rows[-1]["seq"]) == []


@pytest.mark.anyio
async def test_log_lines_arrive_and_a_worker_speaks_only_of_its_own_attempts(tmp_path: Path) -> None:
    async def chatty(args: Any, worker: HandWorker, assign: Assign) -> Outcome:
        await worker.say(Progress(assign.attempt, 1, "log", b"first", "stdout"))
        await worker.say(Progress(AttemptId(assign.attempt.run, 99, 1), 1, "log", b"forged", "stdout"))
        await worker.say(Progress(assign.attempt, 2, "log", b"second", "stderr"))
        return Success(b"1")

    async with server(tmp_path) as (_, file), worker(file) as pi, client(file) as channel:
        pi.skills["flow.echo"] = chatty
        run = await submit(channel, chain(1))
        rows: list[dict[str, Any]] = []
        async for message in channel.watch("logs", msgspec.json.encode({"run": run, "follow": True})):
            rows += [msgspec.json.decode(line) for line in message.splitlines()]
        assert [(row["task"], row["stream"], row["text"]) for row in rows] == [
            ("t0", "stdout", "first"),
            ("t0", "stderr", "second"),
        ]
        assert (await ask(channel, "info"))["dropped"]["progress_refused"] == 1


@pytest.mark.anyio
async def test_a_large_list_goes_to_the_worker_and_to_the_client_by_digest(tmp_path: Path) -> None:
    plan = {
        "tasks": [
            {"id": "items", "skill": "flow.list", "args": {"items": list(range(40))}},
            {"id": "big", "skill": "flow.echo", "args": {"value": {"ref": "items[]"}}},
            {"id": "all", "skill": "flow.echo", "args": {"value": {"ref": "big"}}},
        ]
    }
    text = "x" * 60_000
    arrived: list[Any] = []

    async def big(args: Any, worker: HandWorker, assign: Assign) -> Outcome:
        if isinstance(args["value"], int):
            return Success(msgspec.json.encode(text))
        arrived.append(args["value"])
        return Success(b"1")

    async with server(tmp_path) as (_, file), worker(file) as pi, client(file) as channel:
        pi.skills["flow.echo"] = big
        run = await submit(channel, plan)
        await events(channel, run)
        whole = msgspec.json.encode([text] * 40)
        assert arrived == [{"artifact": digest_of(whole)}]
        found = await ask(channel, "get", run=run, task="big")
        content = b"".join([chunk async for chunk in channel.get(found["artifact"]["digest"])])
        assert content == whole
        assert await ask(channel, "get", run=run, task="big.7") == {"value": text}


@pytest.mark.anyio
async def test_steering_pause_patch_cancel_and_remove(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), worker(file) as pi, client(file) as channel:
        gate = anyio.Event()

        async def gated(args: Any, worker: HandWorker, assign: Assign) -> Outcome:
            await gate.wait()
            return Success(b"1")

        pi.skills["flow.echo"] = gated
        run = await submit(channel, chain(1, 2), detach=True)
        await pi.until(lambda: bool(pi.assigns))
        await ask(channel, "pause", run=run)
        assert (await ask(channel, "status", run=run))["state"] == "paused"
        await ask(channel, "resume", run=run)
        document = {"tasks": [{"id": "more", "skill": "flow.echo", "args": {"value": 3}, "after": ["t1"]}]}
        assert await ask(channel, "patch", run=run, document=document) == {"version": 2}
        assert "more" in {row["id"] for row in (await ask(channel, "graph", run=run))["tasks"]}
        assert "more" not in {row["id"] for row in (await ask(channel, "graph", run=run, version=1))["tasks"]}
        with pytest.raises(AsterismError, match="still open"):
            await ask(channel, "rm", run=run)
        await ask(channel, "cancel", run=run)
        rows = await events(channel, run)
        assert rows[-1]["state"] == "cancelled"
        await ask(channel, "rm", run=run)
        with pytest.raises(NotFound, match="removed"):
            await ask(channel, "status", run=run)


def test_every_method_has_a_role_and_every_role_a_method() -> None:
    assert methods() == {name for name in ROLES if name[0].islower()}


@pytest.mark.anyio
async def test_a_request_in_words_is_planned_and_an_unknown_planner_makes_no_run(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), worker(file), client(file) as channel:
        run = await submit(channel, None, request="echo(7)", plan=True)
        await events(channel, run)
        report = await ask(channel, "result", run=run)
        assert (report["state"], report["planner"]["kind"], report["planner"]["calls"]) == ("succeeded", "catalog", 1)
        assert list(report["outputs"].values()) == [7]
        document = await ask(channel, "plan", request="echo(7)")
        assert [task["skill"] for task in document["tasks"]] == ["flow.echo"]
        with pytest.raises(UsageError, match="no planner"):
            await submit(channel, None, request="echo(7)", plan=True, planner="crystal-ball")
        with pytest.raises(UsageError, match="neither"):
            await submit(channel, None, request=" ", plan=True)
        assert len((await ask(channel, "ps"))["runs"]) == 1
        abstained = await submit(channel, None, request="paint me a picture of the sea", plan=True)
        await events(channel, abstained)
        assert (await ask(channel, "result", run=abstained))["error"]["code"] == "PlannerAbstained"


@pytest.mark.anyio
async def test_strangers_wrong_roles_and_wrong_bodies_are_refused(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), client(file) as channel:
        async with dial(file.address, "not-the-token") as stranger:
            with pytest.raises(NotAllowed):
                await ask(stranger, "ps")
        identity = await ask(channel, "enroll", name="pi-1")
        async with dial(file.address, identity["secret"]) as worker_channel:
            with pytest.raises(NotAllowed):
                await ask(worker_channel, "shutdown")
        for method, body in (("status", {"rum": 1}), ("cancel", {"run": "r1"}), ("enroll", {"name": "here"})):
            with pytest.raises(UsageError):
                await ask(channel, method, **body)
        renewed = await ask(channel, "enroll", name="pi-1")
        assert renewed["worker"] == identity["worker"]
        async with dial(file.address, identity["secret"]) as old:
            with pytest.raises(NotAllowed):
                await ask(old, "info")
        secrets = {file.token, identity["secret"], renewed["secret"]}
    stored = b"".join(path.read_bytes() for path in (tmp_path / "server").iterdir() if path.is_file())
    assert not any(secret.encode() in stored for secret in secrets)


@pytest.mark.anyio
async def test_one_server_per_journal_and_server_json_comes_and_goes(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file):
        found = load_server(tmp_path)
        assert found == file
        assert (tmp_path / "server.json").stat().st_mode & 0o777 == 0o600
        with pytest.raises(JournalBusy):
            await Runtime(ServerSettings(directory=tmp_path)).run(lambda _: None)
        assert load_server(tmp_path) == file
    assert load_server(tmp_path) is None
    async with server(tmp_path) as (_, second):
        assert second.journal == file.journal
        assert second.token != file.token


@pytest.mark.anyio
async def test_sigterm_ends_it_cleanly_with_a_snapshot_and_tells_its_workers(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), worker(file) as pi, client(file) as channel:
        await events(channel, await submit(channel, chain(1)))
        os.kill(os.getpid(), signal.SIGTERM)
        await pi.until(lambda: bool(pi.byes))
        assert pi.byes[0].retry_after_s >= 0
    from orchestrator.journal.recovery import recover
    from orchestrator.journal.sqlite import SqliteJournal

    journal = SqliteJournal(tmp_path / "server" / "journal.db")
    found = recover(journal)
    assert sum(found.tail.values()) == 0
    assert set(found.state.runs) == {1}
    await journal.aclose()


@pytest.mark.anyio
async def test_a_private_server_ends_when_nobody_needs_it(tmp_path: Path) -> None:
    runtime = Runtime(ServerSettings(directory=tmp_path, private=True, idle_s=0.2))
    await runtime.run(lambda _: None)
    assert load_server(tmp_path) is None


@pytest.mark.anyio
async def test_shutdown_is_an_rpc_for_admins(tmp_path: Path) -> None:
    runtime = Runtime(ServerSettings(directory=tmp_path))

    async def tell(file: ServerFile) -> None:
        async with client(file) as channel:
            assert await ask(channel, "shutdown") == {"stopping": True}

    async with anyio.create_task_group() as group:
        await runtime.run(lambda file: group.start_soon(tell, file))


@pytest.mark.anyio
async def test_a_worker_that_leaves_for_good_is_dismissed_and_its_credential_ends(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), client(file) as channel:
        async with worker(file, "here-abc123", serves="here-abc123") as here:
            rows = (await ask(channel, "workers"))["workers"]
            assert [(row["worker"], row["state"]) for row in rows] == [("here-abc123", "connected")]
            await here.say(Goodbye())
            await ask(channel, "dismiss", worker="here-abc123")
        assert (await ask(channel, "workers"))["workers"] == []
        async with dial(file.address, here.identity["secret"]) as old:
            with pytest.raises(NotAllowed):
                await ask(old, "info")
        skills = {row["name"]: row for row in (await ask(channel, "skills"))["skills"]}
        assert skills["flow.echo"]["workers"] == []


@pytest.mark.anyio
async def test_an_attached_run_is_cancelled_when_its_watcher_leaves_and_a_detached_one_is_not(tmp_path: Path) -> None:
    async with server(tmp_path, leave_s=0.05) as (_, file), worker(file) as pi, client(file) as channel:
        gate = anyio.Event()

        async def gated(args: Any, worker: HandWorker, assign: Assign) -> Outcome:
            await gate.wait()
            return Success(b"1")

        pi.skills["flow.echo"] = gated
        kept = await submit(channel, chain(1), detach=True)
        left = await submit(channel, chain(2))
        freed = await submit(channel, chain(3))
        async with client(file) as other:
            stream = other.watch("events", msgspec.json.encode({"run": left, "follow": True}))
            await anext(stream)
            await ask(channel, "detach", run=freed)
            await stream.aclose()  # type: ignore[attr-defined]
        await pi.until(lambda: any(one.run == left for one in pi.cancelled))
        gate.set()
        for run in (kept, freed):
            assert (await events(channel, run))[-1]["state"] == "succeeded"
        async for message in channel.watch("events", msgspec.json.encode({"run": left, "kinds": ["run_settled"]})):
            assert msgspec.json.decode(message)["state"] == "cancelled"


@pytest.mark.anyio
async def test_a_plan_too_large_for_one_piece_goes_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.service.submission.WHOLE_TASKS", 100)
    monkeypatch.setattr("orchestrator.service.submission.SLICE_TASKS", 30)
    async with server(tmp_path) as (_, file), worker(file), client(file) as channel:
        tasks = [{"id": f"t{k}", "skill": "flow.echo", "args": {"value": k}} for k in range(150)]
        tasks[140]["after"] = ["t3"]
        plan = {"tasks": tasks, "outputs": [{"name": "end", "ref": "t149"}]}
        run = await submit(channel, plan, key="k")
        rows = await events(channel, run)
        assert sum(row["kind"] == "patch_accepted" for row in rows) == 5
        assert (await ask(channel, "result", run=run))["outputs"] == {"end": 149}
        assert await submit(channel, plan, key="k") == run
