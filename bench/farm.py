"""Many schedules on all cores: processes that were spawned, so each starts from nothing and shares nothing."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final

import msgspec

from .simulation import Outcome, simulate_seed

CHUNK: Final = 20
MOST_FAILURES: Final = 5


class Harvest(msgspec.Struct):
    """What came of many schedules. `failures` holds the first few."""

    schedules: int = 0
    decisions: int = 0
    results: int = 0
    seconds: float = 0.0
    processes: int = 1
    hits: Counter[str] = msgspec.field(default_factory=Counter)
    failures: list[Outcome] = []

    def add(self, other: Harvest) -> None:
        self.schedules += other.schedules
        self.decisions += other.decisions
        self.results += other.results
        self.hits.update(other.hits)
        self.failures += other.failures[: MOST_FAILURES - len(self.failures)]

    def table(self) -> str:
        """For people: how much was tried, and which faults met something."""
        rate = self.schedules / self.seconds if self.seconds else 0.0
        head = (
            f"{self.schedules} schedules, {self.decisions} decisions, {self.results} results checked "
            f"in {self.seconds:.1f} s: {rate:.0f} schedules/s on {self.processes} processes"
        )
        rows = [f"  {name:26}{count:9}" for name, count in sorted(self.hits.items())]
        return "\n".join([head, *rows])


def play(seeds: Sequence[int]) -> Harvest:
    """These schedules, one after the other, in this process."""
    found = Harvest()
    for seed in seeds:
        outcome = simulate_seed(seed)
        found.schedules += 1
        found.decisions += outcome.decisions
        found.results += outcome.results
        found.hits.update(outcome.hits)
        if outcome.error:
            found.failures.append(outcome)
    return found


def reap(seeds: Iterable[int], processes: int = 0, say: Callable[[str], None] = lambda text: None) -> Harvest:
    """All of them on so many processes (0: one a core); stops early when several have failed."""
    wanted = list(seeds)
    chunks = [wanted[at : at + CHUNK] for at in range(0, len(wanted), CHUNK)]
    found = Harvest(processes=min(processes or os.cpu_count() or 1, max(1, len(chunks))))
    began = time.perf_counter()
    with ProcessPoolExecutor(found.processes, multiprocessing.get_context("spawn"), _settle) as pool:
        try:
            for n, one in enumerate(as_completed([pool.submit(play, chunk) for chunk in chunks]), 1):
                found.add(one.result())
                if n % 50 == 0:
                    say(f"{found.schedules} of {len(wanted)}")
                if len(found.failures) >= MOST_FAILURES:
                    break
        finally:
            pool.shutdown(cancel_futures=True)
    found.failures.sort(key=lambda outcome: (outcome.decisions, outcome.seed))
    found.seconds = time.perf_counter() - began
    return found


def _settle() -> None:
    """What was imported stays: the collector need not walk it for every schedule."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
