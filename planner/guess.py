"""A clause that is nobody's sentence, matched by its words: BM25 proposes, strict bookkeeping decides.

A skill is taken only if every word that matters belongs to its vocabulary (name, tags, examples), every value found
(`a.log`, `*.txt`, a URL, a quoted text) has an argument of its kind, every required argument has a value or an earlier
task to come from, and no other skill can say the same with nearly the same score. Invariant: pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from protocol.skill import SkillSpec

from .catalog import short_name
from .phrase import Phrase, is_folded
from .sentence import Reading
from .shortlist import Shortlist, stem, words
from .slot import REJECTED, Slot, Spread, looks_like_file, slot_of

MARGIN: Final = 1.25
"""How much better than the second the best skill has to score."""

_CANDIDATES: Final = 6
_URL: Final = re.compile(r"https?://\S+", re.IGNORECASE)
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_CALLED: Final = frozenset(("called", "named", "titled"))
_INTO: Final = frozenset(("into", "to", "as"))
_TITLES: Final = frozenset(("title", "name", "label"))
_TARGETS: Final = frozenset(("name", "path", "output", "out", "target", "destination"))
_EACH: Final = frozenset(("each", "every"))
_NEUTRAL: Final = frozenset(
    "a an the of in on at to for from into with by as and it its them this that these those all file files".split()  # noqa: SIM905
)
"""Words that say nothing beside the values and wires. `some`, `or`, `my`, `would` do say something."""
_BACK: Final = frozenset("it its them this that these those each every all files".split())  # noqa: SIM905
_ASKING: Final = frozenset("how what when where which who whom whose why".split())  # noqa: SIM905

Sort = Literal["url", "file", "target", "number", "quoted", "called", "caps"]


class Value(msgspec.Struct, frozen=True):
    """Something in the clause that is a value by its looks."""

    text: str
    sort: Sort


def guess(phrase: Phrase, text: str, linked: bool, shortlist: Shortlist) -> tuple[SkillSpec, Reading] | None:
    """The one skill that the clause's words and values fit, or None."""
    said, values = _sort_out(text)
    if not said or _dangling(text):
        return None
    found: list[tuple[float, SkillSpec, Reading]] = []
    for score, skill in shortlist.rank(" ".join(said), _CANDIDATES):
        reading = _fill(skill, said, values, phrase, linked)
        if reading is not None:
            found.append((score, skill, reading))
    if not found or (len(found) > 1 and found[0][0] < MARGIN * found[1][0]):
        return None
    return found[0][1], found[0][2]


def _sort_out(text: str) -> tuple[list[str], list[Value]]:
    """The plain words of a clause, in order, and its values."""
    said: list[str] = []
    values: list[Value] = []
    before = ""
    for raw in text.split():
        word = raw.strip(",;:()") or raw
        sort = _sort_of(word, before)
        if sort is not None:
            values.append(Value(word, sort))
        else:
            said.append(word.lower())
        before = word.lower()
    return said, values


def _dangling(text: str) -> bool:
    """`as JSON`, `into my b.zip`: a word that leads to a target is followed by something else."""
    found = text.lower().split()
    return any(
        word in _INTO and _sort_of(after.strip(",;:()") or after, word) not in ("target", "url", "quoted", "file")
        for word, after in zip(found, [*found[1:], "."], strict=True)
    )


def _sort_of(word: str, before: str) -> Sort | None:
    if before in _CALLED:
        return "called"
    if is_folded(word):
        return "quoted"
    if _URL.fullmatch(word):
        return "url"
    if looks_like_file(word):
        return "target" if before in _INTO and not word.endswith("/") else "file"
    if _NUMBER.fullmatch(word):
        return "number"
    if len(word) > 1 and word.isupper() and word.isalpha():
        return "caps"
    return None


def _fill(skill: SkillSpec, said: list[str], values: list[Value], phrase: Phrase, linked: bool) -> Reading | None:
    known = vocabulary(skill)
    content = [word for word in said if word not in _NEUTRAL and word not in _EACH]
    if not content or stem(content[0]) not in _verbs(skill) or not _ASKING.isdisjoint(content):
        return None
    if any(stem(part) not in known for word in content for part in re.findall(r"[a-z0-9]+", word)):
        return None
    if any(not re.fullmatch(r"[a-z0-9'-]+", word) for word in content):
        return None  # a sign or a letter of another alphabet is no word of any vocabulary
    if len(content) < 2 and all(value.sort in ("number", "caps") for value in values):
        return None  # `count`, alone: of what, nobody says
    args: dict[str, Any] = {}
    spread: dict[str, tuple[str, str]] = {}
    slots = _slots(skill)
    for value in values:
        if not _settle(value, slots, args, spread, phrase):
            return None
    missing = [name for name in skill.params.get("required", ()) if name not in args and name not in spread]
    if any(not slots[name].wired for name in missing) or (missing and not linked):
        return None
    back = [word for word in said if word in _BACK]
    if (not missing and (back or not values)) or len(back) > 1 + ("all" in back):
        return None  # nothing to do it with, or a word that points back to what has no place
    return Reading(args, spread, tuple(missing), not _EACH.isdisjoint(said), 0, bool(back))


def _settle(
    value: Value, slots: Mapping[str, Slot], args: dict[str, Any], spread: dict[str, tuple[str, str]], phrase: Phrase
) -> bool:
    """Give the value to the first open argument of its kind."""
    for name, slot in slots.items():
        if not _takes(value, slot):
            continue
        if slot.kind == "files" and isinstance(args.get(name), list):
            more = slot.read(value.text, phrase)
            if isinstance(more, list):
                args[name] = [*args[name], *more]
                return True
            return False
        if name in args or name in spread:
            continue
        found = slot.read(value.text, phrase)
        if found is REJECTED:
            continue
        if isinstance(found, Spread):
            spread[name] = (found.folder, found.glob)
        else:
            args[name] = found
        return True
    return False


def _takes(value: Value, slot: Slot) -> bool:
    match value.sort:
        case "url":
            return slot.kind == "url"
        case "target":
            return slot.name in _TARGETS and slot.kind in ("path", "word")
        case "file":
            if slot.kind == "path":
                return "." not in value.text.rpartition("/")[2]
            return slot.kind in ("file", "files", "glob")
        case "number":
            return slot.kind == "number"
        case "called":
            return slot.name in _TITLES and slot.kind in ("word", "prose")
        case "caps":
            return slot.kind in ("word", "pattern") and slot.name not in _TITLES
        case "quoted":
            return slot.kind in ("word", "pattern", "json", "any", "argv", "files", "content")


def _slots(skill: SkillSpec) -> dict[str, Slot]:
    """Slots by argument, the required ones first."""
    properties: Mapping[str, Any] = skill.params.get("properties", {})
    required = set(skill.params.get("required", ()))
    names = sorted(properties, key=lambda name: name not in required)
    return {name: slot_of(name, properties[name]) for name in names}


def _verbs(skill: SkillSpec) -> frozenset[str]:
    """What a clause about the skill may begin with."""
    first = (example.split(None, 1)[0] for example in skill.examples if example.strip())
    return frozenset(map(stem, (short_name(skill.name).lower(), *(word.lower() for word in first))))


def vocabulary(skill: SkillSpec) -> frozenset[str]:
    """Stems of the words that a skill goes by: its name, tags and examples."""
    text = " ".join(
        (skill.name.replace("_", " "), *skill.tags, *(re.sub(r"\{[^}]*\}", " ", e) for e in skill.examples))
    )
    return frozenset(words(text))
