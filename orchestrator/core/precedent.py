"""What recent runs tell of things that no predictor keeps: how large a skill's results are, how many elements its maps
had, what dispatch and report add to an attempt.

Read from the newest settled runs when somebody asks, and once until another has settled, so that no task pays for it.
It must not know devices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from protocol.artifact import ArtifactRef

from .graph import Run
from .lifecycle import Closed

RUNS: Final = 8
TASKS: Final = 2_000
"""At most so many runs and tasks are looked at."""
_TIMES: Final = 4.0
_MORE_S: Final = 0.002
"""A run's hop is its lower quartile, and no more than so many times its least and so much more."""


class Precedent:
    """See the module."""

    def __init__(self, runs: Iterable[Run]) -> None:
        """`runs`: the newest first."""
        self._large: dict[str, tuple[float, int]] = {}
        self._bytes: dict[str, tuple[float, int]] = {}
        self._items: dict[str, int] = {}
        self.hop_s = 0.0
        """Seconds between dispatch and report beyond the attempt's own run time."""
        hops: list[float] = []
        seen = looked = 0
        for run in runs:
            if looked >= RUNS or seen >= TASKS:
                break
            if type(run.state) is not Closed:
                continue
            looked += 1
            seen_here: list[float] = []
            for task in run.tasks[: TASKS - seen]:
                seen += 1
                if task.spread is not None:
                    self._items.setdefault(task.skill, task.spread.items)
                if not task.succeeded or task.reused:
                    continue
                value = task.value or b""
                large = value.size if isinstance(value, ArtifactRef) else 0
                _add(self._large, task.skill, large)
                _add(self._bytes, task.skill, large if isinstance(value, ArtifactRef) else len(value))
                attempt = task.winner()
                if attempt is not None and attempt.run_s >= 0:
                    seen_here.append(max(0.0, attempt.ended_at - attempt.at - attempt.run_s))
            if seen_here:  # where many waited at their worker only the least had no queue in it
                seen_here.sort()
                hops.append(min(seen_here[len(seen_here) // 4], _TIMES * seen_here[0] + _MORE_S))
        if hops:
            self.hop_s = sorted(hops)[len(hops) // 2]

    def out_bytes(self, skill: str) -> float:
        """The mean of what the skill's results have that is too large for a message; 0 if nobody knows."""
        total, count = self._large.get(skill, (0.0, 1))
        return total / count

    def value_bytes(self, skill: str) -> float:
        """The mean size of the skill's results; 0 if nobody knows."""
        total, count = self._bytes.get(skill, (0.0, 1))
        return total / count

    def items(self, skill: str) -> int:
        """How many elements the newest map of the skill had; 1 if there was none."""
        return self._items.get(skill, 1)


def _add(means: dict[str, tuple[float, int]], skill: str, size: int) -> None:
    total, count = means.get(skill, (0.0, 0))
    means[skill] = total + size, count + 1
