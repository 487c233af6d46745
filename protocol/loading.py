"""Which skill module is being loaded right now, by this very call stack.

A client asks it so that a module which starts a run when it is imported is refused instead of starting runs without
end. Set by whoever loads user modules; it must not know how they are loaded.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

LOADING: Final[ContextVar[str]] = ContextVar("asterism_loading", default="")


def loading() -> str:
    """The name of the module, or empty when none is being loaded."""
    return LOADING.get()
