"""Forecasts of real processes: nothing is promised before anything was measured, then what was said comes true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SKILLS = """
import time
from asterism import skill

@skill(effect="pure")
def crunch(n: int) -> int:
    \"\"\"Work of a steady length.\"\"\"
    time.sleep(0.2)
    return n
"""
PLAN = {
    "tasks": [
        *({"id": f"c{n}", "skill": "crunch", "args": {"n": n}} for n in range(4)),
        {"id": "last", "skill": "crunch", "args": {"n": {"ref": "c0"}}, "after": ["c1", "c2", "c3"]},
    ]
}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "skills.py").write_text(SKILLS)
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    yield tmp_path
    subprocess.run(_command("server", "stop"), env=_environ(tmp_path), capture_output=True, check=False)


def _environ(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ASTERISM_", "OPENAI_"))}
    return {**kept, "ASTERISM_HOME": str(home / "home")}


def _command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "asterism", *words]


def ran(home: Path, *flags: str, code: int = 0) -> Any:
    words = _command("run", "-f", "plan.json", "--skills", "skills.py", "-o", "json", *flags)
    done = subprocess.run(words, env=_environ(home), cwd=home, capture_output=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr.decode()
    return json.loads(done.stdout)


def test_a_dry_run_counts_with_the_machine_it_is_typed_on(home: Path) -> None:
    assert ran(home)["state"] == "succeeded"  # a server is there from now on, and nobody else
    (home / "nap.json").write_text(
        json.dumps({"tasks": [{"id": "nap", "skill": "flow.sleep", "args": {"seconds": 3}}]})
    )
    words = _command("run", "-f", "nap.json", "--dry-run", "-o", "json")
    done = subprocess.run(words, env=_environ(home), cwd=home, capture_output=True, check=True, timeout=60)
    seen = json.loads(done.stdout)["forecast"]
    assert [lane["worker"] for lane in seen["devices"]] == ["here"]
    assert seen["makespan_s"] >= 3.0


def test_what_was_measured_is_forecast_and_a_deadline_below_it_refused(home: Path) -> None:
    assert ran(home)["state"] == "succeeded"
    seen = ran(home, "--dry-run", "--deadline", "50ms", code=6)["forecast"]
    assert seen["unknown"] == {}
    assert seen["low_s"] <= seen["makespan_s"] <= seen["high_s"]
    assert {lane["worker"] for lane in seen["devices"]} == {"here"}
    again = ran(home)
    assert abs(again["forecast"]["error"]) < 1.0  # the machine may be busy; how good it is, the bench says
    assert again["forecast"]["low_s"] <= again["forecast"]["makespan_s"] <= again["forecast"]["high_s"]
    error = ran(home, "--deadline", "50ms", code=6)["error"]
    assert error["code"] == "DeadlineTooShort"
    assert error["forecast"]["least_s"] > 0.05
