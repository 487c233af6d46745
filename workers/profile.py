"""What this worker tells of itself: devices found, what was declared by flags, the skills that were loaded."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from typing import Final

import msgspec

from devices.calibration import Calibration, host_of
from devices.inventory import Inventory
from protocol.errors import UsageError
from protocol.profile import DeviceProfile, LinkProfile, Policies, WorkerProfile
from protocol.profile_bound import problems_of
from protocol.resource import Resources, parse_amounts
from protocol.skill import SkillSpec

from .root import Root
from .shaping import Shape

_HOUR_S: Final = 3600.0
_NOTHING: Final = Calibration()


class Declared(msgspec.Struct, frozen=True):
    """What `worker start` was told. `slots` 0: as many as cores. `policies`: what it allows, asks for, denies.

    `price` an hour and `watts`: of one unit of each kind of device. `calibrate`: measure it, if it never was.
    """

    slots: int = 0
    labels: dict[str, str] = {}
    resources: dict[str, str] = {}
    policies: Policies = ()
    serves: str = ""
    roots: tuple[Root, ...] = ()
    shape: Shape = Shape()
    price: dict[str, float] = {}
    watts: dict[str, float] = {}
    calibrate: bool = False


def rates(given: Mapping[str, str], settings: Mapping[str, float], flag: str) -> dict[str, float]:
    """Amounts by kind of device: those of the flag before those of the settings. Raises: UsageError."""
    found = dict(settings)
    for kind, text in given.items():
        try:
            found[kind] = float(text)
        except ValueError:
            found[kind] = math.nan
        if kind not in ("cpu", "gpu", "edge") or not 0 <= found[kind] < math.inf:
            raise UsageError(f"{flag} {kind}={text:.80} is no amount of a device", hint=f"{flag} cpu=0.05,gpu=2.5")
    return found


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


def profile_of(
    declared: Declared,
    inventory: Inventory,
    skills: tuple[SkillSpec, ...],
    measured: Calibration = _NOTHING,
    address: str = "",
) -> WorkerProfile:
    """The whole profile of Hello. A simulated device says so in its labels and in each device.

    `measured` of this machine counts before what was assumed, also of the link to the server at `address`. Raises:
    UsageError for amounts that no orchestrator would believe.
    """
    shape = declared.shape
    devices = tuple(_priced(declared, device) for device in measured.applied(inventory.profile()))
    labels: Mapping[str, str] = declared.labels
    link = measured.links.get(host_of(address), LinkProfile())
    if not shape.is_plain:
        devices = tuple(
            msgspec.structs.replace(device, speed=device.speed * shape.speed, simulated=True) for device in devices
        )
        labels = {**labels, "simulated": "true"}
        link = LinkProfile(shape.bandwidth or link.bandwidth, shape.latency_s or link.latency_s)
    found = WorkerProfile(
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
    if problems := problems_of(found):
        raise UsageError(f"no worker can be like this: {problems[0].message}", hint=problems[0].fix, problems=problems)
    return found


def _priced(declared: Declared, device: DeviceProfile) -> DeviceProfile:
    price = declared.price.get(device.kind, 0.0) / _HOUR_S
    return msgspec.structs.replace(device, price_per_s=price, watts=declared.watts.get(device.kind, device.watts))
