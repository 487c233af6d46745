"""Short measurements of one machine: arithmetic, memory, disk. Placement believes these until it has seen tasks run.

Each takes its time budget and no longer; the best of several rounds counts, since noise only ever slows. `speed` is
relative to the reference core (1.0): one core of a 2023 server running CPython, REFERENCE_STEPS_S loop steps a second.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

REFERENCE_STEPS_S: Final = 45e6
_BLOCK: Final = 8 * 1024 * 1024
_STEPS: Final = 50_000
_SIDE: Final = 256


class Calibration(msgspec.Struct, frozen=True):
    """What was measured. `by` names what did the arithmetic: numpy or python."""

    speed: float
    gflops: float
    memory_bytes_s: float
    disk_bytes_s: float
    by: str


def calibrate(folder: str | os.PathLike[str] | None = None, budget_s: float = 0.2) -> Calibration:
    """Measures for about four times `budget_s`. The disk figure is for sequential writes with fsync in `folder`."""
    steps = _STEPS / _best(_count_steps, budget_s)
    gflops, by = _gflops(budget_s)
    source = bytearray(_BLOCK)
    memory = 2 * _BLOCK / _best(lambda: bytes(source), budget_s)  # a copy reads and writes each byte
    return Calibration(
        speed=round(steps / REFERENCE_STEPS_S, 3),
        gflops=round(gflops, 3),
        memory_bytes_s=round(memory),
        disk_bytes_s=round(_disk(folder, budget_s)),
        by=by,
    )


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


def _gflops(budget_s: float) -> tuple[float, str]:
    try:
        numpy: Any = importlib.import_module("numpy")
    except ImportError:
        left = [1.000001] * _STEPS
        seconds = _best(lambda: sum(map(float.__mul__, left, left)), budget_s)
        return 2 * _STEPS / seconds / 1e9, "python"
    square = numpy.ones((_SIDE, _SIDE), dtype=numpy.float32)
    return 2 * _SIDE**3 / _best(lambda: square @ square, budget_s) / 1e9, "numpy"


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
