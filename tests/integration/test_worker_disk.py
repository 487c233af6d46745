"""A worker whose disk is full, on a real small disk: nothing is lost, no new work is asked for, and it recovers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.faults.small_disk import SmallDisk, missing
from protocol.artifact import digest_of
from protocol.frame import Heartbeat
from protocol.outcome import Failure, Success
from tests.integration.scripted_server import ScriptedServer, assign, scene

SKILLS = """
import time
from pathlib import Path
from workers.context import SkillContext
from workers.skill import File, skill

@skill(effect="pure")
def after(path: str, size: int) -> str:
    Path(f"{path}.{size}").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return "x" * size

@skill(effect="pure")
def length(file: File) -> int:
    return len(file.read_bytes())
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    if why := missing():
        pytest.skip(why)
    folder = tmp_path / "home"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def short(server) -> str:  # type: ignore[no-untyped-def]
    return next((item.short for item in reversed(server.items) if isinstance(item, Heartbeat)), "")


@pytest.mark.anyio
async def test_worker_on_a_full_disk_keeps_its_reports_and_asks_for_no_work(home: Path, tmp_path: Path) -> None:
    (tmp_path / "disk_skills.py").write_text(SKILLS)
    go, disk = tmp_path / "go", SmallDisk(home)
    flags = ("--skills", str(tmp_path / "disk_skills.py"), "--slots", "4", "--root", str(tmp_path))
    content = bytes(range(256)) * 4096
    async with scene(home, ScriptedServer(), *flags) as (server, daemon):
        server.acks = False
        server.store[digest_of(content)] = content
        server.send(
            assign(1, "after", {"path": str(go), "size": 10}),
            assign(2, "after", {"path": str(go), "size": 200_000}),
        )
        await server.until((tmp_path / "go.200000").exists)
        disk.fill()
        await server.until(lambda: short(server) == "DiskFull")
        go.touch()
        assert isinstance((await server.report(1)).outcome, Success), "reports of pure work leave from memory"
        large = (await server.report(2)).outcome
        assert isinstance(large, Failure)
        assert large.klass == "infra", "another worker has room for it"
        server.send(assign(4, "length", {"file": digest_of(content)}))
        refused = await server.until(lambda: [item for item in server.items if getattr(item, "code", "") == "DiskFull"])
        assert refused[0].attempt.task == 4
        disk.make_room()
        server.acks = True
        await server.until(lambda: short(server) == "")
        server.send(assign(5, "length", {"file": digest_of(content)}))
        assert (await server.report(5)).outcome == Success(b"1048576")
        await server.until(server.holds_nothing)
        assert daemon.process.poll() is None
