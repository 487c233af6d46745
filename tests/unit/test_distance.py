"""workers.distance and what a worker says of itself: measured, priced, checked before it leaves."""

from __future__ import annotations

import math
import time
from typing import Any, cast

import anyio
import msgspec
import pytest

from devices.calibration import Calibration, Measured
from devices.inventory import discover
from protocol.errors import UsageError
from protocol.port import Channel
from protocol.profile import LinkProfile
from workers.distance import distance
from workers.profile import Declared, profile_of, rates
from workers.shaping import parse_shape


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Line:
    """A line of known length, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, link: LinkProfile) -> None:
        self.link, self.now, self.carried = link, 0.0, 0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    async def invoke(self, method: str, body: bytes) -> bytes:
        asked: dict[str, Any] = msgspec.json.decode(body)
        size = asked["size"] + len(asked["padding"])
        self.carried += size
        self.now += 2 * self.link.latency_s + size / self.link.bandwidth
        await anyio.lowlevel.checkpoint()
        return bytes(asked["size"])


@pytest.mark.anyio
@pytest.mark.parametrize("link", [LinkProfile(1e9, 0.0001), LinkProfile(2e6, 0.02), LinkProfile(5e4, 0.3)])
async def test_a_link_is_measured_by_few_bytes(monkeypatch: pytest.MonkeyPatch, link: LinkProfile) -> None:
    line = Line(monkeypatch, link)
    found = await distance(cast(Channel, line))
    assert found.latency_s == pytest.approx(link.latency_s, rel=0.01)
    assert found.bandwidth == pytest.approx(link.bandwidth, rel=0.02)
    assert line.now < 10
    assert line.carried < max(5e6, link.bandwidth)


def test_a_profile_says_what_was_measured_and_what_it_costs() -> None:
    inventory = discover()
    measured = Calibration((Measured("cpu", 0, 0.8, 50.0, 1e10, "numpy"),), links={"10.0.0.1": LinkProfile(1e7, 0.01)})
    declared = Declared(price=rates({"cpu": "0.36"}, {"cpu": 9.0, "gpu": 2.0}, "--price"), watts={"cpu": 12.0})
    profile = profile_of(declared, inventory, (), measured, "10.0.0.1:7420")
    cpu = profile.devices[0]
    assert (cpu.speed, cpu.gflops, cpu.calibrated, cpu.watts) == (0.8, 50.0, True, 12.0)
    assert cpu.price_per_s == pytest.approx(0.0001)
    assert profile.link == LinkProfile(1e7, 0.01)
    assert profile_of(declared, inventory, (), measured, "10.0.0.2:7420").link == LinkProfile()
    slow = msgspec.structs.replace(declared, shape=parse_shape("speed=0.5,latency=20ms"))
    profile = profile_of(slow, inventory, (), measured, "10.0.0.1:7420")
    assert (profile.devices[0].speed, profile.link) == (0.4, LinkProfile(1e7, 0.02))


@pytest.mark.parametrize("price", ["nan", "inf", "-1", "cheap"])
def test_a_price_that_is_no_amount_is_refused_by_its_flag(price: str) -> None:
    with pytest.raises(UsageError, match="--price gpu="):
        rates({"gpu": price}, {}, "--price")
    with pytest.raises(UsageError, match="--price cloud=1"):
        rates({"cloud": "1"}, {}, "--price")


@pytest.mark.parametrize("lie", [{"watts": {"cpu": math.nan}}, {"slots": 10**6}, {"price": {"cpu": 1e30}}])
def test_what_no_orchestrator_would_believe_is_not_even_said(lie: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no worker can be like this"):
        profile_of(Declared(**lie), discover(), ())
