"""A request as a person typed it, made ready for matching: courtesies gone, quoted parts folded into single words.

A quoted text, a list in brackets or an object in braces becomes one private-use word (`fold`), so that patterns and
splits can't cut it; `unfold` gives it back. Invariant: pure; `text` holds no quote that matters. It must not know
skills.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from .value import Quoted

LONGEST: Final = 2_000
"""Characters of a request that is matched against sentences; a longer one is prose, not a command."""

_OPENING: Final = re.compile(r"""(?<![^\s(,:=])["'`\[{]""")
_QUOTED: Final = re.compile(
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|`(?P<back>[^`]*)`)""",
    re.DOTALL,
)
_BORDER: Final = re.compile(r"(?![^\s,.;:!?)])")
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
        self.text = plain(self._folded(_PRIVATE.sub("", request)[: LONGEST + 1]))

    def unfold(self, word: str) -> Any:
        """The folded part that a word is: a `Quoted` text, or a list or object; the word itself otherwise."""
        match = _PRIVATE.fullmatch(word)
        return self._parts[int(match[1])] if match is not None else word

    def _folded(self, text: str) -> str:
        done: list[str] = []
        at = 0
        while (opening := _OPENING.search(text, at)) is not None:
            start = opening.start()
            done.append(text[at:start])
            found = _json_at(text, start) if opening[0] in "[{" else _quoted_at(text, start)
            if found is None or _BORDER.match(text, found[1]) is None:
                done.append(text[start])
                at = start + 1
            else:
                done.append(f"\ue000{len(self._parts)}\ue001")
                self._parts.append(found[0])
                at = found[1]
        return "".join(done) + text[at:]


def _quoted_at(text: str, start: int) -> tuple[Quoted, int] | None:
    match = _QUOTED.match(text, start)
    if match is None:
        return None
    if match["double"] is None:
        return Quoted(match["single"] if match["single"] is not None else match["back"]), match.end()
    try:
        return Quoted(msgspec.json.decode(match[0], type=str)), match.end()
    except ValueError:
        return Quoted(match["double"]), match.end()


def _json_at(text: str, start: int) -> tuple[Any, int] | None:
    """The list or object that begins here, and where it ends."""
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
        return msgspec.json.decode(text[start:end]), end
    except (ValueError, RecursionError):
        return None


def plain(text: str) -> str:
    """The text without courtesies before and behind it, blanks made one."""
    text = " ".join(text.split())
    while match := _COURTESY.match(text):
        text = text[match.end() :]
    return _END.sub("", text)


def is_folded(word: str) -> bool:
    return _PRIVATE.fullmatch(word) is not None
