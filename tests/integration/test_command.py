"""The command line against a server with two workers of its own: who comes in, bad input, steering, what is freed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

import asterism
from orchestrator import local
from protocol import unpickling

SKILLS = """
    import subprocess
    from asterism import File, SkillContext, skill

    @skill(effect="pure")
    def hold(mark: str, ctx: SkillContext) -> int:
        \"\"\"Keeps a process of its own running.\"\"\"
        child = subprocess.Popen(["sleep", "300"])
        ctx.log(f"{mark} {child.pid}")
        return child.wait()

    @skill(effect="pure", local=True)
    def both(a: File, b: File) -> str:
        \"\"\"Reads two files of one machine.\"\"\"
        return open(a).read() + open(b).read()
"""
ASK = {"tasks": [{"id": "h", "skill": "human.ask", "args": {"question": "Which colour?", "choices": ["red", "blue"]}}]}
NAP = {"tasks": [{"id": "nap", "skill": "flow.sleep", "args": {"seconds": 60}}]}


def _no_daemon() -> None:
    """The hook of a daemon would outlive the test: later ones couldn't read what their own processes send them."""
    raise AssertionError("a daemon is a process of its own: use start")


class Shell:
    """The command in this very process, in a folder and an ASTERISM_HOME."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.prefix: tuple[str, ...] = ()
        """What a process is started behind: `ip netns exec NAME`."""
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("ASTERISM_", "OPENAI_"))},
            "ASTERISM_HOME": str(home),
        }

    def run(self, *args: str, stdin: str = "", home: Path | None = None) -> subprocess.CompletedProcess[str]:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ASTERISM_HOME", str(home or self.home))
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            patch.setattr(unpickling, "refuse_unpickling", _no_daemon)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
                asterism.main([*args])
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(args, int(ended.value.code or 0), *texts)

    def json(self, *args: str, code: int = 0, **options: Any) -> Any:
        done = self.run(*args, "-o", "json", **options)
        assert done.returncode == code, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert found["schema"] == "asterism/v1"
        return found

    def start(self, *args: str, stdin: int = subprocess.DEVNULL, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-P", "-m", "asterism", *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environ, **environ},
            cwd=self.folder,
        )

    def write(self, name: str, content: object) -> str:
        (self.folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return name


def worker(shell: Shell, name: str, *options: str, join: str = "") -> subprocess.Popen[str]:
    """A worker daemon that an orchestrator has taken in."""
    root = shell.folder / name
    root.mkdir(exist_ok=True)
    how = ("--join", "-") if join else ()
    process = shell.start(
        *("worker", "start", "--name", name, "--slots", "2", "--root", str(root), *how, *options),
        stdin=subprocess.PIPE if join else subprocess.DEVNULL,
    )
    if join:
        assert process.stdin is not None
        process.stdin.write(join + "\n")
        process.stdin.close()
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("connected to"):
            return process
    raise AssertionError(f"{name} ended with {process.wait()}")


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A server in the background and two workers, for all tests here."""
    folder = tmp_path_factory.mktemp("fleet")
    shell = Shell(folder, folder / "home")
    skills = folder / "extra_skills.py"
    skills.write_text(textwrap.dedent(SKILLS))
    assert shell.run("server", "start", "--detach").returncode == 0
    workers = [
        worker(shell, "w1", "--label", "room=lab", "--allow", "process.*", "--skills", str(skills)),
        worker(shell, "w2", "--label", "room=lab", "--allow", "process.*", "--resource", "gpu=1"),
    ]
    yield shell
    for process in workers:
        end(process)
    shell.run("server", "stop")


