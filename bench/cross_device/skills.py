"""The suite's own skills: `asterism worker start --skills bench.cross_device.skills`. What is simulated says so.

Invariant: what they make is a function of their arguments. Workers load this module by name; it must not know who runs
it.
"""

from __future__ import annotations

import random
import time
from typing import Annotated, Final, TypedDict

from protocol.errors import UsageError
from protocol.resource import Resources
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

from .mishap import install

_MOST_FRAMES: Final = 256
_SIDE: Final = 64


class Frame(TypedDict):
    n: int
    file: File
    brightness: float


class Captured(TypedDict):
    frames: list[Frame]
    by: str


@skill(
    name="camera.capture",
    effect="pure",
    needs=Resources(cpu=1, counters={"camera": 1.0}),
    timeout="2m",
    tags=("camera", "photo", "image", "frames", "simulated"),
)
def capture(
    ctx: SkillContext,
    frames: Annotated[int, "how many"] = 4,
    seed: Annotated[int, "of what it sees: equal seeds see equal scenes"] = 0,
    every: Annotated[float, "seconds between two frames"] = 0.02,
) -> Captured:
    """Takes frames with a simulated camera, as grey images (PGM), and says how bright each one is."""
    if not 0 < frames <= _MOST_FRAMES:
        raise UsageError(f"{frames} frames", hint=f"1 to {_MOST_FRAMES}")
    taken = []
    for n in range(frames):
        time.sleep(every)
        pixels = scene(seed, n)
        file = ctx.file(f"{n:03}.pgm")
        with open(file, "wb") as image:
            image.write(b"P5 %d %d 255\n" % (_SIDE, _SIDE) + pixels)
        taken.append(Frame(n=n, file=file, brightness=round(sum(pixels) / len(pixels), 3)))
    return Captured(frames=taken, by="simulated camera")


def scene(seed: int, n: int) -> bytes:
    """The pixels of the n-th frame: a level of its own, and noise."""
    dice = random.Random(f"{seed}/{n}")
    level = dice.randrange(30, 200)
    return bytes(level + one % 40 for one in dice.randbytes(_SIDE * _SIDE))


install()
