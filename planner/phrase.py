"""A request as a person typed it, made ready for matching: courtesies gone, quoted parts folded into single words.

A quoted text, a list in brackets or an object in braces becomes one private-use word (`fold`), so that patterns and
splits can't cut it; `unfold` gives it back. Invariant: pure; `text` holds no quote that matters. It must not know
skills.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from .value import Quoted

LONGEST: Final = 2_000
"""Characters of a request that is matched against sentences; a longer one is prose, not a command."""

_FOLD: Final = re.compile(
    r"""(?<![^\s(,:=])(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|`(?P<back>[^`]*)`"""
    r"""|(?P<json>\[[^\[\]]*\]|\{[^{}]*\}))(?![^\s,.;:!?)])""",
    re.DOTALL,
)
_PRIVATE: Final = re.compile("\ue000([0-9]+)\ue001")
_COURTESY: Final = re.compile(
    r"(?:(?:please|kindly|hey|hi|ok(?:ay)?|asterism|now|first)\b[\s,]*"
    r"|(?:can|could|would|will)\s+you\s+(?:please\s+)?|i(?:'d| would)\s+like\s+(?:you\s+)?to\s+"
    r"|i\s+want\s+(?:you\s+)?to\s+)",
    re.IGNORECASE,
)
_END: Final = re.compile(
    r"[\s.!?,;]*(?:\b(?:please|thanks(?: a lot| in advance)?|thank you(?: very much)?|thx)\b)?[\s.!,;]*\Z",
    re.IGNORECASE,
)


class Phrase:
    """The folded text and what was folded away."""

    def __init__(self, request: str) -> None:
        self._parts: list[Any] = []
        text = _FOLD.sub(self._fold, _PRIVATE.sub("", request)[: LONGEST + 1])
        self.text = plain(text)

    def unfold(self, word: str) -> Any:
        """The folded part that a word is: a `Quoted` text, or a list or object; the word itself otherwise."""
        match = _PRIVATE.fullmatch(word)
        return self._parts[int(match[1])] if match is not None else word

    def _fold(self, match: re.Match[str]) -> str:
        raw = match[0]
        value: Any
        if match["json"] is not None:
            try:
                value = msgspec.json.decode(raw)
            except (ValueError, RecursionError):
                return raw
        elif match["double"] is not None:
            try:
                value = Quoted(msgspec.json.decode(raw, type=str))
            except ValueError:
                value = Quoted(match["double"])
        else:
            value = Quoted(match["single"] if match["single"] is not None else match["back"])
        self._parts.append(value)
        return f"\ue000{len(self._parts) - 1}\ue001"


def plain(text: str) -> str:
    """The text without courtesies before and behind it, blanks made one."""
    text = " ".join(text.split())
    while match := _COURTESY.match(text):
        text = text[match.end() :]
    return _END.sub("", text)


def is_folded(word: str) -> bool:
    return _PRIVATE.fullmatch(word) is not None