@pytest.fixture
def shell(fleet: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, fleet.home)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A folder and a home in which no server runs yet."""
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path, tmp_path / "home")
    yield shell
    shell.run("server", "stop")


def address(home: Path) -> str:
    found = local.read_endpoint({"ASTERISM_HOME": str(home)})
    assert found is not None
    return found.address


# Who comes in


def test_a_token_buys_a_client_its_role_so_many_times_and_its_end_is_theirs(shell: Shell, tmp_path: Path) -> None:
    made = shell.json("token", "create", "--role", "viewer", "--uses", "1")
    server, elsewhere = address(shell.home), tmp_path / "elsewhere"
    kept = shell.json("connect", server, "--name", "ada", stdin=made["join"] + "\n", home=elsewhere)
    assert (kept["role"], kept["name"]) == ("viewer", "ada")
    assert Path(kept["kept"]).stat().st_mode & 0o077 == 0
    assert shell.run("ps", "--server", server, home=elsewhere).returncode == 0
    refused = shell.json("pause", "r1", "--server", server, home=elsewhere, code=4)
    assert refused["error"]["code"] == "NotAllowed"
    assert shell.run("token", "list", "--server", server, home=elsewhere).returncode == 4
    spent = shell.json("connect", server, stdin=made["join"], home=tmp_path / "third", code=4)
    assert "used up" in spent["error"]["message"]
    rows = {row["token"]: row for row in shell.json("token", "list")["tokens"]}
    assert [client["name"] for client in rows[made["token"]]["clients"]] == ["ada"]
    assert shell.json("token", "revoke", made["token"])["ended"] == 1
    assert shell.run("ps", "--server", server, home=elsewhere).returncode == 4
    assert shell.run("token", "revoke", made["token"]).returncode == 2
    assert shell.run("token", "revoke", "t999").returncode == 3


def test_a_token_is_for_its_role_and_for_its_time(shell: Shell, tmp_path: Path) -> None:
    server = address(shell.home)
    for_worker = shell.run("token", "create").stdout
    refused = shell.json("connect", server, stdin=for_worker, home=tmp_path / "x", code=4)
    assert "for the role worker" in refused["error"]["message"]
    short = shell.run("token", "create", "--role", "admin", "--ttl", "1ms").stdout
    assert "expired" in shell.run("connect", server, stdin=short, home=tmp_path / "x").stderr
    assert shell.run("connect", server, stdin=f"{server}/nonsense", home=tmp_path / "x").returncode == 4


def test_a_submitter_brings_its_own_worker_and_takes_nobody_elses_name(shell: Shell, tmp_path: Path) -> None:
    server = address(shell.home)
    join = shell.run("token", "create", "--role", "submitter").stdout
    assert shell.run("connect", server, stdin=join, home=tmp_path / "else").returncode == 0
    name = shell.write("one.json", {"tasks": [{"id": "a", "skill": "sys.info"}]})
    report = shell.json("run", "-f", name, "--server", server, home=tmp_path / "else")
    assert report["tasks"]["a"]["worker"] == "here"


def test_connect_takes_no_secret_from_the_command_line_and_goes_no_further_than_this_machine(shell: Shell) -> None:
    far = shell.json("connect", "10.1.2.3:7000", stdin="x", code=4)
    assert far["error"]["code"] == "NotAllowed"
    assert "no CA to trust" in far["error"]["message"]
    typed = shell.run("connect", "127.0.0.1:1/secret-text", stdin="")
    assert typed.returncode == 2
    assert "secret-text" not in typed.stderr
    assert shell.run("connect", "127.0.0.1:1", stdin="").returncode == 2


def test_tokens_and_what_they_bought_survive_the_server_and_the_journal_has_no_secret(own: Shell) -> None:
    first = own.json("server", "start", "--detach")
    join = own.run("token", "create", "--uses", "2").stdout.strip()
    client = own.run("token", "create", "--role", "viewer").stdout.strip()
    away = own.folder / "away"
    assert own.run("connect", first["address"], stdin=client, home=away).returncode == 0
    own.run("server", "stop")
    again = own.json("server", "start", "--detach", "--listen", first["address"])
    assert again["address"] == first["address"]
    assert own.run("ps", "--server", first["address"], home=away).returncode == 0
    end(worker(own, "pi-1", join=join))
    states = {row["token"]: (row["role"], row["state"], row["used"]) for row in own.json("token", "list")["tokens"]}
    assert states == {"t1": ("worker", "open", 1), "t2": ("viewer", "used up", 1)}
    own.run("server", "stop")
    kept = json.loads(next((away / "servers").iterdir()).read_text())["secret"]
    secrets = [text.rpartition("/")[2].encode() for text in (join, client)] + [kept.encode()]
    for path in (own.home / "server").rglob("*"):
        if path.is_file():
            assert not any(secret in path.read_bytes() for secret in secrets), path


def test_install_writes_a_unit_without_a_secret(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(shell.folder / "config"))
    join = shell.run("token", "create").stdout.strip()
    monkeypatch.setenv("ASTERISM_JOIN", join)
    folder = shell.folder / "a b%"
    folder.mkdir()
    done = shell.run("worker", "install", "--name", "pi-7", "--root", f"{folder}:ro", "--label", "room=x")
    assert done.returncode == 0, done.stderr
    text = Path(done.stdout.strip()).read_text()
    assert join.rpartition("/")[2] not in text
    assert f'--root "{str(folder).replace("%", "%%")}:ro"' in text
    assert f"Environment=ASTERISM_HOME={shell.home}" in text
    assert "systemctl --user enable" in done.stderr
    assert (shell.home / "workers" / "pi-7" / "identity.json").stat().st_mode & 0o077 == 0
    assert shell.run("worker", "install", "--print").stdout.startswith("[Unit]")


# Bad input


BAD = {
    "inputs": [{"name": "f", "type": "file"}, {"name": "m"}],
    "tasks": [
        {"id": "A b", "skill": "flow.echo", "args": {"value": 1}},
        {"id": "b", "skill": "text.coutn"},
        {"id": "c", "skill": "text.count", "args": {"fiel": 1, "pattern": 7}},
        {"id": "d", "skill": "flow.echo", "args": {"value": {"ref": "nowhere"}}, "on": ["w9"]},
        {"id": "e", "skill": "file.hash", "args": {"file": "file://w7/x"}},
    ],
}
FOUND = {
    ("BadId", "tasks/0/id"),
    ("UnknownSkill", "tasks/1/skill"),
    ("SchemaRequired", "tasks/2/args/file"),
    ("SchemaUnknown", "tasks/2/args/fiel"),
    ("SchemaType", "tasks/2/args/pattern"),
    ("UnknownReference", "tasks/3/args/value"),
    ("UnknownPlace", "tasks/3/on"),
    ("UnknownPlace", "tasks/4/args"),
    ("UnknownPlace", "inputs/f"),
    ("MissingInput", "inputs/m"),
}


@pytest.mark.parametrize("how", [(), ("--dry-run",)])
def test_a_plan_is_refused_with_what_is_wrong_in_form_and_in_meaning_at_once(
    shell: Shell, how: tuple[str, ...]
) -> None:
    before = shell.json("ps")["runs"]
    name = shell.write("bad.json", BAD)
    given = () if how else ("--input", "f=file://w8/x")
    error = shell.json("run", "-f", name, *given, *how, code=2)["error"]
    found = {(one["code"], one["where"]): one.get("fix", "") for one in error["problems"]}
    missing = {("UnknownPlace", "inputs/f")} if how else set()
    assert FOUND - missing <= set(found)
    assert "text.count" in found["UnknownSkill", "tasks/1/skill"]
    assert "w1" in found["UnknownPlace", "tasks/4/args"]
    assert shell.json("ps")["runs"] == before


def test_two_machines_files_in_one_local_task_are_refused(shell: Shell) -> None:
    plan = {"tasks": [{"id": "x", "skill": "both", "args": {"a": "file://w1/p", "b": "file://w2/q"}}]}
    error = shell.json("run", "-f", shell.write("two.json", plan), code=2)["error"]
    assert [one["code"] for one in error["problems"]] == ["FilesOnTwoMachines"]


# Steering


def test_a_question_is_shown_in_words_and_answered(shell: Shell) -> None:
    name = shell.json("run", "-f", shell.write("ask.json", ASK), code=8)["run"]
    assert "Which colour? (red, blue)" in shell.json("status", name)["waiting"]["h"]
    rows = [json.loads(line) for line in shell.run("events", name, "-o", "jsonl").stdout.splitlines()]
    waited = next(row for row in rows if row["kind"] == "task_waited")
    assert (waited["detail"], waited["choices"]) == ("Which colour?", ["red", "blue"])
    assert shell.run("answer", f"{name}/h", "blue").returncode == 0
    assert shell.run("wait", name).returncode == 0
    assert shell.json("get", f"{name}/h/answer")["value"] == "blue"


def test_a_rejected_task_fails_its_run_and_can_be_retried(shell: Shell) -> None:
    plan = {
        "tasks": [
            {"id": "a", "skill": "flow.echo", "args": {"value": 1}},
            {"id": "b", "skill": "flow.echo", "args": {"value": {"ref": "a/value"}}, "approve": True},
        ]
    }
    name = shell.json("run", "-f", shell.write("gate.json", plan), code=8)["run"]
    assert shell.run("reject", f"{name}/b", "-m", "not today").returncode == 0
    done = shell.run("wait", name)
    assert done.returncode == 1
    assert "not today" in done.stderr
    assert shell.run("approve", f"{name}/b").returncode == 3
    again = shell.json("retry", name, "--from-failed", "--detach")["run"]
    assert shell.run("approve", f"{again}/b").returncode in (0, 3)
    if shell.json("status", again)["state"] == "open":
        shell.run("wait", again, "--timeout", "100ms")
        shell.run("approve", f"{again}/b")
    assert shell.run("wait", again, "--timeout", "20s").returncode == 0
    assert shell.json("tasks", again)["tasks"]["a"]["attempts"] == 0


def test_a_paused_run_starts_nothing_until_it_is_resumed(shell: Shell) -> None:
    plan = {
        "tasks": [
            {"id": "gate", "skill": "flow.echo", "args": {"value": 1}, "approve": True},
            {"id": "next", "skill": "flow.echo", "args": {"value": {"ref": "gate"}}},
        ]
    }
    name = shell.json("run", "-f", shell.write("pause.json", plan), code=8)["run"]
    assert shell.run("pause", name).returncode == 0
    assert shell.run("approve", f"{name}/gate").returncode == 0
    assert shell.json("status", name)["state"] == "paused"
    assert shell.run("wait", name, "--timeout", "300ms").returncode == 124
    assert shell.run("resume", name).returncode == 0
    assert shell.run("wait", name).returncode == 0


@pytest.mark.parametrize("what", ["", "/h"])
def test_cancel_ends_the_processes_too(shell: Shell, what: str) -> None:
    plan = {"tasks": [{"id": "h", "skill": "hold", "args": {"mark": "child"}, "on": ["w1"]}]}
    name = shell.json("run", "-f", shell.write("hold.json", plan), "--detach")["run"]
    following = shell.start("logs", "-f", f"{name}/h", "-o", "jsonl")
    assert following.stdout is not None
    pid = int(json.loads(following.stdout.readline())["text"].split()[1])
    child = psutil.Process(pid)
    assert shell.run("cancel", name + what).returncode == 0
    shell.run("wait", name, "--timeout", "20s")
    assert shell.json("tasks", name)["tasks"]["h"]["state"] == "cancelled"
    child.wait(10)
    following.wait(20)
    end(following)


def test_a_drained_worker_finishes_what_it_has_and_leaves(fleet: Shell, shell: Shell) -> None:
    leaving = worker(Shell(shell.folder, fleet.home), "w3")
    plan = {"tasks": [{"id": "nap", "skill": "flow.sleep", "args": {"seconds": 1, "value": 5}, "on": ["w3"]}]}
    name = shell.json("run", "-f", shell.write("nap.json", plan), "--detach")["run"]
    assert shell.run("worker", "drain", "w3").returncode == 0
    assert shell.run("wait", name, "--timeout", "20s").returncode == 0
    row = shell.json("tasks", name)["tasks"]["nap"]
    assert (row["worker"], row["attempts"]) == ("w3", 1)
    assert leaving.wait(20) == 0
    end(leaving)
    assert shell.run("worker", "drain", "nobody").returncode == 3


def test_a_worker_that_is_told_to_leave_while_it_dials_leaves(own: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is opened after it has decided to go: nobody else would ever end it."""
    from protocol.security import home
    from workers import cli
    from workers.profile import Declared
    from workers.spawned import Spawned

    assert own.run("server", "start", "--detach").returncode == 0
    monkeypatch.setenv("ASTERISM_HOME", str(own.home))
    daemons: list[Any] = []
    dialler = cli.dialler

    async def note(daemon: Any, _: Any) -> None:
        daemons.append(daemon)

    class Leaving:
        """A channel whose worker is told to leave while it opens its line."""

        def __init__(self, channel: Any) -> None:
            self._channel = channel

        async def link(self) -> Any:
            daemons[0].drain()
            return await self._channel.link()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._channel, name)

    def leaving(credential: Any) -> Any:
        @contextlib.asynccontextmanager
        async def dial() -> Any:
            async with dialler(credential)() as channel:
                yield Leaving(channel)

        return dial

    async def main() -> None:
        with anyio.fail_after(20):
            await cli.serve("w9", home() / "workers" / "w9", Declared(), (), None, Spawned())

    monkeypatch.setattr(cli, "when_ready", note)
    monkeypatch.setattr(cli, "dialler", leaving)
    (own.home / "workers" / "w9").mkdir(parents=True)
    anyio.run(main)


