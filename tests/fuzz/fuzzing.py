"""Runs targets: fixed seeds for the tests, any length of time for `make fuzz`. Hangs and hunger are defects too.

The process bounds itself: an alarm ends an execution that takes longer than HANG_S, a limit on its address space makes
a decoder that allocates what a length field says raise MemoryError.
"""

from __future__ import annotations

import hashlib
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import FrameType
from typing import Final

import msgspec

from .mutation import truncations
from .target import CORPUS, Broken, Target, prove

HANG_S: Final = 10.0
"""A hundred times what the slowest decoder takes for the largest input here."""
MEMORY_BYTES: Final = 4 * 1024**3


class Hung(Exception):
    """An execution took longer than HANG_S."""


class Tally(msgspec.Struct):
    """What became of the executions of one target."""

    name: str
    executions: int = 0
    decoded: int = 0
    seconds: float = 0.0
    broken: dict[str, str] = {}
    """Kind of defect -> its first story, which begins with the name of its file in the corpus."""


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, a hang raises Hung and hunger raises MemoryError."""

    def rang(number: int, frame: FrameType | None) -> None:
        raise Hung(f"longer than {HANG_S:g} s")

    before = signal.signal(signal.SIGALRM, rang)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(target: Target, seed: int, executions: int, seconds: float = 1e9, *, keep: bool = False) -> Tally:
    """Mutations of the corpus, and its truncations first; `keep` writes what broke it into the corpus."""
    tally = Tally(target.name)
    luck = Random(f"{target.name}/{seed}")
    seeds = target.seeds()
    begun = time.monotonic()
    short = [part for data in seeds for part in truncations(data)] if seed == 0 else []
    luck.shuffle(short)
    queue = iter(short[: executions // 8])
    while tally.executions < executions and time.monotonic() - begun < seconds:
        data = next(queue, None)
        if data is None:
            data = target.mutate(luck, seeds)
        tally.executions += 1
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try:
            tally.decoded += prove(target, data)
        except (Broken, Hung, MemoryError) as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _note(tally, data, error, keep)
    signal.setitimer(signal.ITIMER_REAL, 0)
    tally.seconds = time.monotonic() - begun
    return tally


def _note(tally: Tally, data: bytes, error: BaseException, keep: bool) -> None:
    kind = error.kind.partition("\n")[0] if isinstance(error, Broken) else type(error).__name__
    if kind in tally.broken:
        return
    name = hashlib.sha256(data).hexdigest()[:12]
    tally.broken[kind] = f"{name} {error}"
    if keep:
        (CORPUS / tally.name / name).write_bytes(data)


def report(tally: Tally) -> None:
    rate = tally.executions / max(tally.seconds, 1e-9)
    share = 100 * tally.decoded / max(1, tally.executions)
    sys.stdout.write(
        f"{tally.name:<26} {tally.executions:>9} executions {rate:>9.0f}/s  {share:>3.0f}% decoded  "
        f"{len(tally.broken)} broken\n"
    )
    for text in tally.broken.values():
        sys.stdout.write(f"  {text}\n")
    sys.stdout.flush()
