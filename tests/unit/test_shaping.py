"""A simulated link takes its time for every byte, and its latency once for what travels together."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from protocol.artifact import Content, digest_of
from protocol.bundle import split, weight
from workers.shaping import Shape, slowed

CONTENTS = [Content(digest_of(data), "", data) for data in (bytes([k]) * 100_000 for k in range(12))]


async def bundles() -> AsyncIterator[tuple[Content, ...]]:
    for bundle in split(CONTENTS):
        yield bundle


def test_bundles_pay_latency_once_and_bandwidth_for_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("workers.shaping.anyio.sleep", note)

    async def main() -> None:
        shape = Shape(bandwidth=1_000_000, latency_s=0.25)
        got = [bundle async for bundle in slowed(bundles(), shape, weight)]
        assert [one for bundle in got for one in bundle] == CONTENTS
        assert len(got) == 3
        assert waits[0] == 0.25
        assert len(waits) == 4
        assert sum(waits[1:]) == pytest.approx(weight(CONTENTS) / 1_000_000)
        assert weight(CONTENTS) >= 1_200_000
        waits.clear()
        assert len([bundle async for bundle in slowed(bundles(), Shape(), weight)]) == 3
        assert waits == []

    anyio.run(main)