def test_an_edit_is_refused_with_what_is_wrong_in_form_and_in_meaning_at_once(shell: Shell) -> None:
    name = shell.json("run", "-f", shell.write("nap.json", NAP), "--detach")["run"]
    patch = {"tasks": [{"id": "B", "skill": "flow.echo"}, {"id": "c", "skill": "flow.ecoh", "on": ["w9"]}]}
    error = shell.json("edit", name, "-f", shell.write("patch.json", patch), code=2)["error"]
    found = {(one["code"], one["where"]) for one in error["problems"]}
    assert {("BadId", "tasks/0/id"), ("UnknownSkill", "tasks/1/skill"), ("UnknownPlace", "tasks/1/on")} <= found
    assert shell.json("status", name)["version"] == 1
    shell.run("cancel", name)


def test_exec_finds_the_gpu_and_goes_to_each_line_on_labelled_machines(shell: Shell) -> None:
    assert shell.run("exec", "-q", "--gpu", "1", "--", "echo", "hi").stdout == "hi\n"
    assert shell.json("result")["tasks"]["exec"]["worker"] == "w2"
    mapped = shell.run("exec", "-q", "--on", "room=lab", "--each", "-", "--", "echo", "x", "{}", stdin="a\nb\n")
    assert mapped.stdout == "x a\nx b\n"
    everywhere = shell.run("exec", "-q", "--on", "all", "--", "echo", "y")
    assert everywhere.stdout.split() == ["y"] * 3, everywhere.stderr


