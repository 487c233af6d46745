"""A failing schedule made smaller: faults, people, tasks, workers and steps left out while it still fails alike.

Greedy and bounded; every trial is a whole simulation, so the answer is a schedule that was seen to fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from .schedule import Schedule
from .simulation import Outcome, simulate

TRIALS: Final = 300


class Shrunk(msgspec.Struct, frozen=True):
    """The smallest schedule that was found: what was left out of the drawn one, and what came of it."""

    schedule: Schedule
    without: frozenset[str]
    outcome: Outcome

    @property
    def command(self) -> str:
        """How to see it again."""
        words = ["asterism bench simulate", f"--seed {self.schedule.seed}", f"--steps {self.schedule.steps}"]
        if self.without:
            words.append("--without " + ",".join(sorted(self.without)))
        return " ".join(words)


def narrow(schedule: Schedule, without: frozenset[str], steps: int | None = None) -> Schedule:
    """The schedule without these parts, healed after so many steps."""
    return msgspec.structs.replace(schedule.without(set(without)), steps=steps or schedule.steps)


def kind(outcome: Outcome) -> str:
    """What makes two failures alike: the error without its numbers."""
    return "".join(letter for letter in outcome.error if not letter.isdigit())[:40]


def shrink(schedule: Schedule, outcome: Outcome, play: Callable[[Schedule], Outcome] = simulate) -> Shrunk:
    """`outcome` is what the schedule came to."""
    found = Shrunk(schedule, frozenset(), outcome)
    wanted = kind(outcome)
    trials = 0

    def fails(without: frozenset[str], steps: int) -> bool:
        nonlocal found, trials
        trials += 1
        tried = narrow(schedule, without, steps)
        came = play(tried)
        if came.error and kind(came) == wanted:
            found = Shrunk(tried, without, came)
            return True
        return False

    steps = schedule.steps
    while steps > 1 and fails(frozenset(), steps // 2):
        steps //= 2
    again = True
    while again and trials < TRIALS:
        again = False
        for group in _groups(found.schedule, list(schedule.parts()), found.without):
            if trials < TRIALS and fails(found.without | group, steps):
                again = True
    return found


def _groups(schedule: Schedule, parts: list[str], gone: frozenset[str]) -> Iterator[frozenset[str]]:
    """What to leave out next: halves, then quarters, then one at a time."""
    left = [part for part in parts if part not in gone]
    size = len(left) // 2
    while size > 1:
        yield from (frozenset(left[at : at + size]) for at in range(0, len(left), size))
        size //= 2
    yield from (frozenset((part,)) for part in left)
