"""Lending of a run's budget: to a planner's call, and to each attempt of a skill that spends. `Spend` keeps books."""

from __future__ import annotations

from typing import Final

from . import event as e
from .graph import Run
from .turn import Turn

_CALL_SHARE: Final = 4
_ATTEMPT_SHARE: Final = 10
"""Of a budgeted price one may borrow a quarter or a tenth, so that there is room for others beside it."""


def reserve(turn: Turn, run: Run, call: int) -> None:
    """Lend to a planner's call, as far as the run has caps: it may use no more than that."""
    tokens, price = _share(run, turn.settings.call_tokens, _CALL_SHARE)
    if tokens or price:
        turn.emit(e.BudgetReserved(run.ix, call, tokens, price))


def lend(turn: Turn, run: Run) -> tuple[int, float]:
    """(tokens, price) for an attempt; 0 without a cap. To be called only while nothing is spent."""
    return _share(run, turn.settings.attempt_tokens, _ATTEMPT_SHARE)


def _share(run: Run, most: int, share: int) -> tuple[int, float]:
    budget, spend = run.settings.budget, run.spend
    tokens, price = spend.tokens_left(budget), spend.price_left(budget)
    return (
        0 if tokens is None else max(0, min(most, tokens)),
        0.0 if price is None else max(0.0, min(budget.price / share, price)),
    )


def settle_call(turn: Turn, run: Run, call: int) -> None:
    """A call ended without a word of what it used: all that it was lent counts."""
    spend = run.spend
    if call in spend.reserved or call in spend.priced:
        turn.emit(e.BudgetSpent(run.ix, call, spend.reserved.get(call, 0), 0, spend.priced.get(call, 0.0)))
