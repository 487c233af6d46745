"""How often Python's collector of cyclic garbage runs in a daemon."""

from __future__ import annotations

import gc


def tune() -> None:
    """What is there by now lives on: don't walk it again and again. Turns make and drop objects in thousands."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