def test_exit_codes_say_what_kept_a_run_from_its_end(shell: Shell) -> None:
    two = [
        {"id": "a", "skill": "flow.echo", "args": {"value": 1}},
        {"id": "b", "skill": "flow.echo", "args": {"value": {"ref": "a"}}},
    ]
    budget = shell.write("budget.json", {"run": {"budget": {"attempts": 1}}, "tasks": two})
    assert shell.json("run", "-f", budget, code=7)["error"]["code"] == "BudgetSpent"
    nap = shell.write("nap.json", NAP)
    assert shell.json("run", "-f", nap, "--deadline", "200ms", "--best-effort", code=124)["error"]["code"] == "TimedOut"
    late = shell.run("run", "-q", "-f", nap, "--deadline", "200ms", "--best-effort")
    assert "TimedOut" in late.stderr
    needs = {"run": {"schedule_grace": "1h"}, "tasks": [{**two[0], "needs": {"gpu": 99}}]}
    lonely = ("run", "-f", shell.write("needs.json", needs), "--schedule-grace", "200ms")
    assert shell.json(*lonely, code=6)["error"]["code"] == "NoEligibleWorker"
    assert shell.run("graph", "--version", "9").returncode == 3
    assert shell.run("status", "r999").returncode == 3


def test_a_second_ctrl_c_leaves_at_once(shell: Shell) -> None:
    plan = {"tasks": [{"id": "h", "skill": "hold", "args": {"mark": "x"}, "on": ["w1"]}]}
    running = shell.start("run", "-f", shell.write("hold.json", plan), "-o", "jsonl")
    assert running.stdout is not None
    for line in running.stdout:
        if json.loads(line)["kind"] == "attempt_dispatched":
            break
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    assert "cancelling" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 130
    end(running)


