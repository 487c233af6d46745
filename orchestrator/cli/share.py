"""What a run's user has of the fleet, in one line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def share_text(share: Mapping[str, Any]) -> str:
    """`ann has 40% of the cpu (37% lately); batch; 12 of its tasks wait for room; r9 (standard) goes first`."""
    parts = [f"{share['lately']:.0%} lately"] if share["lately"] is not None else []
    if share["weight"] != 1:
        parts.append(f"weight {share['weight']:g}")
    text = f"{share['user']} has {share['holds']:.0%} of the {share['resource']}"
    text += (f" ({', '.join(parts)})" if parts else "") + f"; {share['sla']}"
    if share["ready"]:
        text += f"; {share['ready']:,} of its tasks wait for room"
    return f"{text}; {share['first']}" if share["first"] else text
