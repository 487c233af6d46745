"""The five machines of the cross-device suite, on real processes; nothing of them is left, whatever ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import msgspec
import psutil

from bench.cross_device.machine import FIVE, Member, gpu_of
from bench.cross_device.site import FiveMachines
from bench.guard import guarded
from devices.gpu import Card

NAMED = {member.name: member for member in FIVE}
HELD = """
import anyio
from bench.cross_device.machine import FIVE
from bench.cross_device.site import FiveMachines
from bench.guard import guarded

async def hold():
    with guarded("asterism-held-") as guard:
        async with FiveMachines(guard, 1, members=()) as stage:
            print(guard.folder, flush=True)
            await anyio.sleep_forever()

anyio.run(hold)
"""


def spaces(pid: int) -> str:
    found = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=False).stdout
    return "\n".join(line for line in found.splitlines() if line.startswith(f"asterism-{pid}"))


def living(folder: Path) -> list[int]:
    found = []
    for one in psutil.process_iter():
        try:
            if one.environ().get("ASTERISM_HOME", "").startswith(str(folder)) and one.status() != "zombie":
                found.append(one.pid)
        except psutil.Error:
            continue
    return found


def test_a_machine_that_cannot_start_is_named_and_the_rest_does_its_work() -> None:
    broken = msgspec.structs.replace(NAMED["log-server"], resources=("gpu=many",))

    async def play(members: tuple[Member, ...]) -> None:
        with guarded("asterism-site-") as guard:
            async with FiveMachines(guard, 1, members=members) as stage:
                assert stage.machines == ("edge-cam",)
                assert list(stage.missing) == ["log-server"]
                assert "'many' is no amount" in stage.missing["log-server"]
                assert any("links" in note or "namespace" in note for note in stage.notes)
                found = await stage.client.call("camera.capture", frames=2, seed=5)
                again = await stage.client.call("camera.capture", frames=2, seed=5)
                assert [row["brightness"] for row in found["frames"]] == [row["brightness"] for row in again["frames"]]
                assert found["by"] == "simulated camera"
        assert not guard.folder.exists()
        assert living(guard.folder) == []

    anyio.run(play, (NAMED["edge-cam"], broken))
    assert not spaces(os.getpid())


def test_nothing_is_left_when_the_bench_is_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-P", "-c", HELD]
    bench = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, text=True)
    assert bench.stdout is not None
    folder = Path(bench.stdout.readline().strip())
    guards = [one for one in psutil.Process(bench.pid).children() if "bench.guard" in one.cmdline()]
    assert living(folder)
    bench.send_signal(signal.SIGKILL)
    bench.communicate()
    psutil.wait_procs(guards, timeout=20)
    assert living(folder) == []
    assert not folder.exists()
    assert not spaces(bench.pid)


def test_a_gpu_that_is_not_there_is_called_simulated() -> None:
    simulated, words = gpu_of(NAMED["gpu-box"], ())
    assert "gpu=simulated" in simulated.labels
    assert "gpu=1" in simulated.resources
    assert words.startswith("simulated")
    real, words = gpu_of(NAMED["gpu-box"], (Card(0, "NVIDIA H100", 80 << 30),))
    assert "gpu=real" in real.labels
    assert not real.resources
    assert "NVIDIA H100" in words


def test_what_tc_shapes_is_not_simulated_once_more() -> None:
    camera = NAMED["edge-cam"]
    assert camera.machine("x", ()).simulate == "speed=0.1,start=100ms,bandwidth=20Mbit,latency=10ms"
    assert camera.machine("x", ("bandwidth",)).simulate == "speed=0.1,start=100ms,latency=10ms"
    assert camera.machine("x", ("bandwidth", "latency")).simulate == "speed=0.1,start=100ms"
