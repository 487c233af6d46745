"""One fault of `asterism bench faults`: how often it was done, what it cost, how fast it was noticed and made good.

Invariant: a case without a measured value shows none, and one that broke its promise can't look well: `sound` asks the
two counts that must be zero. It must not know how a fault is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..metric import Quantiles, quantiles
from .account import Account

SPANS: Final = ("detect_s", "reassign_s", "recover_s")


class Case(msgspec.Struct, frozen=True):
    """A row of the answer. `detect_s`: until the orchestrator noticed; `reassign_s`: until the lost work had begun
    elsewhere; `recover_s`: until all of it was done, or all was as before. `figures` are further numbers, the largest
    that was seen. `bounds` are the promised p99 of spans and the most of figures."""

    fault: str
    case: str
    times: int
    results_lost: int
    results_applied_twice: int
    re_executed: int
    detect_s: Quantiles | None = None
    reassign_s: Quantiles | None = None
    recover_s: Quantiles | None = None
    bounds: dict[str, float] = {}
    figures: dict[str, float] = {}
    why: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Nothing was lost, nothing was applied twice."""
        return not (self.results_lost or self.results_applied_twice)

    def missed(self) -> dict[str, float]:
        """What is over its bound: the p99 of a span, a figure."""
        seen = dict(self.figures)
        for name in SPANS:
            span: Quantiles | None = getattr(self, name)
            if span is not None:
                seen[name] = span.p99
        return {name: seen[name] for name, bound in self.bounds.items() if name in seen and seen[name] > bound}

    def document(self) -> dict[str, Any]:
        return {**msgspec.to_builtins(self), "missed": self.missed()}


class Tally:
    """Collects the rounds of one case. `figures` are further numbers, the largest of all rounds."""

    def __init__(self, case: str, fault: str, bounds: Mapping[str, float] | None = None) -> None:
        self.case = case
        self.fault = fault
        self.bounds = dict(bounds or {})
        self.times = 0
        self.account = Account()
        self.figures: dict[str, float] = {}
        self._spans: dict[str, list[float]] = {name: [] for name in SPANS}

    def note(self, **spans: float) -> None:
        """Seconds of one fault, by the name of the span."""
        for name, value in spans.items():
            self._spans[name].append(max(0.0, value))

    def add(self, account: Account, times: int = 1) -> None:
        self.account += account
        self.times += times

    def figure(self, name: str, value: float) -> None:
        self.figures[name] = round(max(value, self.figures.get(name, value)), 4)

    def of(self) -> Case:
        found = {name: quantiles(values) if values else None for name, values in self._spans.items()}
        return Case(
            fault=self.fault,
            case=self.case,
            times=self.times,
            results_lost=self.account.results_lost,
            results_applied_twice=self.account.results_applied_twice,
            re_executed=self.account.re_executed,
            bounds=self.bounds,
            figures=self.figures,
            why=self.account.why,
            **found,
        )
