"""A `once` task on real processes: its daemon and its server killed with SIGKILL around the beginning of its effect."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_durability import Fleet

SKILLS = """
import os, time
from asterism import SkillContext, skill

def note(ledger: str, word: str) -> None:
    with open(ledger, "a") as file:
        file.write(word + "\\n")

def wait(gate: str) -> None:
    while not os.path.exists(gate):
        time.sleep(0.02)

@skill(effect="once")
def pay(ledger: str, gate: str) -> int:
    note(ledger, "paid")
    if gate == "kill":
        os.kill(os.getpid(), 9)
    wait(gate)
    return 42

@skill(effect="once", begin_effect="own")
def careful(ledger: str, gate: str, ctx: SkillContext) -> int:
    note(ledger, "looked")
    wait(gate)
    ctx.begin_effect()
    note(ledger, "paid")
    return 42
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Any:
    made = Fleet(tmp_path)
    (tmp_path / "work.py").write_text(SKILLS)
    try:
        made.server()
        made.worker("w1")
        made.until(lambda: bool([row for row in (made.json("workers") or {"workers": []})["workers"] if row["slots"]]))
        yield made
    finally:
        (tmp_path / "gate").touch()
        made.stop()


def submit(fleet: Fleet, skill: str) -> str:
    args = {"ledger": str(fleet.folder / "ledger"), "gate": str(fleet.folder / "gate")}
    (fleet.folder / "plan.json").write_text(json.dumps({"tasks": [{"id": "a", "skill": skill, "args": args}]}))
    return str(fleet.json("run", "-f", "plan.json", "--detach")["run"])


def ledger(fleet: Fleet) -> list[str]:
    path = fleet.folder / "ledger"
    return path.read_text().split() if path.exists() else []


def is_in(fleet: Fleet, run: str, state: str) -> Callable[[], bool]:
    return lambda: (fleet.json("status", run) or {"tasks": {}})["tasks"].get(state, 0) > 0


def back(fleet: Fleet, name: str) -> None:
    fleet.kill(name)
    fleet.server() if name == "server" else fleet.worker(name)


def test_killed_before_its_effect_it_runs_again_and_pays_once(fleet: Fleet) -> None:
    run = submit(fleet, "careful")
    fleet.until(lambda: ledger(fleet) == ["looked"])
    back(fleet, "w1")
    fleet.until(lambda: ledger(fleet) == ["looked", "looked"])
    (fleet.folder / "gate").touch()
    fleet.until(is_in(fleet, run, "succeeded"))
    assert ledger(fleet) == ["looked", "looked", "paid"]


def test_killed_after_its_effect_began_it_asks_and_a_person_resolves_it(fleet: Fleet) -> None:
    run = submit(fleet, "pay")
    fleet.until(lambda: ledger(fleet) == ["paid"])
    back(fleet, "w1")
    fleet.until(is_in(fleet, run, "unknown"))
    back(fleet, "server")  # what it asks survives
    status = fleet.json("status", run)
    assert "asterism resolve" in status["waiting"]["a"]
    assert fleet.json("explain", f"{run}/a")["state"] == "unknown"
    for _ in range(2):  # the second time changes nothing
        assert fleet.json("resolve", f"{run}/a", "--succeeded", "42") is not None
    assert fleet.json("resolve", f"{run}/a", "--fail") is None
    fleet.until(is_in(fleet, run, "succeeded"))
    assert fleet.json("result", run)["outputs"] == {"a": 42}
    assert ledger(fleet) == ["paid"]


def test_the_server_dies_while_the_effect_goes_on_and_its_report_counts(fleet: Fleet) -> None:
    run = submit(fleet, "pay")
    fleet.until(lambda: ledger(fleet) == ["paid"])
    fleet.kill("server")
    (fleet.folder / "gate").touch()
    fleet.server()
    fleet.until(is_in(fleet, run, "succeeded"))
    assert fleet.json("result", run)["outputs"] == {"a": 42}
    assert ledger(fleet) == ["paid"]


def test_a_process_that_dies_in_its_effect_leaves_a_run_that_waits_for_a_person(fleet: Fleet) -> None:
    args = {"ledger": str(fleet.folder / "ledger"), "gate": "kill"}
    (fleet.folder / "plan.json").write_text(json.dumps({"tasks": [{"id": "a", "skill": "pay", "args": args}]}))
    command = [sys.executable, "-m", "asterism", "run", "-f", "plan.json", "-o", "json"]
    done = subprocess.run(command, env=fleet.env, cwd=fleet.folder, capture_output=True, timeout=60, check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, report["error"]["code"]) == (8, "AwaitingApproval")
    assert report["tasks"]["a"]["state"] == "unknown"
    rows = [row for row in fleet.rows("events", report["run"]) if row["kind"] == "task_unknown"]
    assert "HostDied" in rows[0]["why"]
    command = [sys.executable, "-m", "asterism", "wait", report["run"]]
    waited = subprocess.run(command, env=fleet.env, capture_output=True, text=True, timeout=60, check=False)
    assert (waited.returncode, "asterism resolve" in waited.stderr) == (8, True)
    assert fleet.json("resolve", f"{report['run']}/a", "--fail") is not None
    fleet.until(is_in(fleet, report["run"], "failed"))
    assert ledger(fleet) == ["paid"]
