"""What skills that ask a model need: tokens by skill, and the pace of each worker's endpoint, from what was used.

A run takes a latency, its prompt at the rate of prefill and its answer at the rate of decoding; both rates are the
Theil-Sen lines of one through what the other leaves. How long an answer will be nobody knows before: the tokens of a
skill are its median and its 90th percentile. Pure.
"""

from __future__ import annotations

from collections import deque

import msgspec

from .history import WINDOW
from .regression import line, median, quantile


class Tokens(msgspec.Struct, frozen=True):
    """Of one run of a skill: the median of what it reads and writes, and the 90th percentile of what it writes."""

    runs: int
    tokens_in: float
    tokens_out: float
    tokens_out_p90: float


class Rates(msgspec.Struct, frozen=True):
    """Of one endpoint: seconds before the first token whatever the prompt, for a token read, for a token written."""

    runs: int
    latency_s: float
    prefill_s: float
    decode_s: float


class TokenPace:
    """Both by the last fifty runs."""

    def __init__(self) -> None:
        self._skills: dict[str, deque[tuple[int, int]]] = {}
        self._endpoints: dict[int, deque[tuple[int, int, float]]] = {}
        self._said: dict[tuple[str, int], tuple[float, float, int] | None] = {}
        """What was asked for since the last run."""

    def note(self, skill: str, worker: int, tokens_in: int, tokens_out: int, run_s: float) -> None:
        """A run there has used so many tokens in so many seconds."""
        self._said.clear()
        self._skills.setdefault(skill, deque(maxlen=WINDOW)).append((tokens_in, tokens_out))
        self._endpoints.setdefault(worker, deque(maxlen=WINDOW)).append((tokens_in, tokens_out, run_s))

    def tokens(self, skill: str) -> Tokens | None:
        """None before its first run."""
        seen = self._skills.get(skill)
        if not seen:
            return None
        out = sorted(float(one) for _, one in seen)
        return Tokens(len(seen), median([float(one) for one, _ in seen]), median(out), quantile(out, 0.9))

    def rates(self, worker: int) -> Rates | None:
        """None before the first run there that wrote something."""
        seen = [(float(i), float(o), s) for i, o, s in self._endpoints.get(worker, ()) if o > 0]
        if not seen:
            return None
        written = line([o for _, o, _ in seen], [s for _, _, s in seen])
        decode_s = written[1] if written is not None and written[1] > 0.0 else median([s / o for _, o, s in seen])
        left = [max(0.0, s - decode_s * o) for _, o, s in seen]
        read = line([i for i, _, _ in seen], left)
        prefill_s = max(0.0, read[1]) if read is not None else 0.0
        latency_s = median([max(0.0, rest - prefill_s * i) for rest, (i, _, _) in zip(left, seen, strict=True)])
        return Rates(len(seen), latency_s, prefill_s, decode_s)

    def run_s(self, skill: str, worker: int) -> tuple[float, float, int] | None:
        """What a run of the skill takes at that endpoint, typically and where the answer is long; by how many runs."""
        key = skill, worker
        if key not in self._said:
            self._said[key] = self._run_s(skill, worker)
        return self._said[key]

    def _run_s(self, skill: str, worker: int) -> tuple[float, float, int] | None:
        tokens, rates = self.tokens(skill), self.rates(worker)
        if tokens is None or rates is None:
            return None
        begun_s = rates.latency_s + rates.prefill_s * tokens.tokens_in
        most_s = begun_s + rates.decode_s * tokens.tokens_out_p90
        return begun_s + rates.decode_s * tokens.tokens_out, most_s, tokens.runs

    def skills(self) -> list[tuple[str, Tokens]]:
        """Every skill that has used any, by name."""
        return [(skill, found) for skill in sorted(self._skills) if (found := self.tokens(skill)) is not None]

    def endpoints(self) -> list[tuple[int, Rates]]:
        """Every worker whose model has written something."""
        return [(worker, found) for worker in sorted(self._endpoints) if (found := self.rates(worker)) is not None]
