"""The demo and the benchmark, as a person starts them. Nothing here asserts how long anything takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import anyio

from bench.overhead import Overhead, Sizes, overhead
from bench.report import document, table


def test_demo_survives_the_death_of_a_worker_and_of_the_orchestrator(tmp_path: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ASTERISM_")}
    environ = {**clean, "ASTERISM_HOME": str(tmp_path), "CI": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "asterism", "demo", "--crash"],
        env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert "from the saved template demo of the catalog planner; no model was asked" in said
    assert "gpu-sim killed (SIGKILL)" in said
    assert "gpu-sim started again" in said
    assert "orchestrator killed (SIGKILL)" in said
    assert "no settled task ran again" in said
    assert re.search(r"16 parts measured: \d+ on", said)
    assert "version 2 by task:closer" in said
    assert re.search(r"`(calls|clean)` ran, `(calls|clean)` was skipped", said)
    assert "kept on edge-sim, its hash checked there" in said
    assert not list(tmp_path.iterdir())


def test_overhead_measures_a_small_fleet() -> None:
    said: list[str] = []
    found: Overhead = anyio.run(
        overhead, Sizes(repeats=1, fan_out=50, layers=5, chain=10, large=100, help=1), said.append
    )
    body = document(found)
    assert found.fanout_tasks_per_s.runs == 1
    assert found.fanout_tasks_per_s.median > 0
    assert body["peers"] == {}
    assert {
        "fanout_tasks_per_s",
        "layered_tasks_per_s",
        "chain_ms_per_hop",
        "memory_bytes_per_task",
        "fsync_p50_ms",
    } <= (set(body))
    assert "fan-out of 50, tasks/s" in table(found)
    assert said
