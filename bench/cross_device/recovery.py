"""How long a run took to get over a blow, read from its own events.

A task is hit if an attempt of it lived where the blow struck, or was given there before anybody knew and was lost. It
has recovered when an attempt of it is dispatched anew, when the old one lives again or ends well after all, when a task
of its own goes on, or when it is settled. What only the struck machine could do recovers from that machine's return on,
since no bound can hold before: from when its worker, back with nothing, let the old attempt be lost, or from when the
harm was healed.
Invariant: pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from .mishap import INJECTED

_NEVER: Final = float("inf")


class Attempt(msgspec.Struct):
    """One attempt; times are Unix times. `ended` by its own word; `lost_at`: somebody gave it up."""

    task: str
    machine: str
    began: float
    ended: float = _NEVER
    lost_at: float = _NEVER
    acts: bool = False
    """Its effect may be had only once, and had begun."""


class Trail:
    """What the events of one run have told so far."""

    def __init__(self) -> None:
        self.attempts: dict[tuple[str, int], Attempt] = {}
        self.errors: list[tuple[str, float]] = []
        """Injected ones: (task, when)."""
        self.over_at = _NEVER
        self.given_up: set[str] = set()
        """Tasks that did not end well."""
        self._signs: list[tuple[float, str]] = []

    def hear(self, row: Mapping[str, Any]) -> None:
        kind, at, task = row["kind"], float(row["at"]), str(row.get("task", ""))
        one = self.attempts.get((task, row.get("attempt", 0)))
        if kind == "attempt_dispatched":
            self.attempts[task, row["attempt"]] = Attempt(task, row["worker"], at)
            self._signs.append((at, task))
        elif kind == "run_settled":
            self.over_at = at
        elif kind in ("task_settled", "attempt_regained"):
            self._signs.append((at, task))
            self.given_up |= {task} if row.get("state", "succeeded") != "succeeded" else set()
        elif one is not None and kind == "effect_begun":
            one.acts = True
        elif one is not None and kind == "attempt_ended":
            if row["lost"]:
                one.lost_at = at
            else:
                one.ended = at
                self._signs.append((at, task))
            if row.get("message") == INJECTED:
                self.errors.append((task, at))

    def hit(self, machine: str, at: float) -> list[Attempt]:
        """What the blow met there."""
        found = [one for one in self.attempts.values() if one.machine == machine]
        return [one for one in found if (one.began <= at < one.ended) or (one.began > at and one.lost_at < _NEVER)]

    def after_hits(self, hit: Sequence[Attempt], at: float, back_at: float) -> float:
        """From the strike until all of them have recovered."""
        return max(self._recovered_s(one, at, back_at) for one in hit)

    def _recovered_s(self, one: Attempt, at: float, back_at: float) -> float:
        when = self.next_sign(max(at, one.began), one.task)
        again = {two.machine for two in self.attempts.values() if two.task == one.task and two.began == when}
        if again == {one.machine}:
            back_at = min(back_at, one.lost_at)
        return max(0.0, when - (back_at if when >= back_at and again <= {one.machine} else at))

    def next_sign(self, after: float, task: str = "") -> float:
        """When the task, or any, was next seen to go on; the run's end if it wasn't."""
        signs = (at for at, name in self._signs if at > after and (not task or f"{name}.".startswith(f"{task}.")))
        return min(signs, default=self.over_at)

    def after_errors(self) -> tuple[float, ...]:
        """From each injected error until its task was tried again or settled."""
        return tuple(self.next_sign(at, task) - at for task, at in self.errors)
