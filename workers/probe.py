"""What this machine would offer as a worker, and what `--calibrate` measures of it: the answer of `worker probe`.

Heavy modules are imported here, so that the command's help needs none of them. It starts nothing and joins nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec

from devices.calibrate import calibrate
from devices.calibration import Calibration, host_of, keep, kept, machine_of
from devices.inventory import Inventory, discover
from protocol.builtin_model import MODEL_SKILLS, NO_MODEL_FIX
from protocol.config import load
from protocol.errors import AsterismError, Unavailable
from protocol.profile import LinkProfile, device_text
from protocol.security import home, load_identity, load_server
from protocol.transport import dial

from . import sandbox
from .custody import custody_of, offered
from .distance import distance
from .profile import Declared, profile_of
from .registry import Registry


def measure(inventory: Inventory, folder: Path, name: str, budget_s: float = 0.2) -> Calibration:
    """Seconds of arithmetic, copying and writing; with a server to reach also of its link. Kept in `folder`."""
    devices = inventory.profile()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        found = calibrate(folder, budget_s, inventory.gpu.cards if inventory.gpu is not None else ())
    except ArithmeticError as error:
        raise Unavailable(str(error), hint="test its memory and its cooling before you trust it with work") from None
    before = kept(folder, devices)
    links = {**(before.links if before is not None else {}), **anyio.run(_links, folder, name)}
    found = msgspec.structs.replace(found, machine=machine_of(devices), at=time.time(), links=links)
    keep(folder, found)
    return found


async def _links(folder: Path, name: str) -> dict[str, LinkProfile]:
    """The link to this machine's own server, or to the one that the worker has joined; none without any."""
    server, identity = load_server(folder), load_identity(folder / "workers" / name)
    if server is not None:
        address, secret, tls = server.address, server.token, server.tls
    elif identity is not None:
        address, secret, tls = identity.address, identity.secret, identity.tls
    else:
        return {}
    try:
        async with dial(address, secret, tls=tls) as channel:
            return {host_of(address): await distance(channel)}
    except (AsterismError, OSError, TimeoutError):
        return {}


def lines(output: str, again: bool, name: str) -> Iterator[str]:
    """The answer, in the form asked for. `again`: measure now, and the link of the worker `name`."""
    found, groups = sandbox.find(f"probe-{os.getpid()}")
    if groups is not None:
        groups.remove()
    settings, folder, inventory = load().settings, home(), discover()
    custody = custody_of(settings, folder)
    measured = measure(inventory, folder, name) if again else kept(folder, inventory.profile()) or Calibration()
    declared = Declared(price=settings.device.price, watts=settings.device.watts)
    profile = profile_of(declared, inventory, offered(Registry().specs(), custody), measured)
    profile = msgspec.structs.replace(profile, sandbox=custody.rules.reach(found.held))
    if output == "json":
        body = {"schema": "asterism/v1", **msgspec.to_builtins(profile), "levels": msgspec.to_builtins(found.trials)}
        body["model"] = {"held": custody.access is not None, "why": custody.no_access}
        body["calibration"] = msgspec.to_builtins(measured) if measured.at else None
        yield msgspec.json.encode(body).decode()
        return
    engines = {(one.kind, one.at): one.by for one in measured.devices}
    for at, device in enumerate(profile.devices):
        by = engines.get((device.kind, at - [one.kind for one in profile.devices].index(device.kind)), "")
        yield device_text(device) + (f" (by {by})" if by else "")
        if device.features:
            yield f"  {' '.join(device.features)}"
    if measured.at:
        yield f"disk {measured.disk_bytes_s / 1e6:.0f} MB/s"
        for host, link in measured.links.items():
            yield f"link to {host}: {link.latency_s * 1e3:.3g} ms, {link.bandwidth / 1e6:.0f} MB/s"
        yield f"measured {time.strftime('%Y-%m-%d %H:%M', time.localtime(measured.at))}, kept in {folder}"
    else:
        yield "not calibrated: speeds are assumed (fix: asterism worker probe --calibrate)"
    for trial in found.trials:
        yield f"sandbox {trial.level}: {'holds' if trial.held else 'does not hold'}, {trial.note}"
        if trial.fix:
            yield f"  fix: {trial.fix}"
    if custody.access is None:
        yield f"no model: {', '.join(sorted(MODEL_SKILLS))} are not offered"
        yield f"  fix: {custody.no_access or NO_MODEL_FIX}"
    yield f"slots {profile.slots}, sandbox {profile.sandbox}, {len(profile.skills)} built-in skills"
