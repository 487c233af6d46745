"""The refusal desk: whoever refuses a peer says so here, and people see it as a few `PeerRefused` events.

The first refusal of a (source, code) is told at once, the others with it at the end of a window; while they go on the
window doubles. Invariant: however many peers refuse to behave, and whatever they call themselves, at most `KEYS` are
remembered (the rest counts as one, `others`), and each is told at most once a window. Texts are cut and made printable:
they are a stranger's. It judges nothing; it must not know why something is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from ..core.stimulus import Refused
from ..instrument import Instrument

WINDOW_S: Final = 10.0
LONGEST_S: Final = 320.0
KEYS: Final = 32
OTHERS: Final = ("others", "Refused")
SOURCE_CHARS: Final = 100
CODE_CHARS: Final = 40
MESSAGE_CHARS: Final = 300


class _Window(msgspec.Struct):
    """What is known of one (source, code): `count` were not told yet, the last of them being `last`."""

    ends: float
    length_s: float
    count: int = 0
    last: tuple[str, int, int] = ("", 0, -1)


class Refusals:
    """One per engine, for its loop only. `refused` may be called as often as peers misbehave: it costs microseconds."""

    def __init__(self, post: Callable[[Refused], None], clock: Callable[[], float], instrument: Instrument) -> None:
        self._post = post
        self._clock = clock
        self._instrument = instrument
        self._windows: dict[tuple[str, str], _Window] = {}

    def refused(self, source: str, code: str, message: str = "", run: int = 0, task: int = -1) -> None:
        """Somebody was refused. `source`: `worker:NAME`, `client:NAME` or `address:HOST`; `message` holds no secret."""
        self._instrument.count("peer_refused")
        key = _printable(source, SOURCE_CHARS), _printable(code, CODE_CHARS)
        said = (_printable(message, MESSAGE_CHARS), run, task)
        window = self._windows.get(key)
        if window is None and len(self._windows) >= KEYS:
            key = OTHERS
            window = self._windows.get(key)
        if window is None:
            self._windows[key] = _Window(self._clock() + WINDOW_S, WINDOW_S)
            self._tell(key, said, 1)
        else:
            window.count += 1
            window.last = said

    def tell(self) -> None:
        """Post what windows that are over have counted; a window without any is forgotten."""
        if not self._windows:
            return
        now = self._clock()
        for key, window in list(self._windows.items()):
            if window.ends > now:
                continue
            if not window.count:
                del self._windows[key]
                continue
            self._tell(key, window.last, window.count)
            window.length_s = min(LONGEST_S, window.length_s * 2)
            window.ends, window.count = now + window.length_s, 0

    def next_wake(self) -> float | None:
        """When `tell` has something to say next."""
        return min((window.ends for window in self._windows.values()), default=None)

    def _tell(self, key: tuple[str, str], said: tuple[str, int, int], count: int) -> None:
        self._post(Refused(*key, said[0], count, said[1], said[2]))


def _printable(text: str, most: int) -> str:
    """A stranger's text as it may stand in a journal and on a terminal."""
    short = text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
    return short if short.isprintable() else "".join(one if one.isprintable() else "?" for one in short)
