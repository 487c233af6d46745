"""How a worker stands with its server, in lines for whoever reads its standard error: taken in, or not, and why.

Invariant: nothing is said of an absence that lasts less than PATIENCE_S, and no reason twice in one absence; who was
told of it hears of its end. It must not know how a server is reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from protocol.errors import AsterismError

PATIENCE_S: Final = 2.0
"""Longer than a server takes that is started again."""


class Standing:
    """Hears of each attempt to reach the server. `address`: where that is now; `say` gets a line."""

    def __init__(
        self, address: Callable[[], str], say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = address
        self._say = say
        self._clock = clock
        self._away_since: float | None = clock()
        self._said: set[str] = set()
        self._new = True

    def welcomed(self) -> None:
        """A server has taken the worker in."""
        if self._new or self._said:
            self._say(f"connected to {self._address()}")
        self._away_since, self._new = None, False
        self._said.clear()

    def failed(self, error: AsterismError | OSError) -> None:
        """It could not be reached, or the conversation with it broke."""
        if self._away_since is None:
            self._away_since = self._clock()
        why = str(error.message if isinstance(error, AsterismError) else error)
        if self._clock() - self._away_since < PATIENCE_S or why in self._said:
            return
        self._said.add(why)
        self._say(f"not connected, and trying on: {why}")
        if isinstance(error, AsterismError) and error.hint:
            self._say(f"  fix: {error.hint}")
