"""`bench.sulk`: work of about a second of which one attempt in twenty takes 3 to 10 times as long, wherever it runs.

Loaded by name: `--skills bench.placement.sulking`. It sleeps; how long is drawn from the seed, the name and the number
of the attempt, so that a copy has luck of its own and everything repeats.
"""

from __future__ import annotations

from random import Random
from typing import Final

import anyio

from workers.context import AsyncSkillContext
from workers.skill import skill

SLOWED: Final = 0.05
TIMES: Final = (3.0, 10.0)


def attempt_s(seed: int, name: str, number: int) -> float:
    """How long that attempt takes."""
    luck = Random(f"{seed} {name} {number}")
    ordinary = luck.lognormvariate(0.0, 0.2)
    return ordinary * luck.uniform(*TIMES) if luck.random() < SLOWED else ordinary


@skill(name="bench.sulk", effect="pure")
async def sulk(ctx: AsyncSkillContext, value: str, seed: int = 0, scale: float = 1.0) -> str:
    """Simulated work that sometimes hangs; `scale` is about how many seconds it takes when it does not."""
    await anyio.sleep(scale * attempt_s(seed, value, ctx.number))
    return value
