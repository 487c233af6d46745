"""Short measurements of one machine: arithmetic, memory, disk. Placement believes these until it has seen tasks run.

Each takes its time budget and little longer; the best of several rounds counts, since noise only ever slows: so a
second calibration of an idle machine finds the same. `speed` is relative to the reference core (1.0): one core of a
2023 server running CPython, REFERENCE_STEPS_S loop steps a second; of a card, its GFLOP/s against such a core's.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Final

from protocol.errors import AsterismError

from .calibration import Calibration, Measured
from .cpu import usable_memory
from .gpu import Card
from .kernel import Engine, Kernel, card, matmul, processor, triad

REFERENCE_STEPS_S: Final = 45e6
REFERENCE_GFLOPS: Final = 60.0
_STEPS: Final = 50_000
_SIDES: Final = {"numpy": 1024, "torch": 8192, "cupy": 8192, "python": 48}
_NUMBERS: Final = {"cpu": 8 << 20, "gpu": 64 << 20}
"""Of each array of the triad, where a sixteenth of the memory holds it: several times what caches hold."""
_LEAST: Final = 1 << 16
_STEP: Final = 1.1
_SLOWEST: Final = 1e-3


def calibrate(
    folder: str | os.PathLike[str] | None = None, budget_s: float = 0.2, cards: Sequence[Card] = ()
) -> Calibration:
    """Measures for about four times `budget_s`, and twice more for each card.

    A card that nothing here can compute on is left out: its figures stay unknown. The disk figure is for sequential
    writes with fsync in `folder`.
    """
    steps = _STEPS / _best(_count_steps, budget_s)
    found = [_measured(processor(), budget_s, usable_memory(), steps / REFERENCE_STEPS_S)]
    for at, one in enumerate(cards):
        try:
            found.append(_measured(card(at), budget_s, one.memory))
        except (AsterismError, RuntimeError):  # no library, or one that its card fails
            continue
    return Calibration(tuple(found), round(_disk(folder, budget_s)))


def _measured(engine: Engine, budget_s: float, memory: int, speed: float = 0.0) -> Measured:
    flops_s = _rate(matmul(engine, _SIDES[engine.by]), budget_s)
    count = max(min(_NUMBERS[engine.device], memory // 16 // 24), _LEAST)
    bytes_s = _rate(triad(engine, count), budget_s)
    gflops = round(flops_s / 1e9, 3)
    stepped = _stepped(speed or gflops / REFERENCE_GFLOPS)
    return Measured(engine.device, engine.card, stepped, gflops, round(bytes_s), engine.by)


def _stepped(speed: float) -> float:
    """In steps of a tenth: machines that are alike should say so, and noise is no difference between them."""
    return round(_STEP ** round(math.log(max(speed, _SLOWEST), _STEP)), 4)


def _rate(kernel: Kernel, budget_s: float) -> float:
    """Work per second of the best round. Raises: ArithmeticError when the device computes wrongly."""
    seconds = _best(kernel.act, budget_s)
    kernel.check()
    return kernel.work / seconds


def _best(action: Callable[[], object], budget_s: float) -> float:
    """Seconds of the fastest round within the budget; at least two rounds, the first warms up."""
    action()
    best = float("inf")
    end = time.perf_counter() + budget_s
    while True:
        start = time.perf_counter()
        action()
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return max(best, 1e-9)


def _count_steps() -> int:
    total = 0
    for step in range(_STEPS):
        total += step
    return total


def _disk(folder: str | os.PathLike[str] | None, budget_s: float) -> float:
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        written = 0
        start = time.perf_counter()
        while time.perf_counter() - start < budget_s and written < 256 << 20:
            written += file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return written / max(time.perf_counter() - start, 1e-9)
