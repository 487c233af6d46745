"""Machines of their own on this one: a network namespace a worker, a router between them and the server. Root only.

The router forwards, or drops what comes from a worker or what goes to it: packets vanish without a word, as on a broken
link, and neither end can tell from its own interface. A link is as narrow and long as `tc` can make it here. The
addresses are kept for benchmarks (RFC 2544). Invariant: the guard knows each namespace before it is made; with them go
their links, addresses and routes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

import anyio
import msgspec

from protocol.errors import Unavailable

from ..guard import Guard
from .network import Direction


class Pace(msgspec.Struct, frozen=True):
    """What a link carries, each way."""

    bits_per_s: int
    latency_s: float


_QUEUES: Final = (
    ("tc netem", "netem delay {delay}us rate {rate}bit limit 10000", frozenset(("bandwidth", "latency"))),
    ("tc tbf", "tbf rate {rate}bit burst {burst} latency 200ms", frozenset(("bandwidth",))),
)
"""Queueing disciplines by what they can do, the best first: which there are depends on the kernel."""
_BURST_S: Final = 0.002


def missing() -> str:
    """Why there can be none here; "" if there can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "network namespaces need root and the ip command"
    name = f"asterism-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return made.stderr.strip()


class NamespaceNetwork:
    """A Network of real packets: the server stays where we are, at `server`."""

    def __init__(self, guard: Guard, workers: Sequence[str]) -> None:
        self._guard = guard
        self._subnet = f"198.19.{os.getpid() % 256}"
        self._router = f"asterism-{os.getpid()}"
        self._places = {name: place for place, name in enumerate(workers, 1)}
        self.server = f"{self._subnet}.1"
        self.shaper = ""
        """What has shaped a link here, in words."""

    async def build(self) -> None:
        """Make all of it. Raises: Unavailable."""
        near, far = f"ast{os.getpid()}", f"ast{os.getpid()}r"
        await self._space(self._router)
        await _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self._router)
        await _ip("addr", "add", f"{self.server}/30", "dev", near)
        await _ip("link", "set", near, "up")
        await self._attach(self._router, far, f"{self._subnet}.2")
        await _ip("route", "add", f"{self._subnet}.0/24", "via", f"{self._subnet}.2")
        switch = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        await _run("ip", "netns", "exec", self._router, "sh", "-c", switch)
        for name, place in self._places.items():
            space = self._space_of(name)
            await self._space(space)
            await _ip("link", "add", f"w{place}", "netns", self._router, "type", "veth", "peer", "eth0", "netns", space)
            await self._attach(self._router, f"w{place}", self._address(place, 1))
            await self._attach(space, "eth0", self._address(place, 2))
            await _ip("-n", space, "route", "add", "default", "via", self._address(place, 1))

    async def remove(self) -> None:
        """All of it, at once; a guard that outlives us would do it, too."""
        for space in (self._router, *map(self._space_of, self._places)):
            await anyio.run_process(["ip", "netns", "delete", space], check=False)

    async def shape(self, worker: str, pace: Pace) -> frozenset[str]:
        """Make a worker's link that narrow and long, as far as the kernel can; which of the two now holds."""
        ends = ((self._router, f"w{self._places[worker]}"), (self._space_of(worker), "eth0"))
        size = {"delay": round(pace.latency_s * 1e6), "rate": pace.bits_per_s}
        size["burst"] = max(32_768, round(pace.bits_per_s / 8 * _BURST_S))
        for name, words, held in _QUEUES if shutil.which("tc") else ():
            try:
                for space, device in ends:
                    rule = words.format(**size).split()
                    await _run("tc", "-n", space, "qdisc", "replace", "dev", device, "root", *rule)
            except Unavailable:
                continue
            self.shaper = name
            return held
        return frozenset()

    def prefix(self, worker: str) -> tuple[str, ...]:
        """Put before a command, it runs on that worker's machine."""
        return ("ip", "netns", "exec", self._space_of(worker))

    async def cut(self, worker: str, direction: Direction) -> None:
        for way, rule in self._rules(worker).items():
            if direction in (way, "both"):
                await _ip("-n", self._router, "rule", "add", *rule)

    async def heal(self, worker: str) -> None:
        for rule in self._rules(worker).values():
            command = ["ip", "-n", self._router, "rule", "delete", *rule]
            await anyio.run_process(command, check=False)  # those of a direction that was not cut are not there

    def _rules(self, worker: str) -> dict[str, tuple[str, ...]]:
        place = self._places[worker]
        return {"up": ("iif", f"w{place}", "blackhole"), "down": ("to", self._address(place, 2), "blackhole")}

    def _space_of(self, worker: str) -> str:
        return f"{self._router}-{worker}"

    def _address(self, place: int, end: int) -> str:
        return f"{self._subnet}.{4 * place + end}"

    async def _space(self, name: str) -> None:
        self._guard.note("netns", name)
        await _ip("netns", "add", name)
        await _ip("-n", name, "link", "set", "lo", "up")

    @staticmethod
    async def _attach(space: str, device: str, address: str) -> None:
        await _ip("-n", space, "addr", "add", f"{address}/30", "dev", device)
        await _ip("-n", space, "link", "set", device, "up")


async def _ip(*words: str) -> None:
    await _run("ip", *words)


async def _run(*command: str) -> None:
    done = await anyio.run_process(command, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise Unavailable(f"{' '.join(command)}: {said}", hint="be root, or leave out what needs it")
