"""How far the orchestrator is: latency and bandwidth of this machine's link to it, measured by a few messages.

Invariant: it takes about a second at most, and a slow link is asked for little. What it finds is the worker's claim:
the orchestrator counts with it until it has seen transfers.
"""

from __future__ import annotations

import time
from typing import Final

import anyio
import msgspec

from protocol.port import Channel
from protocol.profile import LinkProfile

_ROUNDS: Final = 5
_FIRST_BYTES: Final = 16 * 1024
_LAST_BYTES: Final = 1 << 20
_LONG_S: Final = 0.1
"""A message that travels so long has told the bandwidth well enough."""


async def distance(channel: Channel) -> LinkProfile:
    """One way latency (half the fastest round trip) and the slower direction's bytes a second.

    Both to one digit: links that are alike should say so, and more is noise. Raises: what the
    channel raises; the far side may be too old to know `echo`.
    """
    round_s = min([await _took(channel, 0, 0) for _ in range(_ROUNDS)])
    bandwidth = min([await _bandwidth(channel, up, round_s) for up in (True, False)])
    return LinkProfile(float(f"{bandwidth:.1g}"), float(f"{round_s / 2:.1g}"))


async def _bandwidth(channel: Channel, up: bool, round_s: float) -> float:
    size, best = _FIRST_BYTES, 1.0
    while True:
        took = await _took(channel, size if up else 0, 0 if up else size)
        best = max(best, size / max(took - round_s, took / 100, 1e-6))
        if took > _LONG_S or size >= _LAST_BYTES:
            return best
        size *= 2


async def _took(channel: Channel, up: int, down: int) -> float:
    body = msgspec.json.encode({"size": down, "padding": "x" * up})
    start = time.perf_counter()
    with anyio.fail_after(30.0):
        await channel.invoke("echo", body)
    return time.perf_counter() - start
