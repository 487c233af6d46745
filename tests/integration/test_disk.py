"""A disk that is full or fails under a real server with real workers: it says so, and nothing accepted is lost."""

from __future__ import annotations

import os
import resource
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_durability import TASKS, Fleet, submit


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """16 MiB of their own for the server's files."""
    folder = tmp_path / "home" / "server"
    folder.mkdir(mode=0o700, parents=True)
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def begin(fleet: Fleet) -> str:
    fleet.server()
    fleet.worker("w1")
    fleet.until(lambda: any(row["slots"] for row in (fleet.json("workers") or {"workers": []})["workers"]))
    run = submit(fleet)
    fleet.until(lambda: fleet.done() >= 20)
    return run


def finished(fleet: Fleet, run: str) -> None:
    """Every task succeeded, and none was executed twice."""
    fleet.until(lambda: (fleet.json("status", run) or {}).get("state") in ("succeeded", "failed", "cancelled"), 60)
    report = fleet.json("result", run)
    assert report["outputs"] == {f"o{n}": n * n for n in range(TASKS)}
    lines = Counter((fleet.folder / "ledger").read_text().split("\n"))
    assert [n for n in range(TASKS) if lines[f"start {n}"] != 1] == []
    assert fleet.json("journal", "verify", "--artifacts")["sound"]


def warnings(fleet: Fleet) -> str:
    return " ".join((fleet.json("server", "info") or {}).get("warnings", ()))


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass


def said(fleet: Fleet, *words: str) -> tuple[int, str]:
    done = fleet.said(*words)
    return done.returncode, done.stdout + done.stderr


def test_a_full_disk_is_told_stops_the_run_and_lets_it_go_on_when_there_is_room(small_disk: Path, fleet: Fleet) -> None:
    run = begin(fleet)
    fill(small_disk / "ballast")
    fleet.until(lambda: "the disk is full" in warnings(fleet))
    held = fleet.done()
    code, text = said(fleet, "run", "-f", "plan.json", "--detach")
    assert code == 5
    assert "disk of the server is full" in text
    code, text = said(fleet, "rm", run)
    assert code in (2, 5)
    assert "disk is full" in said(fleet, "doctor")[1]
    assert said(fleet, "gc")[0] == 0
    assert fleet.done() <= held + 4, "what was on its way may end, nothing more is started"
    (small_disk / "ballast").unlink()
    finished(fleet, run)
    assert "the disk is full" not in warnings(fleet)


def test_a_server_whose_write_fails_ends_and_the_next_one_goes_on_from_what_is_on_disk(fleet: Fleet) -> None:
    run = begin(fleet)
    server, address = fleet.running.pop("server"), fleet.address()
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    assert server.wait(20) == 5
    assert "recovers by replay" in (fleet.folder / "server.log").read_text()
    assert "Traceback" not in (fleet.folder / "server.log").read_text()
    fleet.server(address)
    finished(fleet, run)


def test_a_server_that_starts_on_a_full_disk_says_so_and_starts_once_there_is_room(
    small_disk: Path, fleet: Fleet
) -> None:
    fleet.server()
    address = fleet.address()
    fleet.kill("server")
    fill(small_disk / "ballast")
    code, text = said(fleet, "server", "start")
    assert code == 5
    assert "the disk is full" in text
    assert "make room" in text
    (small_disk / "ballast").unlink()
    fleet.server(address)


def test_a_journal_on_a_file_system_that_is_mounted_read_only_is_looked_at_and_not_served(
    small_disk: Path, fleet: Fleet
) -> None:
    fleet.server()
    said(fleet, "server", "stop")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert fleet.json("journal", "verify")["sound"]
    assert fleet.json("journal", "info")["epoch"] == 1
    code, text = said(fleet, "server", "start")
    assert code == 5
    assert "mounted for writing" in text or "can't be opened" in text
    assert "Traceback" not in text


def test_a_server_whose_journal_is_removed_ends_before_it_acknowledges_anything_more(fleet: Fleet) -> None:
    fleet.server()
    (fleet.folder / "home" / "server" / "journal.db").unlink()
    (fleet.folder / "plan.json").write_text('{"tasks": [{"id": "a", "skill": "flow.echo", "args": {"value": 1}}]}')
    code, _ = said(fleet, "run", "-f", "plan.json", "--detach")
    assert code != 0
    assert fleet.running.pop("server").wait(20) == 5
    assert "removed or replaced under its server" in (fleet.folder / "server.log").read_text()
