"""Sentences with slots, compiled to patterns: `count {pattern} in {file}` reads `count ERROR in logs/a.log`.

The sentences come from the `examples` of skills and from saved templates. A slot that an earlier task may fill also
takes a word that points back (`them`, `each file`), or may be left out at the end. Invariant: pure, and whole: every
word of the request has to be accounted for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from protocol.skill import SkillSpec

from .phrase import Phrase, is_folded
from .slot import REJECTED, Slot, Spread, slot_of

_PIECE: Final = re.compile(r"(\S+?)([,;:.!?]*)(?=\s|\Z)")
_SLOT: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ARTICLES: Final = frozenset(("the", "a", "an", "all"))
_EACH: Final = (
    r"each(?: one| file| result| item| of (?:them|these|those|the (?:files|results)))?|every (?:one|file|result|item)"
)
_BACK: Final = (
    r"it|them|this|that|these|those|all of (?:it|them|these|those)|everything"
    r"|(?:the |all the |all )?(?:files?|results?|outputs?|matches|rows|tables?|lines|counts?|report|archive|list|page)"
)
NOUNS: Final[Mapping[str, frozenset[str]]] = {
    "matches": frozenset(("match", "count")),
    "rows": frozenset(("row", "sql", "table")),
    "table": frozenset(("row", "sql", "table")),
    "tables": frozenset(("row", "sql", "table")),
    "lines": frozenset(("lin",)),
    "count": frozenset(("count",)),
    "counts": frozenset(("count",)),
    "report": frozenset(("report",)),
    "archive": frozenset(("archiv",)),
    "page": frozenset(("web", "report")),
}
"""What points back and names what it points to -> stems, one of which the skill of that must be known by."""
_BACKWARD: Final = re.compile(rf"(?P<each>{_EACH})|{_BACK}", re.IGNORECASE)
_NAMED: Final = r"(?:each (?:of )?)?(?:the )?\w+(?:(?:, and|,| and) (?:the )?\w+)*"
"""Things that were given names (`call it sums`), or one that goes by what made it (`the sheet`)."""
_NOUN: Final = re.compile(r"\bthe ([a-z]+)\Z", re.IGNORECASE)
_PART: Final = re.compile(r",? and |, ")
_TAIL: Final = re.compile(r"\s+(?:in|of|from|on|for|with|to)\s+\{([A-Za-z_][A-Za-z0-9_]*)\}\Z")
_NOISE: Final = {
    "file": r"(?:the\s+)?(?:file\s+)?",
    "files": r"(?:the\s+)?(?:files?\s+)?",
    "path": r"(?:the\s+)?(?:folder\s+|directory\s+)?",
    "word": r"(?:the\s+(?:word|pattern|text|string)\s+)?",
    "url": r"(?:the\s+(?:url|page|site)\s+)?",
}
_AFTER: Final = {"path": r"(?:\s+(?:folder|directory))?", "number": r"(?:\s+(?:seconds?|times))?"}


class Reading(msgspec.Struct, frozen=True):
    """A sentence that fits. `wanted`: slots that point back or were left out; `words` spelled-out words matched.
    `pointed`: some word points back; `nouns`: what it says of what it points to (`the report`); `names`: what it names.
    """

    args: Mapping[str, Any]
    spread: Mapping[str, tuple[str, str]]
    wanted: tuple[str, ...]
    each: bool
    words: int
    pointed: bool = False
    nouns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class Sentence:
    """One compiled sentence. `left_out` are slots whose place it doesn't have."""

    def __init__(self, text: str, slots: Mapping[str, Slot], left_out: tuple[str, ...] = ()) -> None:
        self.text = text
        self.left_out = left_out
        self._known = slots
        self.slots: dict[str, Slot] = {}
        """Those that are a word by themselves; in the middle of one braces are only braces."""
        self.words = 0
        self._fixed: dict[str, Any] = {}
        phrase = Phrase(text)
        joined = "".join(self._piece(word, phrase) + re.escape(marks) for word, marks in _PIECE.findall(phrase.text))
        self._pattern = re.compile(joined.removeprefix(r"\s+"), re.IGNORECASE | re.DOTALL)

    def read(self, phrase: Phrase, text: str, linked: bool, known: Collection[str] = ()) -> Reading | None:
        """The arguments if the text is this sentence. `linked`: there are earlier tasks to point back to; `known`: the
        names that some of them were given."""
        if self.left_out and not linked:
            return None
        match = self._pattern.fullmatch(text)
        if match is None or any(phrase.unfold(match[name]) != value for name, value in self._fixed.items()):
            return None
        args: dict[str, Any] = {}
        spread: dict[str, tuple[str, str]] = {}
        wanted = list(self.left_out)
        each = False
        nouns: list[str] = []
        names: list[str] = []
        for name, slot in self.slots.items():
            said = match[name]
            back = _BACKWARD.fullmatch(said) if slot.listed and linked else None
            if back is not None and (slot.pointed or back["each"]):
                wanted.append(name)
                each = each or back["each"] is not None
                nouns += [word for word in said.lower().split()[-1:] if word in NOUNS]
                continue
            told = re.sub(r"\Aeach (?:of )?", "", said)
            if slot.wired and known and all(one in known for one in _PART.split(told)):
                wanted.append(name)
                each = each or told != said
                names += _PART.split(told)
                continue
            value = slot.read(said, phrase)
            noun = _NOUN.search(text, 0, match.end(name)) if value is REJECTED and slot.wired and linked else None
            if noun is not None:
                wanted.append(name)
                nouns.append(noun[1].lower())
                continue
            if value is REJECTED:
                return None
            if isinstance(value, Spread):
                spread[name] = (value.folder, value.glob)
            else:
                args[name] = value
        pointed = len(wanted) > len(self.left_out)
        return Reading(args, spread, tuple(wanted), each, self.words, pointed, tuple(nouns), tuple(names))

    def _piece(self, word: str, phrase: Phrase) -> str:
        found = _SLOT.fullmatch(word)
        if found is not None and found[1] in self._known:
            slot = self.slots[found[1]] = self._known[found[1]]
            back = rf"|{_EACH}|{_BACK}|{_NAMED}" if slot.wired else rf"|{_EACH}|{_BACK}" if slot.listed else ""
            body = rf"(?P<{slot.name}>{slot.pattern}{back})"
            return rf"\s+{_NOISE.get(slot.kind, '')}{body}{_AFTER.get(slot.kind, '')}"
        if is_folded(word):
            name = f"fixed_{len(self._fixed)}"
            self._fixed[name] = phrase.unfold(word)
            self.words += 1
            return rf"\s+(?P<{name}>\S+?)"
        if word.lower() in _ARTICLES:
            return rf"(?:\s+{re.escape(word)})?"
        self.words += 1
        return rf"\s+{re.escape(word)}"


def sentences_of(skill: SkillSpec) -> Iterator[Sentence]:
    """The sentences of a skill's examples, and of each one without a last slot that an earlier task may fill."""
    slots = {name: slot_of(name, schema) for name, schema in skill.params.get("properties", {}).items()}
    for example in skill.examples:
        named = _SLOT.findall(example)
        if len(set(named)) != len(named) or any(name not in slots for name in named):
            continue  # a slot that is no argument can't be filled: the example is only for people
        yield Sentence(example, slots)
        tail = _TAIL.search(example) or re.search(r"\s+\{([A-Za-z_][A-Za-z0-9_]*)\}\Z", example)
        if tail is not None and slots[tail[1]].wired:
            yield Sentence(example[: tail.start()], slots, (tail[1],))
