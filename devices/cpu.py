"""The processors and memory of this machine, as far as this process may use them.

Affinity and cgroup limits count: in a container the machine is as large as the container. Cpu and memory are one
pool, whatever devices share it.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
from pathlib import Path
from typing import Final

import msgspec
import psutil

from protocol.profile import DeviceProfile
from protocol.resource import Resources

_CGROUP: Final = Path("/sys/fs/cgroup")
_MEMORY_SHARE: Final = 0.9
"""Of the memory, what tasks may reserve; the rest is for the system and the worker itself."""
_SYSTEM: Final = Path("/")
_FEATURES: Final = frozenset(
    ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8",
     "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2")
)  # fmt: skip
"""Of the flags that a processor lists, those that numeric libraries choose their code by."""
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores by affinity, cut by a cgroup quota; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def usable_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes of memory, cut by a cgroup limit."""
    total = int(psutil.virtual_memory().total)
    limit = _read(cgroup / "memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


class Hardware(msgspec.Struct, frozen=True):
    """The processor as the system describes it. `watts`: the power limit of all its packages, 0 where nobody tells."""

    name: str = ""
    features: tuple[str, ...] = ()
    watts: float = 0.0


def hardware(system: Path = _SYSTEM) -> Hardware:
    """Name and features by /proc/cpuinfo, NUMA nodes, power limit (RAPL) and critical temperature by /sys.

    Takes a millisecond or two. What the system doesn't tell is left out.
    """
    fields = [line.partition(":") for line in _read(system / "proc/cpuinfo").splitlines()]
    found = {key.strip(): value.strip() for key, _, value in reversed(fields)}
    name = found.get("model name") or found.get("Model") or found.get("Hardware") or platform.processor()
    flags = (found.get("flags") or found.get("Features") or "").split()
    features = [flag for flag in flags if flag in _FEATURES]
    nodes = len(list(system.glob("sys/devices/system/node/node[0-9]*")))
    critical = [
        int(text)
        for zone in system.glob("sys/class/thermal/thermal_zone*/trip_point_*_type")
        if _read(zone) == "critical" and (text := _read(zone.with_name(zone.name[:-4] + "temp"))).isdigit()
    ]
    limits = [
        int(text)
        for package in system.glob("sys/class/powercap/intel-rapl:[0-9]*")
        if package.name.count(":") == 1 and (text := _read(package / "constraint_0_power_limit_uw")).isdigit()
    ]
    features += [f"numa={nodes}"] if nodes else []
    features += [f"limit={min(critical) / 1e3:.0f}C"] if critical else []
    return Hardware(name or platform.machine(), tuple(features), sum(limits) / 1e6)


def platform_words() -> str:
    """`Linux x86_64 py3.11.7`, for people and for the worker's profile."""
    return f"{platform.system()} {platform.machine()} py{platform.python_version()}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _roughly(free: float) -> int:
    """Rounded down by at most an eighth: what a worker says of itself should be the same at its next start."""
    found = int(free)
    return found >> (dropped := max(0, found.bit_length() - 4)) << dropped


class Cpu:
    """The pool of cores and memory. `share` is this worker's part of the machine, for several on one."""

    kind: Final = "cpu"

    def __init__(
        self,
        *,
        cores: float | None = None,
        memory: int | None = None,
        disk: int | None = None,
        speed: float = 1.0,
        share: float = 1.0,
        folder: str | os.PathLike[str] = "/",
    ) -> None:
        self.cores = cores if cores is not None else usable_cores() * share
        self.memory = memory if memory is not None else int(usable_memory() * _MEMORY_SHARE * share)
        self.disk = disk if disk is not None else _roughly(shutil.disk_usage(folder).free * share)
        self.speed = speed
        self._hardware = hardware()

    def profile(self) -> tuple[DeviceProfile, ...]:
        hardware, all_cores = self._hardware, os.cpu_count() or 1
        found = DeviceProfile(self.kind, hardware.name, self.cores, self.memory, self.speed)
        watts = hardware.watts / all_cores
        return (msgspec.structs.replace(found, watts=watts, features=hardware.features),)

    def capacity(self) -> Resources:
        return Resources(cpu=self.cores, memory=self.memory, disk=self.disk)


def threads(cores: float) -> dict[str, str]:
    """What keeps numeric libraries from starting a thread per core of the whole machine."""
    return dict.fromkeys(_THREADS, str(max(1, math.ceil(cores))))
