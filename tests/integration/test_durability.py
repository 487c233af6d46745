"""kill -9 of a worker and of the server in the middle of a run, on real processes: nothing accepted is lost.

Each task appends to a ledger as it starts and as it finishes, so the machine's own account of what was executed can be
held against the run's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

TASKS = 200
SKILLS = """
import os, time
from asterism import skill

@skill(effect="pure")
def work(n: int, ledger: str) -> int:
    line = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(line, f"start {n}\\n".encode())
    time.sleep(0.02)
    while n >= 60 and os.path.exists(ledger + ".hold"):  # for who must look before the run is over
        time.sleep(0.01)
    os.write(line, f"done {n}\\n".encode())
    os.close(line)
    return n * n
"""


class Fleet:
    """One server and two workers as child processes with a home of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "ASTERISM_HOME": str(folder / "home"), "NO_COLOR": "1"}
        (folder / "work.py").write_text(SKILLS)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *words: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        command = [*self.command(), *words]
        self.running[name] = subprocess.Popen(command, env=self.env, cwd=self.folder, stdout=log, stderr=log)

    @staticmethod
    def command() -> list[str]:
        return [sys.executable, "-m", "asterism"]

    def server(self, address: str = "") -> None:
        self.start("server", "server", "start", "--listen", address or self.address())
        pid = self.running["server"].pid
        self.until(lambda: self.found().get("pid") == pid)

    def address(self) -> str:
        return str(self.found().get("address", "127.0.0.1:0"))

    def worker(self, name: str) -> None:
        root = self.folder / name
        root.mkdir(exist_ok=True)
        words = ("--name", name, "--slots", "2", "--root", str(root), "--skills", str(self.folder / "work.py"))
        self.start(name, "worker", "start", *words)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def said(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [*self.command(), *words]
        return subprocess.run(argv, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=60)

    def json(self, *words: str) -> Any:
        done = self.said(*words, "-o", "json")
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout else None

    def rows(self, *words: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "asterism", *words, "-o", "jsonl"],
            env=self.env, cwd=self.folder, capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    def found(self) -> dict[str, Any]:
        """What the last server said of itself; it may be dead."""
        file = self.folder / "home" / "server.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def until(self, holds: Any, seconds: float = 30.0) -> None:
        """Poll real processes up to a deadline; the log of the one at fault says why when it is missed."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                logs = {path.name: path.read_text()[-2000:] for path in self.folder.glob("*.log")}
                pytest.fail(f"it did not come to pass in {seconds} s: {logs}")
            time.sleep(0.05)

    def done(self) -> int:
        ledger = self.folder / "ledger"
        return ledger.read_text().count("done ") if ledger.exists() else 0

    def stop(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGKILL)
            process.wait(10)


def plan(folder: Path) -> dict[str, Any]:
    ledger = str(folder / "ledger")
    tasks = [{"id": f"t{n}", "skill": "work", "args": {"n": n, "ledger": ledger}} for n in range(TASKS)]
    return {"tasks": tasks, "outputs": [{"name": f"o{n}", "ref": f"t{n}"} for n in range(TASKS)]}


@pytest.fixture
def fleet(tmp_path: Path) -> Any:
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def submit(fleet: Fleet) -> str:
    (fleet.folder / "plan.json").write_text(json.dumps(plan(fleet.folder)))
    started = fleet.json("run", "-f", "plan.json", "--detach")
    assert started is not None
    return str(started["run"])


def check(fleet: Fleet, run: str, killed_slots: int) -> None:
    fleet.until(lambda: (fleet.json("status", run) or {}).get("state") in ("succeeded", "failed", "cancelled"), 90)
    report = fleet.json("result", run)
    assert report["state"] == "succeeded"
    assert report["outputs"] == {f"o{n}": n * n for n in range(TASKS)}
    lines = Counter((fleet.folder / "ledger").read_text().split("\n"))
    finished = {n: lines[f"done {n}"] for n in range(TASKS)}
    assert all(count >= 1 for count in finished.values())
    again = [n for n in range(TASKS) if lines[f"start {n}"] > 1]
    assert len(again) <= killed_slots, f"only what was in flight at a killed worker may run again, not {again}"


def test_a_run_survives_kill_9_of_a_worker_and_of_the_server(fleet: Fleet) -> None:
    fleet.server()
    fleet.worker("w1")
    fleet.worker("w2")
    fleet.until(lambda: len([w for w in (fleet.json("workers") or {"workers": []})["workers"] if w["slots"]]) == 2)
    run = submit(fleet)
    fleet.until(lambda: fleet.done() >= 40)
    fleet.kill("w1")
    fleet.until(lambda: fleet.done() >= 70)
    fleet.kill("server")
    before = fleet.done()
    fleet.server()
    fleet.worker("w1")
    fleet.until(lambda: fleet.done() > before)
    check(fleet, run, killed_slots=4)  # two in flight at w1, and two that may have ended in its last instant
