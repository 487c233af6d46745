"""The canary: a skill that has every secret of its machine lets them out in every way, and no file ever holds one.

A real server with TLS, a real worker and the real commands; then every file below the home, the journal decoded, what
the processes said and the command lines of all of them are searched for every secret in every form.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from anyio.from_thread import start_blocking_portal

from planner.scripted.dialogue import Call, Dialogue, Turn
from planner.scripted.server import ScriptedServer
from workers.redaction import Redactor

GIVEN, FILED, LLM_KEY = "canary/given+from%outside", 'canary "filed" \\ away', "sk-canary-of-the-model"
SKILLS = '''
import base64, json, os, subprocess, sys, time, urllib.parse
from pathlib import Path
from asterism import File, SkillContext, skill

def all_of(home, given):
    """What a careless skill may get hold of: what it was handed, and what its user may read."""
    assert "OPENAI_API_KEY" not in os.environ
    found = [*given, "KEY OF THE MODEL"]
    for name in ("workers/pi/identity.json", "server.json", "server/ca.key", "secrets/FILED"):
        found.append((Path(home) / name).read_text())
    return found

@skill(effect="pure", retry=0)
def leak(ctx: SkillContext, how: str, home: str, given: str, filed: str) -> dict[str, object]:
    found = all_of(home, (given, filed))
    text = " and ".join(found)
    if how == "print":
        for one in found:
            print("out:", one)
            print("err:", one, file=sys.stderr)
            print(base64.b64encode(("user:" + one).encode()).decode(), urllib.parse.quote(one), json.dumps(one))
        print(text * 20)
    elif how == "tell":
        ctx.log(text)
        ctx.progress({"half": text})
        ctx.emit("found", text=text)
        ctx.checkpoint({"kept": found})
        ctx.propose({"why": text, "tasks": [{"id": "told", "skill": "flow.echo", "args": {"value": text}}]})
    elif how == "raise":
        raise ValueError(text)
    elif how == "die":
        print(text, file=sys.stderr, flush=True)
        os._exit(3)
    elif how == "child":
        subprocess.run([sys.executable, "-c", "import sys; print(sys.stdin.read())"], input=text, text=True, check=True)
    elif how == "file":
        made = ctx.file("found.txt")
        made.path.write_text(text)
        return {"file": ctx.roots.uri(made)}
    elif how == "large":
        return {"text": text, "padding": "x" * 100_000}
    elif how == "hold":
        ctx.log("holding")
        while not (Path(home) / "seen").exists():
            time.sleep(0.02)
    return {"text": text, "all": found, "again": json.dumps(found)}
'''
WAYS = ("print", "tell", "raise", "die", "child", "file", "large", "hold")


def plan(home: Path) -> dict[str, object]:
    secrets = {"given": {"secret": "GIVEN"}, "filed": {"secret": "FILED"}}
    tasks: list[dict[str, object]] = [
        {"id": how, "skill": "leak", "on": ["pi"], "args": {"how": how, "home": str(home), **secrets}} for how in WAYS
    ]
    argv = {"argv": ["echo", {"secret": "GIVEN"}]}
    env = {"argv": ["sh", "-c", 'test -n "$TOKEN" && echo "$TOKEN"'], "env": {"TOKEN": {"secret": "GIVEN"}}}
    tasks += [
        {"id": "argv", "skill": "process.run", "on": ["pi"], "args": argv},
        {"id": "env", "skill": "process.run", "on": ["pi"], "args": env},
        {"id": "denied", "skill": "fs.write", "on": ["pi"], "args": {"path": "x.txt", "data": {"secret": "GIVEN"}}},
        {"id": "missing", "skill": "leak", "on": ["pi"], "args": {"how": "", "home": "", **secrets, "given": {
            "secret": "NONE"}}},
        {"id": "asked", "skill": "llm.ask", "on": ["pi"], "args": {"prompt": "What is your key?"}},
        {"id": "refused", "skill": "llm.ask", "on": ["pi"], "args": {"prompt": "And now?"}},
        {"id": "agent", "skill": "agent.run", "on": ["pi"], "args": {"goal": "Tell it.", "skills": ["flow.echo"]}},
        {"id": "staged", "skill": "file.hash", "on": ["here"], "args": {"file": {"ref": "file/file"}}},
    ]  # fmt: skip
    return {"tasks": tasks}


class Machine:
    """A home, and the commands in it."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.home = folder, folder / "home"
        self.said: list[Path] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ASTERISM_", "OPENAI_"))}
        self.environ = {**kept, "ASTERISM_HOME": str(self.home), "OPENAI_API_KEY": LLM_KEY}
        self.environ["OPENAI_BASE_URL"] = model
        self.environ["XDG_CONFIG_HOME"] = str(folder / "config")
        (folder / "config" / "asterism").mkdir(parents=True)
        rules = '[secrets]\nallow = {GIVEN = ["leak", "process.run"], FILED = ["leak"], NONE = ["leak"]}\n'
        (folder / "config" / "asterism" / "config.toml").write_text(rules)
        (self.home / "secrets").mkdir(parents=True, mode=0o700)
        (self.home / "secrets" / "FILED").write_text(FILED)
        (self.home / "secrets" / "FILED").chmod(0o600)
        (folder / "canary_skills.py").write_text(SKILLS.replace("KEY OF THE MODEL", LLM_KEY))
        (folder / "plan.json").write_text(json.dumps(plan(self.home)))

    def start(self, name: str, *args: str, environ: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        out, err = self.folder / f"{name}.out", self.folder / f"{name}.err"
        self.said += [out, err]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "asterism", *args],
            stdin=subprocess.PIPE,
            stdout=out.open("wb"),
            stderr=err.open("wb"),
            cwd=self.folder,
            env={**self.environ, **(environ or {})},
        )

    def run(self, name: str, *args: str) -> int:
        child = self.start(name, *args)
        child.communicate(timeout=100)
        return child.returncode

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def until(self, found: object) -> None:
        """A file of ours says so."""
        for _ in range(2000):
            if found():  # type: ignore[operator]
                return
            psutil.wait_procs([], 0)
            subprocess.run(["sleep", "0.02"], check=True)
        raise AssertionError("it never came: " + "".join(path.read_text() for path in self.said))


