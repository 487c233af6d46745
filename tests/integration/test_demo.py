"""The demo and the benchmark, as a person starts them. Nothing here asserts how long anything takes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import msgspec
import psutil
import pytest

from bench.overhead import Overhead, Sizes, overhead
from bench.report import document, table
from planner.template import shipped_folder


def asterism(tmp_path: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ASTERISM_", "OPENAI_"))}
    environ = {**clean, "ASTERISM_HOME": str(tmp_path), "CI": "1", **more}
    argv = [sys.executable, "-P", "-m", "asterism", *words]
    return subprocess.run(argv, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)


def test_demo_survives_the_death_of_a_worker_and_of_the_orchestrator_in_mid_plan(tmp_path: Path) -> None:
    done = asterism(tmp_path, "demo", "--crash")
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert "a scripted model plays a recorded plan at 200 tokens/s" in said
    assert re.search(r"first task: facts\.\d, while the plan is being written", said)
    assert "map running: measure, 16 parts" in said
    assert re.search(r"plan complete: 15 tasks by llm:scripted, \d+ tokens", said)
    assert "gpu-sim killed (SIGKILL)" in said
    assert "gpu-sim started again" in said
    assert "orchestrator killed (SIGKILL)" in said
    assert "no settled task ran again" in said
    assert re.search(r"16 parts measured: \d+ on", said)
    assert "version 2 by task:closer" in said
    assert re.search(r"`(calls|clean)` ran, `(calls|clean)` was skipped", said)
    assert "kept on edge-sim, its hash checked there" in said
    assert not list(tmp_path.iterdir())


def test_demo_lets_a_model_of_the_person_write_the_plan(tmp_path: Path) -> None:
    """The model is another process; what it says is the demo's plan, quicker, and two tasks that ask a person."""
    plan = msgspec.json.decode((shipped_folder() / "demo.json").read_bytes())["plan"]
    plan["tasks"] += [
        {"id": "asks", "skill": "flow.echo", "args": {"value": 1}, "approve": True},
        {"id": "person", "skill": "human.ask", "args": {"question": "go on?"}},
    ]
    script, home = tmp_path / "script.json", tmp_path / "home"
    home.mkdir()
    script.write_bytes(msgspec.json.encode({"rate": 2000, "times": 0, "turns": [{"plan": plan}]}))
    argv = [sys.executable, "-P", "-m", "asterism", "bench", "model", str(script), "--profile", "vllm", "--key", "k3y"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as model:
        try:
            assert model.stdout is not None
            found = dict(one.split("=", 1) for one in model.stdout.readline().split())
            done = asterism(home, "demo", "--live", **found, ASTERISM_PLANNER__SHORTLIST="64")
        finally:
            model.terminate()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"from scripted at {found['OPENAI_BASE_URL']}" in done.stdout
    assert "plan complete: 17 tasks by llm:scripted" in done.stdout
    assert "k3y" not in done.stdout + done.stderr


def test_demo_leaves_nothing_behind_when_its_terminal_is_closed(tmp_path: Path) -> None:
    """Not a process and not a file, whenever that happens."""
    environ = {**os.environ, "ASTERISM_HOME": str(tmp_path), "CI": "1"}
    argv = [sys.executable, "-P", "-m", "asterism", "demo"]
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        assert demo.stdout is not None
        assert any("plays a recorded plan" in line for line in demo.stdout)
        demo.send_signal(signal.SIGHUP)
        assert demo.wait(60) == 130
    assert not list(tmp_path.iterdir())
    assert not [one for one in psutil.process_iter() if str(tmp_path) in " ".join(_words(one))]


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return [*process.cmdline(), process.environ().get("ASTERISM_HOME", "")]
    return []


def test_demo_says_when_there_is_no_model_to_ask(tmp_path: Path) -> None:
    done = asterism(tmp_path, "demo", "--live")
    assert done.returncode == 2
    assert "no model is set" in done.stderr
    assert not list(tmp_path.iterdir())


def test_overhead_measures_a_small_fleet_beside_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTERISM_PEERS", str(tmp_path))
    said: list[str] = []
    sizes = Sizes(repeats=1, fan_out=50, layers=5, chain=10, large=100, help=1, peer_repeats=2, peer_share=0.01)
    found: Overhead = anyio.run(overhead, sizes, said.append)
    body = document(found)
    assert found.fanout_tasks_per_s.runs == 1
    assert found.fanout_tasks_per_s.median > 0
    prototype = found.peers["prototype"]
    assert prototype.peer.chain_ms_per_hop.runs == prototype.ours.chain_ms_per_hop.runs == 2
    assert set(prototype.times_faster) == {"fanout", "layered", "chain"}
    assert found.peers_missing["dask"] == "not installed"
    assert "our stack, bare" in table(found)
    assert {
        "fanout_tasks_per_s",
        "layered_tasks_per_s",
        "chain_ms_per_hop",
        "memory_bytes_per_task",
        "fsync_p50_ms",
    } <= (set(body))
    assert "fan-out of 50, tasks/s" in table(found)
    assert said
