"""What a model thinks aloud at the beginning of its text, between `<think>` tags: split off while it arrives.

Models whose server has no field for it do so. The same words later in a text are text. It must not know streams.
"""

from __future__ import annotations

from typing import Final


class Thinking:
    """Splits `<think>...</think>` off the beginning of a text that arrives in pieces."""

    OPEN: Final = "<think>"
    CLOSE: Final = "</think>"
    HELD: Final = 64

    def __init__(self) -> None:
        self._held = ""
        self._state = "before"

    def feed(self, piece: str) -> tuple[str, str]:
        """(what is answer, what is thought)"""
        if self._state == "after":
            return piece, ""
        if self._state == "closed":
            piece = piece.lstrip()
            self._state = "after" if piece else "closed"
            return piece, ""
        self._held += piece
        if self._state == "before":
            start = self._held.lstrip()
            if start != self.OPEN and self.OPEN.startswith(start) and len(self._held) < self.HELD:
                return "", ""
            if not start.startswith(self.OPEN):
                return self._rest(), ""
            self._state, self._held = "inside", start[len(self.OPEN) :]
        thought, closed, rest = self._held.partition(self.CLOSE)
        if closed:
            self._held, self._state = "", "closed"
            return self.feed(rest)[0], thought
        keep = len(self.CLOSE) - 1  # the tag may be split
        thought, self._held = self._held[:-keep], self._held[-keep:]
        return "", thought

    def end(self) -> str:
        """What was held back because it might have become a tag."""
        return self._rest() if self._state == "before" else ""

    def _rest(self) -> str:
        held, self._held, self._state = self._held, "", "after"
        return held
