"""Devices on real processes: cards one by one, the right variant, kernels, loads, links, amounts that are refused."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import psutil
import pytest

from devices.inventory import discover
from protocol.security import load_server
from protocol.transport import dial
from tests.integration.test_command import Shell, end, worker
from tests.unit.test_workload import WF
from workers.distance import distance
from workers.probe import measure

SKILLS = """
import os, sys, time
from pathlib import Path
from asterism import Resources, skill

@skill(name="dev.where", effect="pure")
def where(folder: str, k: int, wait: bool = False) -> dict[str, str]:
    return {"on": "cpu", "cards": ""}

@where.on("gpu", needs=Resources(cpu=1, gpu=0.5, vram="3GiB"))
def _(folder: str, k: int, wait: bool = False) -> dict[str, str]:
    Path(folder, str(k)).touch()
    while wait and len(os.listdir(folder)) < 4:
        time.sleep(0.01)
    return {"on": "gpu", "cards": os.environ.get("CUDA_VISIBLE_DEVICES", "none")}

@skill(name="dev.host", effect="pure")
def host() -> list[int]:
    return [os.getppid(), os.getpid()]

@skill(name="dev.meet", effect="pure")
def meet(folder: str, k: int) -> bool:
    Path(folder, str(k)).touch()
    while len(os.listdir(folder)) < 6:
        time.sleep(0.01)
    return "workers.builtin.file" in sys.modules

@skill(name="dev.pair", effect="pure", device="gpu", needs=Resources(cpu=1, gpu=2))
def pair() -> list[int]:
    return [os.getppid(), os.getpid()]

@skill(name="dev.large", effect="pure", device="gpu", needs=Resources(cpu=1, gpu=1, vram="12GiB"))
def large() -> str:
    return "on a card that nobody has"
"""


NVML = """
import os
NVMLError = type("NVMLError", (Exception,), {})
nvmlInit = nvmlShutdown = lambda: None
listed = lambda: sorted(os.listdir(os.environ["CARDS"]))
nvmlDeviceGetCount = lambda: 2
def nvmlDeviceGetHandleByIndex(index):
    if f"GPU-{index}" not in listed():
        raise NVMLError("it has fallen off the bus")
    return index
class Memory:
    total = free = 8 * 2**30
nvmlDeviceGetMemoryInfo = lambda handle: Memory
nvmlDeviceGetName = lambda handle: "fake card"
nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}"
"""
FALLING = """
import os
from pathlib import Path
from asterism import Resources, skill

