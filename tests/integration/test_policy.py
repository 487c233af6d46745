"""Policies and approvals on real processes: server and worker each with settings of their own, restarts between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_durability import Fleet
from tests.integration.test_once import SKILLS, back, is_in


@pytest.fixture
def fleet(tmp_path: Path) -> Any:
    made = Fleet(tmp_path)
    made.env["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    (tmp_path / "work.py").write_text(SKILLS)
    try:
        yield made
    finally:
        made.stop()


def rules(fleet: Fleet, **words: str) -> None:
    folder = fleet.folder / "config" / "asterism"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f'"{skill.replace("_", ".")}" = "{word}"' for skill, word in words.items()]
    (folder / "config.toml").write_text("\n".join(["[policy.skills]", *lines]))


def up(fleet: Fleet, **of_worker: str) -> None:
    fleet.server()
    rules(fleet, **of_worker)
    fleet.worker("w1")
    fleet.until(lambda: bool([row for row in (fleet.json("workers") or {"workers": []})["workers"] if row["slots"]]))


def run(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "asterism", *words]
    return subprocess.run(command, env=fleet.env, cwd=fleet.folder, capture_output=True, timeout=60, check=False)


def plan(fleet: Fleet) -> str:
    task = {"id": "a", "skill": "flow.echo", "args": {"value": 1}, "on": ["w1"]}
    (fleet.folder / "plan.json").write_text(json.dumps({"tasks": [task]}))
    return "plan.json"


def test_what_the_server_denies_is_refused_with_who_denies_it(fleet: Fleet) -> None:
    rules(fleet, flow_echo="deny")
    up(fleet)
    done = run(fleet, "run", "-f", plan(fleet), "-o", "json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "PlanRefused")
    assert [problem["code"] for problem in error["problems"]] == ["PolicyDenied"]
    assert "this server's policy denies flow.echo" in error["problems"][0]["message"]


def test_what_a_worker_asks_for_waits_for_a_person_across_restarts(fleet: Fleet) -> None:
    up(fleet, flow_echo="ask")
    name = fleet.json("run", "-f", plan(fleet), "--detach")["run"]
    fleet.until(is_in(fleet, name, "awaiting_approval"))
    back(fleet, "server")
    assert run(fleet, "approve", f"{name}/a", "-m", "go").returncode == 0
    fleet.until(is_in(fleet, name, "succeeded"))
    rows = [json.loads(line) for line in run(fleet, "events", name, "-o", "jsonl").stdout.splitlines()]
    (given,) = [row for row in rows if row["kind"] == "approval_given"]
    assert given["by"]
    assert given["message"] == "go"


@pytest.mark.parametrize("text", ['[policy.skills]\n"flow.*" = "maybe"\n', "[policy]\nshadow = 1\n", "[policy\n"])
def test_settings_that_make_no_sense_start_no_server(fleet: Fleet, text: str) -> None:
    rules(fleet)
    (fleet.folder / "config" / "asterism" / "config.toml").write_text(text)
    done = run(fleet, "server", "start")
    assert done.returncode == 2
    assert b"config.toml" in done.stderr


def test_a_project_may_set_no_policy(fleet: Fleet) -> None:
    (fleet.folder / "asterism.toml").write_text('[policy]\ndefault = "allow"\n')
    done = run(fleet, "server", "start")
    assert done.returncode == 2
    assert b"policy.default" in done.stderr
