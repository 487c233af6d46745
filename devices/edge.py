"""When a machine counts as edge: small, often on a slow link, given longer leases and smaller frames.

An edge machine is an ordinary cpu with one more name, so that `on: ["edge"]` finds it and `cpu` skills still run there.
"""

from __future__ import annotations

import platform
from typing import Final

import msgspec

from protocol.profile import DeviceProfile
from protocol.resource import Resources

from .cpu import Cpu

_GIB: Final = 1024**3
_SMALL_MEMORY: Final = 2 * _GIB
_BOARD_MEMORY: Final = 5 * _GIB
_BOARD_CORES: Final = 4
_BOARDS: Final = ("arm", "aarch64", "riscv")


def is_edge(cores: float, memory: int, machine: str = "", system: str = "") -> bool:
    """By size: at most 2 GiB of memory, or a small ARM or RISC-V board (4 cores, under 5 GiB); never a Mac."""
    machine = (machine or platform.machine()).lower()
    if (system or platform.system()) == "Darwin":
        return False
    return memory <= _SMALL_MEMORY or (
        machine.startswith(_BOARDS) and cores <= _BOARD_CORES and memory <= _BOARD_MEMORY
    )


class Edge:
    """The edge name of a cpu pool: all amounts are those of the pool."""

    kind: Final = "edge"

    def __init__(self, pool: Cpu) -> None:
        self._pool = pool

    def profile(self) -> tuple[DeviceProfile, ...]:
        return tuple(msgspec.structs.replace(one, kind=self.kind) for one in self._pool.profile())

    def capacity(self) -> Resources:
        return Resources(cpu=0.0)  # the pool's, counted there