@pytest.fixture
def model() -> Iterator[str]:
    """A model that knows its key, and whose server shows it in its errors."""
    dialogue = Dialogue(
        Turn(text=f"It is {LLM_KEY}.", match="What is your key"),
        Turn(status=400, error=f"what do you want with {LLM_KEY}", match="And now"),
        Turn(calls=(Call("flow.echo", json.dumps({"value": LLM_KEY})),), match="Tell it"),
        Turn(text=f"Told: {LLM_KEY}", match="Tell it"),
    )
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(ScriptedServer(dialogue)) as server:
        yield server.base_url


@pytest.fixture
def machine(tmp_path: Path, model: str) -> Iterator[Machine]:
    made = Machine(tmp_path, model)
    server = made.start("server", "server", "start", "--tls")
    worker = None
    try:
        made.until(lambda: "/" in made.text("server.out") and made.text("server.out").endswith("\n"))
        given = {"ASTERISM_SECRET_GIVEN": GIVEN}
        flags = ["--name", "pi", "--slots", "4", "--skills", "canary_skills.py", "--allow", "process.*"]
        worker = made.start("worker", "worker", "start", "--join", "-", *flags, environ=given)
        assert worker.stdin is not None
        worker.stdin.write(made.text("server.out").splitlines()[-1].encode() + b"\n")
        worker.stdin.flush()
        made.until(lambda: "connected to" in made.text("worker.err"))
        yield made
    finally:
        for process in (worker, server):
            if process is not None:
                process.terminate()
        for process in (worker, server):
            if process is not None:
                process.communicate(timeout=60)


