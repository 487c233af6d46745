"""When Python's collector of cyclic garbage runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def tune() -> None:
    """In a daemon: what is there by now lives on, so don't walk it again and again. Turns make and drop objects in
    thousands."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@contextmanager
def at_rest() -> Iterator[None]:
    """Not inside, where there is none to find or somebody has a clock running."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
