"""What attempts waited for on this worker: answers, inputs. It makes their usage whole.

Invariant: an attempt is forgotten with its usage. A simulated slow device is slow at its own work only, so the time in
which an attempt waited for an answer is not stretched, nor that in which it waited for the worker's language model. It
must not know what was asked or fetched.
"""

from __future__ import annotations

import time

import msgspec

from protocol.builtin_model import MODEL_SKILLS
from protocol.ids import AttemptId
from protocol.outcome import Usage

from .shaping import Shape


class Tally:
    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._thinking: set[AttemptId] = set()
        self._asked: dict[AttemptId, dict[int, float]] = {}
        self._waited: dict[AttemptId, float] = {}
        self._brought: dict[AttemptId, tuple[int, float]] = {}

    def thinks(self, attempt: AttemptId, skill: str) -> bool:
        """Whether it asks the model, which works elsewhere: its own work is what its host computes."""
        if skill in MODEL_SKILLS:
            self._thinking.add(attempt)
        return attempt in self._thinking

    def asked(self, attempt: AttemptId, k: int) -> None:
        """Its k-th call has left, perhaps again."""
        self._asked.setdefault(attempt, {}).setdefault(k, time.perf_counter())

    def answered(self, attempt: AttemptId, k: int) -> None:
        now = time.perf_counter()
        since = self._asked.get(attempt, {}).pop(k, now)
        self._waited[attempt] = self._waited.get(attempt, 0.0) + now - since

    def brought(self, attempt: AttemptId, size_bytes: int, seconds: float = 0.0) -> None:
        """So much was fetched for it, and it waited so long for that before its start."""
        size, waited_s = self._brought.get(attempt, (0, 0.0))
        self._brought[attempt] = (size + size_bytes, waited_s + seconds)

    def extra_s(self, attempt: AttemptId, usage: Usage) -> float:
        """How much longer the simulated device takes for what took so long here."""
        self._asked.pop(attempt, None)
        own_s = max(0.0, usage.run_s - self._waited.pop(attempt, 0.0))
        if attempt in self._thinking:
            own_s = min(own_s, usage.cpu_s)
        return self._shape.extra_s(own_s)

    def whole(self, attempt: AttemptId, usage: Usage) -> Usage:
        """With what was brought."""
        self._thinking.discard(attempt)
        found = self._brought.pop(attempt, None)
        return usage if found is None else msgspec.structs.replace(usage, bytes_in=found[0], bring_s=found[1])
