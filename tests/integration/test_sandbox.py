"""What holds a skill in, on real processes: nobody survives a cancel, and a cell shows nothing but what was given."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from protocol.artifact import ArtifactRef, digest_of
from protocol.frame import Cancel, Stage, Staged
from protocol.outcome import Failure, Stopped, Success
from tests.integration.scripted_server import Daemon, ScriptedServer, assign, scene
from workers import sandbox

SKILLS = '''
import os, socket, sys, time
from pathlib import Path
from workers.context import AsyncSkillContext, SkillContext
from workers.skill import File, skill

def fork_away(marker):
    """Twice, into another session: out of the process group, and no longer a descendant."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 64)
            Path(marker).write_text(str(os.getpid()))
            while True:
                time.sleep(600)
        os._exit(0)
    os.wait()

@skill(effect="pure")
def runaway(marker: str) -> str:
    fork_away(marker)
    time.sleep(600)

@skill(effect="pure")
def level() -> dict[str, str]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"privileges": status["NoNewPrivs"].strip(), "groups": Path("/proc/self/cgroup").read_text()}

def attempt(what):
    try:
        return str(what())
    except OSError as error:
        return type(error).__name__

@skill(effect="pure", sandbox="bubblewrap")
def look(ctx: SkillContext, file: File, secret: str) -> dict[str, str]:
    found = {
        "file": file.read_text(),
        "secret": attempt(Path(secret).read_text),
        "beside": attempt(file.path.with_name("beside").read_text),
        "home": str(sorted(os.listdir(os.path.expanduser("~")))),
        "system": attempt(lambda: Path("/usr/planted").write_text("x")),
        "input": attempt(lambda: file.path.write_text("x")),
        "network": attempt(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
        "interfaces": ",".join(name for _, name in socket.if_nameindex()),
        "processes": str(len([name for name in os.listdir("/proc") if name.isdigit()])),
        "environment": " ".join(sorted(os.environ)),
        "uid": str(os.getuid()),
    }
    ctx.file("made.txt").path.write_text("made inside")
    return found

@skill(effect="pure", sandbox="bubblewrap")
def make(ctx: SkillContext, text: str) -> File:
    made = ctx.file("made.txt")
    made.path.write_text(text)
    return made

@skill(effect="pure", sandbox="bubblewrap")
def wait(marker: str) -> str:
    fork_away(marker)
    try:
        time.sleep(600)
    finally:
        print("tidied", flush=True)

@skill(effect="pure", sandbox="bubblewrap")
def big(size: int) -> str:
    return "x" * size

@skill(effect="pure", sandbox="bubblewrap")
async def awaited(ctx: AsyncSkillContext) -> int:
    return os.getpid()

@skill(effect="pure", sandbox="bubblewrap")
def forge(path: str) -> str:
    """Tells the daemon that a file of the person is the value of this attempt, and that it made another."""
    import gc
    from protocol.artifact import ArtifactRef
    from protocol.outcome import Success, Usage
    from workers.host import SlotHost
    from workers.pipe import Finished
    host = next(one for one in gc.get_objects() if type(one).__name__ == "SlotHost")
    from protocol.ids import AttemptId
    outcome = Success(ArtifactRef("sha256:" + "0" * 64, "application/json", 5))
    host._send(Finished(AttemptId(1, 1, 1), outcome, Usage(), path, (path,)))
    time.sleep(600)
'''

STRANGE = """
import os
from pathlib import Path
from workers.skill import File, skill

HOME = os.path.dirname(os.path.dirname(__file__))
try:
    Path(HOME, "loaded-outside").write_text("x")
except OSError:
    pass
SEEN = str(sorted(os.listdir(HOME)))

@skill(effect="pure", local=True, network=True, sandbox="process")
def strange() -> dict[str, str]:
    return {"seen": SEEN, "network": os.readlink("/proc/self/ns/net"), "home": str(os.path.exists(HOME + "/data"))}
"""

LOCAL = """
import os
from pathlib import Path
from workers.context import SkillContext
from workers.skill import File, skill

@skill(effect="pure", local=True, network=True, sandbox="bubblewrap")
def touch(ctx: SkillContext, paths: list[str]) -> dict[str, str]:
    found = {"network": os.readlink("/proc/self/ns/net")}
    for path in paths:
        try:
            Path(path).write_text("touched")
            found[os.path.basename(os.path.dirname(path))] = "written"
        except OSError as error:
            found[os.path.basename(os.path.dirname(path))] = type(error).__name__
    return found
"""

TOOLS = """
[skills.peek]
argv = ["cat", "{file}"]
args = { file = "file" }
sandbox = "bubblewrap"
effect = "pure"
"""

FOUND, GROUPS = sandbox.find(f"test-{os.getpid()}")
HELD = {trial.level: trial for trial in FOUND.trials}
if GROUPS is not None:
    GROUPS.remove()


def needs(level: str) -> pytest.MarkDecorator:
    trial = HELD[level]  # type: ignore[index]
    return pytest.mark.skipif(not trial.held, reason=f"{level} does not hold here: {trial.note}")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home() -> Iterator[Path]:
    """Not below /tmp, which a cell has anew."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder)
        (path / "skills").mkdir()
        (path / "skills" / "held_skills.py").write_text(SKILLS)
        (path / "skills" / "tools.toml").write_text(TOOLS)
        (path / "data").mkdir()
        yield path


def open_scene(home: Path) -> Any:
    flags = ["--skills", str(home / "skills" / "held_skills.py"), "--skills", str(home / "skills" / "tools.toml")]
    return scene(home, ScriptedServer(), *flags, "--slots", "2", "--root", str(home / "data"))


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("level", ["process", pytest.param("cgroup", marks=needs("cgroup"))])
@pytest.mark.anyio
async def test_skill_that_forks_itself_away_leaves_nobody_behind(
    home: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTERISM_SANDBOX__MAXIMUM", level)
    marker = home / "runaway.pid"
    async with open_scene(home) as (server, daemon):
        assert server.hellos[0].profile.sandbox == level
        server.send(assign(2, "level"), work := assign(1, "runaway", {"marker": str(marker)}))
        shown = msgspec.json.decode((await server.report(2)).outcome.value)
        assert shown["privileges"] == "1"
        assert ("asterism-" in shown["groups"]) == (level == "cgroup")
        await server.until(lambda: marker.exists() and marker.read_text())
        pid = int(marker.read_text())
        assert alive(pid)
        server.send(Cancel(work.attempt, grace_s=0.1))
        assert isinstance((await server.report(1)).outcome, Stopped)
        assert not alive(pid)
        marker.unlink()
        server.send(assign(3, "runaway", {"marker": str(marker)}))
        await server.until(lambda: marker.exists() and marker.read_text())
        daemon.process.kill()  # and the same when the daemon itself is killed
        await server.until(lambda: not alive(int(marker.read_text())))


@needs("cgroup")
@pytest.mark.anyio
async def test_what_a_killed_worker_and_launcher_left_is_ended_by_the_next_start(home: Path) -> None:
    marker = home / "runaway.pid"
    async with open_scene(home) as (server, daemon):
        server.send(assign(1, "runaway", {"marker": str(marker)}))
        await server.until(lambda: marker.exists() and marker.read_text())
        [launcher] = psutil.Process(daemon.process.pid).children()
        launcher.suspend()
        daemon.kill()
        launcher.kill()
        pid = int(marker.read_text())
        await server.until(lambda: not alive(launcher.pid))
        assert alive(pid), "nobody was there to end it"
        again = Daemon(home, server.port, "--skills", str(home / "skills" / "held_skills.py"))
        try:
            await server.joined(2)
            assert not alive(pid)
        finally:
            again.close()


@needs("bubblewrap")
@pytest.mark.anyio
async def test_cell_shows_its_inputs_and_nothing_else_of_this_machine(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-of-the-environment")
    (home / "data" / "named.txt").write_text("named")
    (home / "data" / "beside").write_text("not for you")
    secret = home / "data" / "secret.txt"
    secret.write_text("canary")
    content = b'["deep in an artifact"]'
    async with open_scene(home) as (server, _):
        assert server.hellos[0].profile.sandbox == "bubblewrap"
        server.store[digest_of(content)] = content
        uri = f"file://pi-1{home}/data/named.txt"
        server.send(
            assign(1, "look", {"file": uri, "secret": str(secret)}),
            assign(2, "look", {"file": digest_of(content), "secret": str(secret)}),
            assign(3, "peek", {"file": uri}),
            assign(4, "awaited"),
        )
        first = (await server.report(1)).outcome
        second = (await server.report(2)).outcome
        assert isinstance(first, Success), first
        assert isinstance(second, Success), second
        found = msgspec.json.decode(first.value)  # type: ignore[arg-type]
        known = {"HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PWD", "PYTHONDONTWRITEBYTECODE", "TMPDIR", "TZ"}
        assert set(found["environment"].split()) <= {*known, "PYTHONPATH", "ASTERISM_HTTP__ALLOW"}
        assert found["file"] == "named"
        assert (found["secret"], found["beside"]) == ("FileNotFoundError", "FileNotFoundError")
        assert found["home"] == "[]"
        assert found["system"] == "OSError"  # read-only
        assert found["input"] in ("OSError", "PermissionError")
        assert (found["network"], found["interfaces"]) == ("ConnectionRefusedError", "lo")
        assert int(found["processes"]) <= 3
        assert found["uid"] == "65534"
        assert msgspec.json.decode(second.value)["file"] == content.decode()  # type: ignore[arg-type]
        peeked = (await server.report(3)).outcome
        assert isinstance(peeked, Success), peeked
        assert msgspec.json.decode(peeked.value)["stdout"] == "named"  # type: ignore[arg-type]
        assert isinstance((await server.report(4)).outcome, Success)
        await server.until(server.holds_nothing)
        assert not list((home / "workers" / "pi-1" / "inputs").iterdir())


@needs("bubblewrap")
@pytest.mark.anyio
async def test_what_a_cell_makes_comes_out_and_what_it_claims_does_not(home: Path) -> None:
    secret = home / "data" / "secret.txt"
    secret.write_text("canary")
    marker = home / "never.pid"
    async with open_scene(home) as (server, _):
        server.send(assign(1, "forge", {"path": str(secret)}), assign(2, "make", {"text": "made inside"}))
        forged = (await server.report(1)).outcome
        assert isinstance(forged, Failure)
        assert "does not lie" in forged.message
        assert secret.read_text() == "canary"
        made = (await server.report(2)).outcome
        assert isinstance(made, Success), made
        uri = msgspec.json.decode(made.value)  # type: ignore[arg-type]
        server.send(Stage(1, uri), Stage(1, f"file://pi-1{secret}"))
        staged = await server.until(lambda: [i for i in server.items if isinstance(i, Staged)][1:] and [
            i for i in server.items if isinstance(i, Staged)])  # fmt: skip
        by_uri = {one.uri: one for one in staged}
        ref = by_uri[uri].ref
        assert ref is not None
        assert server.store[ref.digest] == b"made inside"
        assert by_uri[f"file://pi-1{secret}"].code == "NotAllowed"
        server.send(assign(3, "big", {"size": 100_000}), work := assign(4, "wait", {"marker": str(marker)}))
        big = (await server.report(3)).outcome
        assert isinstance(big, Success), big
        assert isinstance(big.value, ArtifactRef)
        host = await server.until(lambda: next((p for p in psutil.process_iter() if p.name() == "bwrap"), None))
        inside = host.children(recursive=True)
        server.send(Cancel(work.attempt, grace_s=5.0))
        assert isinstance((await server.report(4)).outcome, Stopped)
        assert not any(alive(process.pid) for process in (host, *inside))


@pytest.mark.anyio
async def test_skill_that_no_level_here_may_hold_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTERISM_SANDBOX__MAXIMUM", "process")
    async with open_scene(home) as (server, _):
        server.send(assign(1, "big", {"size": 1}))
        outcome = (await server.report(1)).outcome
        assert isinstance(outcome, Failure)
        assert (outcome.code, outcome.klass) == ("NoSandbox", "permanent")


@needs("bubblewrap")
@pytest.mark.anyio
async def test_local_skill_writes_where_the_roots_say_and_has_the_network_it_declares(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a setting brings a trusted skill down to the level: process.run, which is local too."""
    monkeypatch.setenv("ASTERISM_SANDBOX__SKILLS", '{"process.*": "bubblewrap"}')
    (home / "skills" / "local_skills.py").write_text(LOCAL)
    (home / "kept").mkdir()
    flags = ["--skills", str(home / "skills" / "local_skills.py"), "--allow", "process.*"]
    flags += ["--root", str(home / "data"), "--root", f"{home}/kept:ro"]
    async with scene(home, ScriptedServer(), *flags, "--slots", "2") as (server, _):
        paths = [f"{home}/{name}/x" for name in ("data", "kept", "skills")]
        argv = ["sh", "-c", f"touch {home}/data/y; ls /proc | grep -c '^[0-9]'; readlink /proc/self/ns/net; ls {home}"]
        server.send(assign(1, "touch", {"paths": paths}), assign(2, "process.run", {"argv": argv}, effect="once"))
        touched = (await server.report(1)).outcome
        assert isinstance(touched, Success), touched
        found = msgspec.json.decode(touched.value)  # type: ignore[arg-type]
        outside = os.readlink("/proc/self/ns/net")
        assert found == {"data": "written", "kept": "OSError", "skills": "OSError", "network": outside}
        ran = (await server.report(2)).outcome
        assert isinstance(ran, Success), ran
        processes, network, *seen = msgspec.json.decode(ran.value)["stdout"].split()  # type: ignore[arg-type]
        assert int(processes) <= 6
        assert network != outside
        assert seen == ["data", "kept", "workers"], "the roots, and the way to the attempt's own folder"
        assert (home / "data" / "y").exists()


@needs("bubblewrap")
@pytest.mark.anyio
async def test_untrusted_source_is_loaded_in_a_cell_too_and_takes_no_liberties(home: Path) -> None:
    (home / "strange").mkdir()
    (home / "strange" / "strange_skills.py").write_text(STRANGE)
    flags = ["--untrusted", str(home / "strange" / "strange_skills.py"), "--root", str(home / "data")]
    async with scene(home, ScriptedServer(), *flags) as (server, _):
        spec = next(one for one in server.hellos[0].profile.skills if one.name == "strange")
        assert (spec.sandbox, spec.network, spec.place) == ("bubblewrap", False, "any")
        server.send(assign(1, "strange"))
        outcome = (await server.report(1)).outcome
        assert isinstance(outcome, Success), outcome
        found = msgspec.json.decode(outcome.value)  # type: ignore[arg-type]
        assert "strange" in found["seen"]
        assert "data" not in found["seen"]
        assert found["home"] == "False"
        assert found["network"] != os.readlink("/proc/self/ns/net")
        assert not (home / "loaded-outside").exists()


@pytest.mark.anyio
async def test_untrusted_source_without_bubblewrap_ends_the_worker_with_the_reason(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTERISM_SANDBOX__MAXIMUM", "process")
    server = ScriptedServer()
    await server.start()
    daemon = Daemon(home, server.port, "--untrusted", str(home / "skills" / "held_skills.py"))
    try:
        assert await daemon.exit_status() == 2
    finally:
        daemon.close()
        await server.stop()
    assert "bubblewrap does not hold here" in (home / "daemon.err").read_text()
    assert not server.hellos
