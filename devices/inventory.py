"""All devices of one machine: what a worker tells of them, and what may be reserved in all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import ceil

import msgspec

from protocol.profile import DeviceProfile
from protocol.resource import Resources

from .cpu import Cpu
from .device import Device
from .edge import Edge, is_edge
from .gpu import Card, Gpu, find_gpus


class Inventory(msgspec.Struct, frozen=True):
    """The devices in order: the cpu pool first. `edge`: the machine is of the edge class."""

    devices: tuple[Device, ...]
    edge: bool = False

    def profile(self) -> tuple[DeviceProfile, ...]:
        return tuple(one for device in self.devices for one in device.profile())

    def capacity(self) -> Resources:
        parts = [device.capacity() for device in self.devices]
        return Resources(
            cpu=sum(part.cpu for part in parts),
            memory=sum(part.memory for part in parts),
            gpu=sum(part.gpu for part in parts),
            vram=sum(part.vram for part in parts),
            disk=sum(part.disk for part in parts),
        )

    @property
    def gpu(self) -> Gpu | None:
        """The real or declared cards."""
        return next((device for device in self.devices if isinstance(device, Gpu)), None)

    def declared(self, gpu: float, vram: int) -> Inventory:
        """As if the machine had so many cards, with so much memory in all; 0: as found. Cards that no driver told of
        are called `declared`, and numbered from 0."""
        count = ceil(gpu)
        found = self.gpu.cards[: count or None] if self.gpu is not None else ()
        cards = found + tuple(Card(at, "declared", 0) for at in range(len(found), count))
        if not cards or not (count or vram):
            return self
        if vram:
            cards = tuple(msgspec.structs.replace(card, memory=vram // len(cards)) for card in cards)
        others = tuple(device for device in self.devices if not isinstance(device, Gpu))
        return Inventory((*others, Gpu(cards)), self.edge)


def discover(
    *,
    cores: float | None = None,
    memory: int | None = None,
    share: float = 1.0,
    speed: float = 1.0,
    folder: str | os.PathLike[str] = "/",
    more: Sequence[Device] = (),
) -> Inventory:
    """What this machine has; `cores`, `memory` and `share` cut it down, `more` adds (simulated) devices.

    Takes milliseconds: nothing is measured (calibrate.py does), `speed` is what an earlier calibration found.
    """
    pool = Cpu(cores=cores, memory=memory, share=share, speed=speed, folder=folder)
    edge = is_edge(pool.cores / share, int(pool.memory / share))
    devices: list[Device] = [pool]
    if edge:
        devices.append(Edge(pool))
    if cards := find_gpus():
        devices.append(Gpu(cards))
    return Inventory((*devices, *more), edge)
