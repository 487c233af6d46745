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

import psutil

from protocol.profile import DeviceProfile
from protocol.resource import Resources

from .device import Reservation

_CGROUP: Final = Path("/sys/fs/cgroup")
_MEMORY_SHARE: Final = 0.9
"""Of the memory, what tasks may reserve; the rest is for the system and the worker itself."""
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


def platform_words() -> str:
    """`Linux x86_64 py3.11.7`, for people and for the worker's profile."""
    return f"{platform.system()} {platform.machine()} py{platform.python_version()}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
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
        self._free_cores = self.cores
        self._free_memory = self.memory
        self._held: dict[int, Reservation] = {}

    def profile(self) -> tuple[DeviceProfile, ...]:
        name = platform.processor() or platform.machine()
        return (DeviceProfile(kind=self.kind, name=name, count=self.cores, memory=self.memory, speed=self.speed),)

    def capacity(self) -> Resources:
        return Resources(cpu=self.cores, memory=self.memory, disk=self.disk)

    def reserve(self, needs: Resources) -> Reservation | None:
        if needs.cpu > self._free_cores + 1e-9 or needs.memory > self._free_memory:
            return None
        self._free_cores -= needs.cpu
        self._free_memory -= needs.memory
        made = Reservation(self.kind, threads(needs.cpu), ((0, needs.cpu, needs.memory),))
        self._held[id(made)] = made
        return made

    def release(self, reservation: Reservation) -> None:
        if self._held.pop(id(reservation), None) is None:
            raise ValueError("this reservation is not held")
        for _, cores, memory in reservation.parts:
            self._free_cores += cores
            self._free_memory += memory


def threads(cores: float) -> dict[str, str]:
    """What keeps numeric libraries from starting a thread per core of the whole machine."""
    return dict.fromkeys(_THREADS, str(max(1, math.ceil(cores))))