@skill(name="dev.fragile", effect="pure", device="gpu", needs=Resources(cpu=1, gpu=1))
def fragile() -> str:
    mine = os.environ["CUDA_VISIBLE_DEVICES"]
    if mine == "0":
        Path(os.environ["CARDS"], "GPU-0").unlink()
        raise RuntimeError("CUDA error: device lost")
    return mine
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A worker with two declared cards of 8 GiB, and one that has none and is slow to reach."""
    folder = tmp_path_factory.mktemp("devices")
    shell = Shell(folder, folder / "home")
    skills = folder / "device_skills.py"
    skills.write_text(textwrap.dedent(SKILLS))
    assert shell.run("server", "start", "--detach").returncode == 0
    loaded = ("--skills", str(skills), "--skills", "bench.kernels")
    cards = ("--slots", "6", "--resource", "cpu=6,gpu=2,vram=16GiB", "--price", "gpu=3.6", "--watts", "gpu=300,cpu=9")
    workers = [worker(shell, "cards", *loaded, *cards), worker(shell, "plain", *loaded, "--simulate", "latency=5ms")]
    yield shell
    for process in workers:
        end(process)
    shell.run("server", "stop")


@pytest.fixture
def shell(fleet: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, fleet.home)


def ran(shell: Shell, *tasks: dict[str, Any], **settings: Any) -> dict[str, Any]:
    plan = {"schema": "asterism/plan/v1", "tasks": list(tasks), "run": settings}
    (shell.folder / "plan.json").write_bytes(msgspec.json.encode(plan))
    done = shell.run("run", "-f", "plan.json", "-o", "json", "-q")
    found: dict[str, Any] = msgspec.json.decode(done.stdout)
    return found


def test_four_halves_lie_on_two_cards_and_each_sees_its_own(shell: Shell, tmp_path: Path) -> None:
    met = tmp_path / "met"
    met.mkdir()
    report = ran(
        shell,
        *({"id": f"t{k}", "skill": "dev.where", "on": ["gpu"], "args": {"folder": str(met), "k": k, "wait": True}}
          for k in range(4)),
    )  # fmt: skip
    assert report["state"] == "succeeded"
    assert sorted(one["cards"] for one in report["outputs"].values()) == ["0", "0", "1", "1"]


def test_a_process_that_keeps_cards_is_made_up_for_by_a_fresh_one(shell: Shell) -> None:
    """What needs no card finds as many warm ones as before."""
    on = {"on": ["cards"]}
    launcher, _ = ran(shell, {"id": "t", "skill": "dev.host", **on})["outputs"]["t"]
    before = {child.pid for child in psutil.Process(launcher).children()}
    _, took = ran(shell, {"id": "t", "skill": "dev.pair", **on})["outputs"]["t"]
    assert took in before
    end = time.monotonic() + 20
    while len(psutil.Process(launcher).children()) <= len(before):
        assert time.monotonic() < end, "nothing took its place"
        time.sleep(0.01)


def test_a_fresh_process_finds_the_modules_of_built_in_skills_imported(shell: Shell, tmp_path: Path) -> None:
    met = tmp_path / "met"
    met.mkdir()
    each = [{"id": f"t{k}", "skill": "dev.meet", "on": ["cards"], "args": {"folder": str(met), "k": k}}
            for k in range(6)]  # fmt: skip
    assert any(ran(shell, *each)["outputs"].values()), "the first may have been there before"


def test_a_process_that_died_is_made_up_for_though_others_are_idle(shell: Shell, tmp_path: Path) -> None:
    met = tmp_path / "met"
    met.mkdir()
    each = [{"id": f"t{k}", "skill": "dev.meet", "on": ["cards"], "args": {"folder": str(met), "k": k}}
            for k in range(6)]  # fmt: skip
    ran(shell, *each)
    launcher, idle = ran(shell, {"id": "t", "skill": "dev.host", "on": ["cards"]})["outputs"]["t"]
    before = {child.pid for child in psutil.Process(launcher).children()}
    psutil.Process(idle).kill()
    end = time.monotonic() + 20
    while not {child.pid for child in psutil.Process(launcher).children()} - before:
        assert time.monotonic() < end, "nothing took its place"
        time.sleep(0.01)


def test_of_two_variants_the_one_on_the_faster_device_runs(shell: Shell, tmp_path: Path) -> None:
    report = ran(shell, {"id": "t", "skill": "dev.where", "args": {"folder": str(tmp_path), "k": 9}})
    assert report["outputs"]["t"]["on"] == "gpu"
    why = shell.run("explain", f"{report['run']}/t").stdout
    assert "cards" in why


def test_a_need_that_only_a_sum_of_cards_would_hold_is_refused_by_name(shell: Shell) -> None:
    report = ran(shell, {"id": "t", "skill": "dev.large"}, schedule_grace=0.2)
    error = report["tasks"]["t"]["error"]
    assert error["code"] == "NoEligibleWorker"
    assert "cards lacks a card with vram>=12GiB" in error["message"]
    assert "plain lacks gpu>=1 (has 0), vram>=12GiB (has 0)" in error["message"]


def test_kernels_compute_for_real_and_say_who_did(shell: Shell) -> None:
    report = ran(
        shell,
        {"id": "a", "skill": "bench.matmul", "args": {"side": 24}, "on": ["plain"]},
        {"id": "b", "skill": "bench.stream", "args": {"mib": 1}, "on": ["gpu"]},
    )
    product, stream = report["outputs"]["a"], report["outputs"]["b"]
    assert (product["device"], product["side"], product["gflops"] > 0) == ("cpu", 24, True)
    assert product["by"] in ("numpy", "python")
    assert stream["gb_s"] > 0
    assert (stream["device"] == "gpu") is (stream["by"] in ("torch", "cupy")), "a declared card computes nothing"


def test_a_recorded_workflow_runs_as_it_is(shell: Shell) -> None:
    (shell.folder / "tiny.json").write_bytes(msgspec.json.encode(WF))
    done = shell.run("run", "-f", "tiny.json", "--input", "scale=0.001", "-o", "json", "-q")
    report = msgspec.json.decode(done.stdout)
    assert report["state"] == "succeeded", report
    assert report["outputs"]["id-3_sum"] == {"files": [], "read_bytes": 1050}
    shown = shell.run("run", "-f", "tiny.json", "--dry-run", "-o", "json").stdout
    assert [task["args"]["seconds"] for task in msgspec.json.decode(shown)["tasks"]] == [10.0, 20.0, 0.5]


def test_a_task_whose_card_falls_off_is_done_on_another_one(shell: Shell) -> None:
    """The driver is a fake one: what it lists are files."""
    for name, text in (("pynvml.py", NVML), ("falling.py", FALLING), ("cards/GPU-0", ""), ("cards/GPU-1", "")):
        (shell.folder / name).parent.mkdir(exist_ok=True)
        (shell.folder / name).write_text(text)
    paths = os.pathsep.join(filter(None, (str(shell.folder), os.environ.get("PYTHONPATH"))))
    shell.environ |= {"PYTHONPATH": paths, "CARDS": str(shell.folder / "cards")}
    process = worker(shell, "fragile", "--slots", "2", "--skills", "falling.py")
    try:
        report = ran(shell, {"id": "t", "skill": "dev.fragile"})
        assert report["outputs"] == {"t": "1"}, report
        ends = shell.run("events", report["run"], "-o", "jsonl").stdout
        assert "DeviceLost" in ends
        (row,) = [one for one in shell.json("worker", "list")["workers"] if one["worker"] == "fragile"]
        assert [one["kind"] for one in row["hardware"]] == ["cpu", "gpu"]
        assert (row["capacity"]["gpu"], row["capacity"]["vram"]) == (1.0, 8 * 2**30)
    finally:
        end(process)


def test_what_a_device_costs_and_what_its_link_is_are_known(shell: Shell) -> None:
    rows = {row["worker"]: row for row in shell.json("worker", "list")["workers"]}
    hardware = {one["kind"]: one for one in rows["cards"]["hardware"]}
    assert (hardware["gpu"]["price_per_s"], hardware["gpu"]["watts"], hardware["cpu"]["watts"]) == (0.001, 300.0, 9.0)
    assert rows["plain"]["link"]["latency_s"] == 0.005
    shown = shell.run("worker", "info", "cards").stdout
    assert "gpu declared x1, 8.0 GiB, speed 10, 300 W, 3.6 an hour" in shown


def test_a_measured_link_and_device_are_what_the_next_start_says(shell: Shell) -> None:
    server = load_server(shell.home)
    assert server is not None

    async def look() -> None:
        async with dial(server.address, server.token, tls=server.tls) as channel:
            assert 0 < (await distance(channel)).latency_s < 1

    anyio.run(look)
    made = measure(discover(), shell.home, "nobody", 0.01)
    process = worker(shell, "measured", "--resource", "gpu=1")
    try:
        rows = {row["worker"]: row for row in shell.json("worker", "list")["workers"]}
        assert rows["measured"]["link"]["bandwidth"] == made.links["127.0.0.1"].bandwidth
        assert rows["measured"]["hardware"][0]["speed"] == made.devices[0].speed
        assert rows["measured"]["hardware"][0]["calibrated"]
    finally:
        end(process)
        (shell.home / "calibration.json").unlink()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--price", "gpu=nan"), "--price gpu=nan is no amount"),
        (("--watts", "cpu=1e9"), "a cpu device with watts 1e+09"),
    ],
)
def test_a_worker_with_impossible_amounts_refuses_to_start(shell: Shell, flags: tuple[str, ...], why: str) -> None:
    process = shell.start("worker", "start", "--name", "liar", *flags)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert why in said
