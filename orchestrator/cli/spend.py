"""What a run has used of language models, in one line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import show


def spend_text(spend: Mapping[str, Any]) -> str:
    """`1,204 of 20,000 tokens, price 0.02 of 0.5 (planner: 2 calls, 1,100 tokens; skills: 104 tokens)`; "" if nothing
    was used and nothing is capped."""
    budget = spend["budget"]
    parts = []
    for name, used in (("tokens", spend["tokens"]), ("price", spend["price"])):
        if used or name in budget:
            cap = f" of {budget[name]:,.10g}" if name in budget else ""
            parts.append(f"{used:,}{cap} tokens" if name == "tokens" else f"price {used:,.6g}{cap}")
    if spend["lent_tokens"] or spend["lent_price"]:
        parts.append(f"{spend['lent_tokens']:,} tokens lent")
    if not parts:
        return ""
    shares = []
    for name, word in (("planner", "call"), ("skills", "attempt")):
        used = spend[name]
        tokens = used["tokens_in"] + used["tokens_out"]
        if used["calls"] and tokens:
            shares.append(f"{name}: {show.many(used['calls'], word)}, {tokens:,} tokens")
    left = "; the budget is spent" if spend["spent"] else ""
    return ", ".join(parts) + (f" ({'; '.join(shares)})" if shares else "") + left
