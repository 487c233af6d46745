"""`asterism bench faults` on real processes, as a person starts it. Nothing here asserts how long anything takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from bench.faults import namespace
from bench.faults.account import account
from bench.faults.case import Tally
from bench.faults.ledger import Execution
from bench.faults.long_journal import make, read


def environ(folder: Path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ASTERISM_")}
    return {**clean, "TMPDIR": str(folder), "CI": "1"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "asterism", "bench", "faults", *words]


def living(folder: Path) -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter():
        try:
            if one.environ().get("ASTERISM_HOME", "").startswith(str(folder)) and one.status() != "zombie":
                found.append(one)
        except psutil.Error:
            continue
    return found


def test_killed_processes_lose_nothing_and_apply_nothing_twice(tmp_path: Path) -> None:
    cases = ("skill-killed", "worker-killed", "server-killed")
    words = [word for name in cases for word in ("--case", name)]
    done = subprocess.run(
        command("--quick", "--repeat", "1", *words, "-o", "json"),
        env=environ(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert [case["case"] for case in found["cases"]] == list(cases)
    for case in found["cases"]:
        assert (case["results_lost"], case["results_applied_twice"]) == (0, 0), case["why"]
        assert case["times"] == 1
        assert case["reassign_s"]["runs"] == 1
    killed = {case["case"]: case["re_executed"] for case in found["cases"]}
    assert (killed["skill-killed"], killed["worker-killed"]) == (1, 2)
    assert found["cases"][2]["figures"]["finished_ran_again"] == 0
    assert not list(tmp_path.iterdir())
    assert living(tmp_path) == []


@pytest.mark.skipif(bool(namespace.missing()), reason=namespace.missing())
def test_packets_that_vanish_lose_nothing_and_apply_nothing_twice(tmp_path: Path) -> None:
    words = command("--quick", "--case", "cut", "--case", "cut-down", "-o", "json")
    bench = subprocess.Popen(words, env=environ(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE)
    said, _ = bench.communicate(timeout=100)
    assert bench.returncode == 0, said
    found = json.loads(said)
    assert found["network"] == "network namespaces, TLS"
    for case in found["cases"]:
        assert (case["results_lost"], case["results_applied_twice"]) == (0, 0), case["why"]
        assert case["re_executed"] == case["times"] == 1
    spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert f"asterism-{bench.pid}" not in spaces
    assert not list(tmp_path.iterdir())


def test_a_bench_that_is_killed_itself_leaves_nothing_behind(tmp_path: Path) -> None:
    bench = subprocess.Popen(
        command("--quick", "--repeat", "50", "--case", "skill-killed"), env=environ(tmp_path), cwd=tmp_path
    )
    try:
        while not list(tmp_path.glob("asterism-*/*/ledger-*")):
            assert bench.poll() is None
            time.sleep(0.01)
        left = living(tmp_path)
        guards = [one for one in psutil.process_iter() if str(tmp_path) in " ".join(_argv(one))]
    finally:
        bench.send_signal(signal.SIGKILL)
        bench.wait()
    assert left
    psutil.wait_procs([*left, *guards], timeout=60)
    assert living(tmp_path) == []
    assert not list(tmp_path.iterdir())


def _argv(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_long_journal_is_read_as_it_was_made(tmp_path: Path) -> None:
    made = anyio.run(make, tmp_path / "journal.db", 3000)
    assert made["succeeded"] >= 900
    for whole in (False, True):
        found = read(tmp_path / "journal.db", whole)
        assert (found["events"], found["succeeded"]) == (made["events"], made["succeeded"])


def settled(task: str, state: str = "succeeded") -> dict[str, Any]:
    return {"kind": "task_settled", "task": task, "state": state}


RAN = Execution("t1", 1, "abc", "w", 1, 1.0, 2.0)
GOOD = {"n": 3, "square": 9, "token": "abc"}


@pytest.mark.parametrize(
    ("rows", "value", "ran", "counts"),
    [
        ([settled("t1")], GOOD, [RAN], (0, 0, 0)),
        ([settled("t1", "failed")], GOOD, [RAN], (1, 0, 0)),
        ([], GOOD, [RAN], (1, 0, 0)),
        ([settled("t1")], {**GOOD, "square": 8}, [RAN], (1, 0, 0)),
        ([settled("t1")], {**GOOD, "token": "forged"}, [RAN], (1, 0, 0)),
        ([settled("t1")], None, [RAN], (1, 0, 0)),
        ([settled("t1"), settled("t1")], GOOD, [RAN], (0, 1, 0)),
        ([settled("t1")], GOOD, [Execution("t1", 1, "x", "w", 1, 0.5), RAN], (0, 0, 1)),
        (
            [settled("t1")],
            GOOD,
            [Execution("t1", 1, "x", "w", 1, 0.5, 0.7, 0.6), Execution("t1", 2, "abc", "w", 1, 1.0, 2.0, 1.5)],
            (0, 1, 1),
        ),
    ],
)
def test_the_account_sees_what_was_lost_and_what_was_done_twice(
    rows: list[dict[str, Any]], value: Any, ran: list[Execution], counts: tuple[int, int, int]
) -> None:
    found = account({"t1": 3}, rows, {"t1": value}, ran)
    assert (found.results_lost, found.results_applied_twice, found.re_executed) == counts
    assert len(found.why) == counts[0] + counts[1]


def test_a_result_that_was_shown_must_stay() -> None:
    assert account({}, [], {}, [], shown=["t1"]).results_lost == 1


def test_a_missed_bound_is_named() -> None:
    tally = Tally("frozen", "worker frozen", {"reassign_s": 3.0, "finished_ran_again": 0})
    tally.note(detect_s=2.5, reassign_s=3.5)
    tally.figure("finished_ran_again", 1)
    assert tally.of().missed() == {"reassign_s": 3.5, "finished_ran_again": 1}
