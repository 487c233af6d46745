"""What decoding costs: CPU of this process for plans of known size that arrive token by token. No I/O.

It must not know models.
"""

from __future__ import annotations

import gc
import time
from typing import Final

import msgspec

from planner.decoder import TASKS, Decoder, Piece
from protocol.document import Limits

from ..metric import Spread, spread
from .sample import good, text_of
from .simulated_model import tokens

SIZES: Final = (200, 2_000)
ROUNDS: Final = 5


class Decoding(msgspec.Struct, frozen=True):
    """One size. `whole_ms`: the same text in one piece."""

    tasks: int
    characters: int
    cpu_ms: Spread
    whole_ms: Spread


def decoding(tasks: int) -> Decoding:
    """Raises: AssertionError if not every task came out; then no number counts."""
    text = text_of(good(tasks, tasks))
    parts = list(tokens(text))
    return Decoding(
        tasks,
        len(text),
        spread(_cpu_ms(parts, tasks) for _ in range(ROUNDS)),
        spread(_cpu_ms([text], tasks) for _ in range(ROUNDS)),
    )


def _cpu_ms(parts: list[str], tasks: int) -> float:
    decoder, found = Decoder(Limits(max_tasks=tasks)), list[Piece]()
    gc.collect()
    start = time.process_time()
    for part in parts:
        found += decoder.feed(part)
    decoder.end()
    taken = time.process_time() - start
    count = sum(piece.key == TASKS for piece in found)
    if count != tasks:
        raise AssertionError(f"of {tasks} tasks {count} were decoded")
    return taken * 1000
