"""What a run has used of its budget, and what is lent to those who are using it now (G10).

A planner call, and an attempt of a skill that spends, borrow before they start and give back what they did not use, so
used and lent together stay within the budget: who can borrow nothing does not start. What became of a lost call or
attempt nobody knows, so all that it had borrowed counts as used.
"""

from __future__ import annotations

import msgspec

from protocol.task import RunBudget

_ROUNDING = 1e-9


class Spend(msgspec.Struct, array_like=True):
    """See the module. `tokens_in`, `tokens_out` and `price` are of everybody, `planner_*` of planner calls alone."""

    attempts: int = 0
    calls: int = 0
    """Requests of planner calls; those of open calls count as one."""
    tokens_in: int = 0
    tokens_out: int = 0
    price: float = 0.0
    reserved: dict[int, int] = {}
    """Tokens lent, by planner call."""
    first_task_s: float = -1.0
    retries: int = 0
    """Attempts after a transient failure, `losses` after a lost one; `successes` are tasks that an attempt won."""
    losses: int = 0
    successes: int = 0
    planner_in: int = 0
    planner_out: int = 0
    planner_price: float = 0.0
    priced: dict[int, float] = {}
    """Price lent, by planner call."""
    lent_tokens: int = 0
    """To attempts."""
    lent_price: float = 0.0
    uses: int = 0
    """Attempts that have reported a use."""
    refused: int = 0
    """Re-plans that the budget did not allow."""

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out

    def tokens_left(self, budget: RunBudget) -> int | None:
        """What may still be borrowed; None without a cap."""
        if not budget.tokens:
            return None
        return budget.tokens - self.tokens - sum(self.reserved.values()) - self.lent_tokens

    def price_left(self, budget: RunBudget) -> float | None:
        """What may still be borrowed; None without a cap."""
        if not budget.price:
            return None
        left = budget.price - self.price - sum(self.priced.values()) - self.lent_price
        return left if left > _ROUNDING * budget.price else min(left, 0.0)

    def calls_left(self, budget: RunBudget) -> int | None:
        """Further requests of planners; None without a cap."""
        return budget.calls - self.calls if budget.calls else None

    def over(self, budget: RunBudget) -> str:
        """What was used beyond the budget, in words; "" if nothing."""
        if budget.tokens and self.tokens > budget.tokens:
            return f"{self.tokens} tokens, its budget has {budget.tokens}"
        if budget.price and self.price > budget.price * (1 + _ROUNDING):
            return f"a price of {self.price:g}, its budget has {budget.price:g}"
        return ""

    def spent(self, budget: RunBudget, *, calls: bool = False) -> str:
        """Of what nothing is left to borrow, in words; "" if there is some of all. `calls`: for a planner's call."""
        tokens, price = self.tokens_left(budget), self.price_left(budget)
        if tokens is not None and tokens <= 0:
            return f"tokens: {self.tokens} of {budget.tokens} are used" + _lent(budget.tokens - self.tokens - tokens)
        if price is not None and price <= 0:
            return f"price: {self.price:g} of {budget.price:g} is used" + _lent(budget.price - self.price - price)
        left = self.calls_left(budget)
        return f"calls: {self.calls} of {budget.calls} are made" if calls and left is not None and left <= 0 else ""

    @property
    def lends(self) -> bool:
        """Somebody may give something back."""
        return bool(self.reserved or self.priced or self.lent_tokens > 0 or self.lent_price > _ROUNDING)


def _lent(amount: float) -> str:
    return f", {amount:g} lent" if amount > _ROUNDING else ""
