"""What a benchmark measures: repeated numbers as median and range, memory of real processes, the disk's own speed.

Invariant: a number is never alone; `Spread` keeps how often and how widely it was seen. It must not know what is
measured, nor how it is shown.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import psutil

MIB = 1024 * 1024


class Spread(msgspec.Struct, frozen=True):
    """A number that was measured `runs` times."""

    median: float
    min: float
    max: float
    runs: int


def spread(values: Iterable[float]) -> Spread:
    """Raises: ValueError when nothing was measured."""
    found = list(values)
    if not found:
        raise ValueError("nothing was measured")
    return Spread(_short(statistics.median(found)), _short(min(found)), _short(max(found)), len(found))


class Quantiles(msgspec.Struct, frozen=True):
    """Seconds that were measured `runs` times: the middle, the 99th of 100 (the largest of fewer), the largest."""

    p50: float
    p99: float
    max: float
    runs: int


def quantiles(values: Iterable[float]) -> Quantiles:
    """By nearest rank, so each is a value that was seen. Raises: ValueError when nothing was measured."""
    found = sorted(values)
    if not found:
        raise ValueError("nothing was measured")
    return Quantiles(_short(at_rank(found, 0.5)), _short(at_rank(found, 0.99)), _short(found[-1]), len(found))


def at_rank(ordered: Sequence[float], share: float) -> float:
    """The smallest of at least one value, in order, that so large a share of them does not exceed."""
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


def _short(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def resident(pids: Sequence[int]) -> int:
    """Bytes of memory that these processes hold together; one that is gone holds none."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def children(pid: int) -> list[int]:
    """The processes below this one, at any depth."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def fsync_ms(folder: Path, times: int = 50) -> Spread:
    """How long one small appending write takes to reach the disk of this folder."""
    path = folder / "fsync.probe"
    taken: list[float] = []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(times):
            os.write(fd, b"x" * 4096)
            start = time.perf_counter()
            os.fsync(fd)
            taken.append((time.perf_counter() - start) * 1000)
    finally:
        os.close(fd)
        path.unlink()
    return spread(taken)


def help_s(times: int = 5) -> Spread:
    """How long `asterism --help` takes, process start included."""
    taken: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-P", "-m", "asterism", "--help"], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return spread(taken)