# What is freed


def test_gc_frees_what_no_run_names_and_rm_takes_the_events(own: Shell) -> None:
    text = "y" * 200_000
    plan = {
        "tasks": [
            {"id": "a", "skill": "flow.echo", "args": {"value": text}},
            {"id": "b", "skill": "flow.echo", "args": {"value": {"ref": "a/value"}}},
        ]
    }
    name = own.write("large.json", plan)
    assert own.json("run", "-f", name)["run"] == "r1"
    assert own.json("run", "-f", name)["run"] == "r2"
    assert own.json("gc", "--grace", "0")["artifacts"] == 0
    assert own.run("rm", "r1").returncode == 0
    assert own.json("gc", "--grace", "0")["artifacts"] == 0, "r2 has the same values"
    assert own.json("get", "r2/b/value")["value"] == text
    assert own.json("run", "-f", name)["run"] == "r3"
    assert own.json("rm", "r2", "r3")["runs"] == ["r2", "r3"]
    assert own.json("gc")["artifacts"] == 0, "younger than the grace"
    would = own.json("gc", "--grace", "0", "--dry-run")
    assert would["artifacts"] > 0
    freed = own.json("gc", "--grace", "0")
    assert (freed["artifacts"], freed["artifact_bytes"]) == (would["artifacts"], would["artifact_bytes"])
    assert freed["artifact_bytes"] > len(text)
    own.run("server", "stop")
    with contextlib.closing(sqlite3.connect(own.home / "server" / "journal.db")) as journal:
        assert journal.execute("SELECT run, kind FROM event WHERE run > 0").fetchall() == [
            (1, "RunRemoved"),
            (2, "RunRemoved"),
            (3, "RunRemoved"),
        ]
        assert journal.execute("SELECT COUNT(*) FROM snapshot WHERE part > 0").fetchone() == (0,)


def test_a_private_server_ends_itself_when_nobody_needs_it(own: Shell) -> None:
    name = own.write("one.json", {"tasks": [{"id": "a", "skill": "flow.echo", "args": {"value": 1}}]})
    running = own.start("run", "-f", name, "-o", "json", ASTERISM_DAEMON__IDLE="500ms")
    found: list[Any] = []
    while running.poll() is None and not found:
        endpoint = local.read_endpoint(own.environ)
        found += [endpoint] if endpoint is not None else []
    out, _ = running.communicate(timeout=60)
    assert json.loads(out)["outputs"] == {"a": {"value": 1}}
    server = found[0].pid
    if psutil.pid_exists(server):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(server).wait(20)
    assert local.read_endpoint(own.environ) is None
    assert own.json("result")["outputs"] == {"a": {"value": 1}}, "looking back starts it again"
