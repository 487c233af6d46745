"""The five machines of the suite, as data: what each has, may do and is allowed, and the link that leads to it.

They are processes of one machine. What of them is not real says so: a label `simulated` comes from the worker itself,
`gpu=simulated` from here. It must not know how a machine is started.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from devices.gpu import Card

from ..faults.namespace import Pace
from ..scenario import Machine

SKILLS: Final = (
    "bench.kernels",
    "bench.cross_device.skills",
    "bench.cross_device.book",
    "bench.cross_device.build",
    "bench.cross_device.compute",
    "bench.cross_device.database",
    "bench.cross_device.frail",
    "bench.cross_device.gauge",
    "bench.cross_device.picture",
    "bench.cross_device.record",
)
_MBIT: Final = 1_000_000
GPU: Final = "gpu-box"


class Member(msgspec.Struct, frozen=True):
    """One of them. `speed` relative to the machine that all of them run on, `start_s` until a skill's process does
    anything there, `pace` of its link."""

    name: str
    slots: int
    labels: tuple[str, ...]
    pace: Pace
    speed: float
    start_s: float
    memory: str = "1GiB"
    resources: tuple[str, ...] = ()
    allow: tuple[str, ...] = ("process.*", "fs.write")

    def machine(self, root: str, shaped: Collection[str]) -> Machine:
        """How its worker is started. `shaped`: what of its link (bandwidth, latency) need not be simulated."""
        slow = {
            "speed": f"{self.speed:g}" if self.speed < 1 else "",
            "start": f"{self.start_s * 1000:g}ms",
            "bandwidth": f"{self.pace.bits_per_s // _MBIT}Mbit",
            "latency": f"{self.pace.latency_s * 1000:g}ms",
        }
        return Machine(
            self.name,
            self.slots,
            root,
            self.labels,
            # Memory and disk are said, not found: who finds another amount at every start is somebody else each time.
            (f"cpu={self.slots}", f"memory={self.memory}", f"disk={self.memory}", *self.resources),
            SKILLS,
            self.allow,
            ",".join(f"{name}={value}" for name, value in slow.items() if value and name not in shaped),
        )


FIVE: Final = (
    Member("workstation", 8, ("role=desk",), Pace(1000 * _MBIT, 0.0002), 0.4, 0.06),
    Member(GPU, 8, ("role=compute",), Pace(1000 * _MBIT, 0.0003), 0.4, 0.06, "4GiB"),
    Member("db-server", 8, ("role=db", "disk=ssd"), Pace(400 * _MBIT, 0.0005), 0.2, 0.06, allow=()),
    Member("log-server", 8, ("role=logs",), Pace(200 * _MBIT, 0.001), 0.2, 0.06),
    Member("edge-cam", 2, ("role=camera", "zone=far"), Pace(20 * _MBIT, 0.010), 0.1, 0.1, "256MiB", ("camera=1",)),
)
"""Slower than the machine that stands for all of them: five times the work of one has to fit into two cores. A worker
that acts slower waits for the rest of the time, and so keeps the cores free for the others."""


def gpu_of(member: Member, cards: tuple[Card, ...]) -> tuple[Member, str]:
    """The machine with the GPU as it can be here, and what its GPU is, in words."""
    if cards:
        return msgspec.structs.replace(member, labels=(*member.labels, "gpu=real")), f"a real {cards[0].name}"
    labels, declared = (*member.labels, "gpu=simulated"), ("gpu=1", "vram=16GiB")
    simulated = msgspec.structs.replace(member, labels=labels, resources=declared)
    return simulated, "simulated: no card was found here, so its kernels compute on the processor"
