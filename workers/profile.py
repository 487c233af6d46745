"""What this worker tells of itself: devices found, what was declared by flags, the skills that were loaded."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping

import msgspec

from devices.inventory import Inventory
from protocol.profile import LinkProfile, Policies, WorkerProfile
from protocol.resource import Resources, parse_amounts
from protocol.skill import SkillSpec

from .root import Root
from .shaping import Shape


class Declared(msgspec.Struct, frozen=True):
    """What `worker start` was told. `slots` 0: as many as cores. `policies`: what it allows, asks for, denies."""

    slots: int = 0
    labels: dict[str, str] = {}
    resources: dict[str, str] = {}
    policies: Policies = ()
    serves: str = ""
    roots: tuple[Root, ...] = ()
    shape: Shape = Shape()


def slots_of(declared: Declared, inventory: Inventory) -> int:
    return declared.slots or max(1, math.floor(capacity_of(declared, inventory).cpu))


def capacity_of(declared: Declared, inventory: Inventory) -> Resources:
    """Found, with what was declared on top: a declared amount replaces the found one, new names are counters."""
    found = inventory.capacity()
    said = parse_amounts(declared.resources)
    return Resources(
        cpu=said.cpu or found.cpu,
        memory=said.memory or found.memory,
        gpu=said.gpu or found.gpu,
        vram=said.vram or found.vram,
        disk=said.disk or found.disk,
        counters=said.counters,
    )


def profile_of(declared: Declared, inventory: Inventory, skills: tuple[SkillSpec, ...]) -> WorkerProfile:
    """The whole profile of Hello. A simulated device says so in its labels and in each device."""
    shape = declared.shape
    devices = inventory.profile()
    labels: Mapping[str, str] = declared.labels
    if not shape.is_plain:
        devices = tuple(
            msgspec.structs.replace(device, speed=device.speed * shape.speed, simulated=True) for device in devices
        )
        labels = {**labels, "simulated": "true"}
    link = LinkProfile()
    if shape.bandwidth or shape.latency_s:
        link = LinkProfile(shape.bandwidth or link.bandwidth, shape.latency_s or link.latency_s)
    return WorkerProfile(
        slots=slots_of(declared, inventory),
        capacity=capacity_of(declared, inventory),
        devices=devices,
        labels=dict(labels),
        skills=skills,
        policies=declared.policies,
        serves=declared.serves,
        edge=inventory.edge,
        roots=tuple(root.path + (":ro" if root.read_only else "") for root in declared.roots),
        platform=f"{platform.system().lower()}-{platform.machine()}",
        link=link,
    )