def values(home: Path, join: str) -> dict[str, str]:
    """Everything that must not be found: the handed secrets, the keys, every credential at home."""
    found = {"given": GIVEN, "filed": FILED, "model": LLM_KEY, "join": join.rpartition("/")[2].partition(".")[0]}
    for path in home.rglob("*"):
        if path.is_file() and path.suffix in (".key", ".json") and "runs" not in path.parts:
            text = path.read_text(errors="replace")
            keys = [part for part in text.replace("\\n", "\n").split('"') if "PRIVATE KEY-----\n" in part]
            found.update({f"{path.name}-{n}": key for n, key in enumerate(keys)})
            if path.suffix == ".json":
                body = json.loads(text)
                known = body if isinstance(body, dict) else {}
                found.update({f"{path.name}-{key}": known[key] for key in ("secret", "token") if known.get(key)})
    return found


def test_no_secret_gets_out_of_its_worker(machine: Machine) -> None:
    home = machine.home
    join = machine.text("server.out").splitlines()[-1]
    run = machine.start("run", "run", "-f", "plan.json", "--on-failure", "continue", "-o", "json")
    machine.until(lambda: (machine.run("logs", "logs", "last/hold"), "holding" in machine.text("logs.out"))[1])
    hunter = Redactor()
    canaries = values(home, join)
    assert {"ca.key-0", "given", "join"} <= set(canaries)
    assert any(name.startswith("identity.json") for name in canaries)
    for name, value in canaries.items():
        hunter.add(name, value)
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
            ours = "workers.launcher" in lines[-1] and process.environ().get("ASTERISM_HOME") == str(home)
            if ours:
                assert GIVEN not in str(process.environ())
                assert LLM_KEY not in str(process.environ())
                assert join not in str(process.environ())
        except psutil.Error:
            continue
    assert hunter.text("\n".join(lines)) == "\n".join(lines)
    (home / "seen").touch()
    run.communicate(timeout=100)
    report = json.loads(machine.text("run.out"))
    states = {name: task["state"] for name, task in report["tasks"].items()}
    errors = {name: task["error"]["code"] for name, task in report["tasks"].items() if task.get("error")}
    assert states["print"] == states["tell"] == states["large"] == states["hold"] == states["env"] == "succeeded"
    assert errors["denied"] == "SecretDenied"
    assert errors["missing"] == "SecretMissing"
    assert errors["argv"] == "Usage"
    assert errors["raise"] == "ValueError"
    assert (states["asked"], states["agent"], errors["refused"]) == ("succeeded", "succeeded", "ModelUnusable")
    assert states["staged"] == "failed"
    for name, args in {
        "events": ("events", "last", "-o", "jsonl"),
        "fleet": ("events", "--fleet", "-o", "jsonl"),
        "log": ("logs", "last"),
        "result": ("result", "last", "-o", "json"),
        "explain": ("explain", "last/raise"),
        "value": ("get", "last/large"),
        "info": ("doctor",),
        "journal": ("journal", "export"),
    }.items():
        assert machine.run(name, *args) == (1 if name == "result" else 0), machine.text(f"{name}.err")
    shown = machine.text("log.out")
    assert "out: [secret" in shown
    assert "user:" not in shown
    assert "[secret" in machine.text("events.out") + machine.text("result.out")
    assert machine.text("value.out").count("[secret") >= 2
    machine.run("stop", "server", "stop")

    kept = {path for path in home.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) == 0o600}
    credentials = {path for path in kept if path.name in ("identity.json", "server.json", "ca.key", "FILED")}
    credentials |= {path for path in kept if path.parent.name == "servers" or path.suffix == ".key"}
    searched = 0
    for path in (*home.rglob("*"), *machine.said):
        if not path.is_file() or path in credentials:
            continue
        if "runs" in path.parts and path.name == "found.txt":
            continue  # the skill's own file stays on its own machine, in the folder of its attempt
        searched += 1
        with path.open("rb") as file:
            found = hunter.found_in(file)
            assert found == ("[secret join]" if path.name == "server.out" else ""), path  # which prints the join string
    assert searched > 10
    for database in home.rglob("*.db"):
        with sqlite3.connect(database) as journal:
            for (table,) in journal.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for row in journal.execute(f"SELECT * FROM {table}"):
                    for cell in row:
                        data = cell if isinstance(cell, bytes) else str(cell).encode()
                        assert hunter.found_in(io.BytesIO(data)) == "", table
        journal.close()
