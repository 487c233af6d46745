"""The policies by name, as settings call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .eft import Eft
from .fastest import Fastest
from .lottery import Random
from .policy import Policy
from .rotation import RoundRobin

_POLICIES: Final[dict[str, Callable[[], Policy]]] = {
    "auto": Eft,
    "eft": Eft,
    "heft": Eft,
    "fastest": Fastest,
    "round_robin": RoundRobin,
    "random": Random,
}
"""`auto` and `heft` are `eft` where there is no plan to go by (core.guidance)."""


def policy_named(name: str) -> Policy:
    """A new one; some remember what they chose. Raises: KeyError."""
    return _POLICIES[name]()
