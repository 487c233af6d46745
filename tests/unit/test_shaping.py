"""A simulated link takes its time for every byte, and its latency once for what travels together."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import anyio
import pytest

from protocol.artifact import Content, digest_of
from protocol.bundle import split, weight
from protocol.errors import UsageError
from workers.shaping import Lane, Shape, parse_shape, sleep_until

CONTENTS = [Content(digest_of(data), "", data) for data in (bytes([k]) * 100_000 for k in range(12))]
SHAPE = Shape(bandwidth=1_000_000, latency_s=0.25)


async def bundles() -> AsyncIterator[tuple[Content, ...]]:
    for bundle in split(CONTENTS):
        yield bundle


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that a lane sees; it passes only where somebody sleeps, in whole milliseconds and too long, as there."""
    time = [100.0]

    async def sleep(seconds: float) -> None:
        if seconds > 0:
            whole = math.ceil(1000 * seconds)
            time[0] += (whole + 0.2 + (whole % 9 == 0)) / 1000

    monkeypatch.setattr("workers.shaping.anyio.sleep", sleep)
    monkeypatch.setattr("workers.shaping.anyio.sleep_until", lambda at: sleep(at - time[0]))
    monkeypatch.setattr("workers.shaping.anyio.current_time", lambda: time[0])
    return time


def test_bundles_pay_latency_once_and_bandwidth_for_every_byte(now: list[float]) -> None:
    async def main() -> None:
        got = [bundle async for bundle in Lane(SHAPE).slowed(bundles(), weight)]
        assert [one for bundle in got for one in bundle] == CONTENTS
        assert len(got) == 3
        assert now[0] - 100.0 == pytest.approx(0.25 + weight(CONTENTS) / 1_000_000, abs=2e-3)
        assert weight(CONTENTS) >= 1_200_000
        before = now[0]
        assert len([bundle async for bundle in Lane(Shape()).slowed(bundles(), weight)]) == 3
        assert now[0] == before

    anyio.run(main)


def test_what_goes_over_a_lane_at_once_shares_its_bandwidth(now: list[float]) -> None:
    async def main() -> None:
        lane = Lane(SHAPE)
        both = [lane.slowed(bundles(), weight), lane.slowed(bundles(), weight)]
        for _ in range(3):
            for one in both:
                await anext(one)
        assert now[0] - 100.0 == pytest.approx(0.5 + 2 * weight(CONTENTS) / 1_000_000, abs=2e-3)

    anyio.run(main)


def test_what_is_simulated_takes_as_long_as_it_says_on_average(now: list[float]) -> None:
    async def main() -> None:
        late = []
        for k in range(400):
            due = now[0] + 0.005 + 0.00017 * k
            await sleep_until(due)
            late.append(now[0] - due)
        assert abs(sum(late)) < 0.0001 * len(late)
        assert max(map(abs, late)) < 0.0007

    anyio.run(main)


def test_a_slow_device_takes_its_start_and_stretches_the_work() -> None:
    assert parse_shape("speed=0.5,start=50ms").extra_s(2.0) == pytest.approx(0.05 + 2.0)
    assert parse_shape("start=50ms").extra_s(2.0) == pytest.approx(0.05)
    assert parse_shape("latency=20ms").extra_s(2.0) == 0.0
    for wrong in ("start=-1s", "speed=2"):
        with pytest.raises(UsageError):
            parse_shape(wrong)
