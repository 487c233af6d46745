"""What a machine can be: the amounts of a worker's profile, checked where it is made and where it is believed.

Invariant: a profile without problems holds finite numbers that placement can divide by and add up. It judges no skill
and no name of the fleet: whether a claim is true is measured, not checked.
"""

from __future__ import annotations

from typing import Final

from .errors import Problem
from .profile import DeviceProfile, LinkProfile, WorkerProfile
from .resource import Resources

MOST_SLOTS: Final = 65_536
MOST_DEVICES: Final = 1024
MOST_FEATURES: Final = 256
MOST_TEXT: Final = 200
MOST: Final = 2.0**60
"""Of any amount: bytes, counters, seconds."""
_DEVICE: Final = (  # field, the least (0 excluded where it divides), the most, unit
    ("speed", 1e-6, 1e6, "times the reference core"),
    ("count", 0.0, 1e6, "units"),
    ("memory", 0.0, MOST, "bytes"),
    ("gflops", 0.0, 1e9, "GFLOP/s"),
    ("memory_bytes_s", 0.0, 1e15, "bytes/s"),
    ("price_per_s", 0.0, 1e6, "per second"),
    ("watts", 0.0, 1e6, "W"),
)
_LINK: Final = (("bandwidth", 1.0, 1e13, "bytes/s"), ("latency_s", 0.0, 3600.0, "s"))


def problems_of(profile: WorkerProfile) -> list[Problem]:
    """Every amount that no machine has; empty when it may be believed. NaN fits nothing."""
    found: list[Problem] = []
    if not 0 < profile.slots <= MOST_SLOTS:
        found.append(Problem("BadProfile", "slots", f"{profile.slots} slots", fix=f"1 to {MOST_SLOTS}"))
    found += capacity_problems(profile.capacity, "capacity")
    found += link_problems(profile.link)
    if len(profile.devices) > MOST_DEVICES:
        what = f"{len(profile.devices)} devices"
        found.append(Problem("BadProfile", "devices", what, fix=f"at most {MOST_DEVICES}"))
    for at, device in enumerate(profile.devices[:MOST_DEVICES]):
        found += device_problems(device, f"devices/{at}")
    return found


def device_problems(device: DeviceProfile, where: str) -> list[Problem]:
    """What is impossible in one device."""
    found = _outside(device, _DEVICE, where, f"a {device.kind[:MOST_TEXT]} device")
    texts = (device.kind, device.name, *device.features[:MOST_FEATURES])
    if len(device.features) > MOST_FEATURES or max(map(len, texts)) > MOST_TEXT:
        fix = f"at most {MOST_FEATURES} features, {MOST_TEXT} characters each"
        found.append(Problem("BadProfile", where, "a device with too much to say", fix=fix))
    return found


def link_problems(link: LinkProfile) -> list[Problem]:
    """What is impossible in a link."""
    return _outside(link, _LINK, "link", "a link")


def capacity_problems(amounts: Resources, where: str) -> list[Problem]:
    """Amounts below nothing or beyond any machine."""
    return [
        Problem("BadProfile", f"{where}/{name}", f"{amount:g} of {name[:MOST_TEXT]}", fix=f"0 to {MOST:g}")
        for name, amount in amounts.amounts().items()
        if not 0 <= amount <= MOST
    ]


def _outside(
    of: DeviceProfile | LinkProfile, bounds: tuple[tuple[str, float, float, str], ...], where: str, what: str
) -> list[Problem]:
    return [
        Problem("BadProfile", f"{where}/{name}", f"{what} with {name} {value:g}", fix=f"{least:g} to {most:g} {unit}")
        for name, least, most, unit in bounds
        if not least <= (value := getattr(of, name)) <= most
    ]
