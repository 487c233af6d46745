"""A request in plain words, cut into clauses, each matched to one skill, wired by types.

    find *.log in logs, then count ERROR in each and hash each, then write a report called Errors

`then` starts the next stage, `and` another task beside the last one. A clause is one of a skill's sentences, or (by
BM25) words that all belong to one skill together with values that all find their argument. Invariant: pure, and all or
nothing: one clause that can't be read, one word that isn't accounted for, and the whole request is left to somebody
who understands it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from protocol.skill import SkillSpec

from .catalog import Catalog
from .draft import FINDER, Draft, Step
from .guess import guess
from .phrase import LONGEST, Phrase
from .sentence import Reading, Sentence, sentences_of
from .shortlist import Shortlist
from .slot import is_folder, slot_of
from .wiring import Source

_THEN: Final = re.compile(
    r"\s*;\s*|\s*(?:->|→)\s*|\.\s+(?=[A-Za-z])(?:then\s+|finally,?\s+)?"
    r"|\s*,?\s*(?:and\s+)?(?:then|after that|afterwards|finally)\b,?\s+",
    re.IGNORECASE,
)
_AND: Final = re.compile(r"\s*,\s*(?:and\s+(?:also\s+)?)?|\s+and\s+(?:also\s+)?|\s+&\s+", re.IGNORECASE)
_PARALLEL: Final = re.compile(r"\s*,?\s*\b(?:all )?(?:in parallel|at the same time|concurrently)\b,?\s*", re.IGNORECASE)
_FOR_EACH_OF: Final = re.compile(
    r"for (?:each|every) (?:(?P<glob>[^\s,]*[*?][^\s,]*)(?: files?)?|file) (?:in|of|under|below) (?P<path>[^\s,]+),?\s+"
    r"(?P<rest>.+)",
    re.IGNORECASE,
)
_FILES_OF: Final = re.compile(
    r"(?P<rest>.+?)(?:\s+(?:in|of))?\s+(?P<all>all|each|every)(?: of)?(?: the)?"
    r"(?:\s+(?P<glob>[^\s,]*[*?][^\s,]*))?\s+files?\s+(?:in|of|under|below)"
    r"\s+(?:the (?:folder|directory)\s+)?(?P<path>[^\s,]+)",
    re.IGNORECASE,
)
_FOR_EACH: Final = re.compile(
    r"for (?:each|every)(?: one| file| of them| of these| result| item)?,?\s+(?P<rest>.+)", re.IGNORECASE
)
_EACH_END: Final = re.compile(
    r"(?P<rest>.+?),?\s+(?:for|on|in) (?:each|every)(?: one| file| of them| of these| result| item)?", re.IGNORECASE
)
_ALL_MACHINES: Final = re.compile(
    r"\s+on (?:all|every|each)(?: of)?(?: the| my)? (?:workers?|machines?|devices?|computers?|hosts?|nodes?)\Z",
    re.IGNORECASE,
)
_KIND: Final = re.compile(
    r"\s+(?:on|using) (?:the |a |any )?(gpu|cpu|edge)(?: device| worker| machine)?\Z", re.IGNORECASE
)
_HERE: Final = re.compile(r"\s+(?:locally|right here|on this machine|on my machine)\Z", re.IGNORECASE)
_NAMED: Final = re.compile(r"\s+on ([A-Za-z0-9][A-Za-z0-9_.-]*)\Z")
_MOST_CLAUSES: Final = 12
_MOST_PIECES: Final = 40


class Match(msgspec.Struct, frozen=True):
    """A clause that was understood."""

    skill: SkillSpec
    reading: Reading


class Clauses:
    """The sentences of a catalog, compiled once. `draft` reads requests."""

    def __init__(self, catalog: Catalog, shortlist: Shortlist) -> None:
        self.catalog = catalog
        self.shortlist = shortlist
        self.sentences: list[tuple[SkillSpec, Sentence]] = [
            (skill, sentence) for skill in shortlist.skills for sentence in sentences_of(skill)
        ]

    def draft(self, request: str, workers: tuple[str, ...] = ()) -> Draft | None:
        """The plan of a request, or None when any part of it isn't understood."""
        if len(request) > LONGEST:
            return None
        phrase = Phrase(request)
        reading = _Reading(self, phrase, frozenset(workers))
        stages = [part for part in _THEN.split(phrase.text) if part.strip()]
        if not stages or len(stages) > _MOST_CLAUSES or not all(reading.stage(part) for part in stages):
            return None
        return None if reading.draft.problems or not reading.draft.tasks else reading.draft

    def match(self, phrase: Phrase, text: str, linked: bool) -> Match | None:
        """The one skill that the clause means. The sentence with most words spelled out wins; a tie means none."""
        found = [
            Match(skill, reading)
            for skill, sentence in self.sentences
            if (read := sentence.read(phrase, text, linked)) is not None
            and (reading := _whole(skill, read, text, linked)) is not None
        ]
        if not found:
            guessed = guess(phrase, text, linked, self.shortlist)
            return Match(*guessed) if guessed is not None else None
        most = max(match.reading.words for match in found)
        best = [match for match in found if match.reading.words == most]
        return best[0] if all(match.skill is best[0].skill for match in best) else None


class _Reading:
    """One request being read: the leaves of the stage so far, and those of the stage before."""

    def __init__(self, clauses: Clauses, phrase: Phrase, workers: frozenset[str]) -> None:
        self.clauses = clauses
        self.phrase = phrase
        self.workers = workers
        self.draft = Draft(clauses.catalog.by_name.get(FINDER))
        self.before: tuple[Source, ...] = ()
        self.now: list[Source] = []
        self.listed: tuple[Source, ...] = ()
        """What the last `each` of this stage ran over: another one beside it runs over the same."""

    def stage(self, text: str) -> bool:
        self.before, self.now, self.listed = tuple(self.now) or self.before, [], ()
        text = _PARALLEL.sub(" ", text).strip()
        pieces = _pieces(text)
        if len(pieces) > _MOST_PIECES:
            return False
        at = 0
        while at < len(pieces):
            for end in range(len(pieces), at, -1):
                if self._clause(text[pieces[at][0] : pieces[end - 1][1]].strip()):
                    at = end
                    break
            else:
                return False
        return True

    def _clause(self, text: str) -> bool:
        spread_over = _FOR_EACH_OF.fullmatch(text)
        if spread_over is not None:
            return self._over_files(spread_over["path"], spread_over["glob"] or "*", spread_over["rest"], True)
        places = self._places(text)
        for words, on in places:
            for rest, each in _each_forms(words):
                if self._task(rest, each, on):
                    return True
        among = _FILES_OF.fullmatch(text)
        return among is not None and self._over_files(
            among["path"], among["glob"] or "*", among["rest"], among["all"].lower() != "all"
        )

    def _over_files(self, path: str, glob: str, rest: str, each: bool) -> bool:
        finder = self.clauses.catalog.by_name.get(FINDER)
        folder = self.phrase.unfold(path)
        if finder is None or not isinstance(folder, str) or not is_folder(folder):
            return False
        match = self.clauses.match(self.phrase, rest, True)
        if match is None or not match.reading.wanted:
            return False
        found = self.draft.add(Step(finder, {"path": folder.rstrip("/") or "/", "glob": glob}), self.before)
        self.now.append(self.draft.add(_step(match, each, ()), (found,)))
        self.listed = (found,)
        return True

    def _task(self, text: str, each: bool, on: tuple[str, ...]) -> bool:
        linked = bool(self.before or self.now)
        match = self.clauses.match(self.phrase, text, linked)
        if match is None:
            return False
        step = _step(match, each or match.reading.each, on)
        if step.each and not match.reading.wanted:
            return False
        if not match.reading.wanted:
            self.now.append(self.draft.add(step, self.before))
            return True
        for sources in (self.listed if step.each else (), self.before, tuple(self.now)):
            if sources and self._fits(step, sources):
                self.now = [one for one in self.now if one not in sources]
                self.now.append(self.draft.add(step, sources))
                self.listed = sources if step.each else self.listed
                return True
        return False

    def _fits(self, step: Step, sources: tuple[Source, ...]) -> bool:
        """Tried on a copy: every wanted argument is filled by these sources, and every source is of use."""
        trial = Draft(self.clauses.catalog.by_name.get(FINDER))
        trial.tasks = dict(self.draft.tasks)
        made = trial.add(step, sources)
        return not trial.problems and not trial.tasks[made.id].after

    def _places(self, text: str) -> list[tuple[str, tuple[str, ...]]]:
        """The text as it is, then without the words that say where it should run."""
        for pattern, place in ((_ALL_MACHINES, "all"), (_HERE, "here")):
            match = pattern.search(text)
            if match is not None:
                return [(text[: match.start()], (place,))]
        match = _KIND.search(text)
        if match is not None:
            return [(text, ()), (text[: match.start()], (match[1].lower(),))]
        match = _NAMED.search(text)
        if match is not None and match[1] in self.workers:
            return [(text[: match.start()], (match[1],))]
        return [(text, ())]


def _step(match: Match, each: bool, on: tuple[str, ...]) -> Step:
    reading = match.reading
    return Step(
        skill=match.skill,
        args=reading.args,
        each=each,
        on=on,
        wanted=reading.wanted,
        spread=reading.spread,
    )


def _whole(skill: SkillSpec, reading: Reading, text: str, linked: bool) -> Reading | None:
    """The reading, with the required arguments that its sentence has no place for.

    A choice is taken from the words themselves (`post` is the method POST); what earlier tasks can give is left to
    them. None when something is still missing.
    """
    given = {*reading.args, *reading.spread, *reading.wanted}
    missing = tuple(name for name in skill.params.get("required", ()) if name not in given)
    properties = skill.params.get("properties", {})
    chosen = {name: _choice(properties[name], text) for name in missing if "enum" in properties[name]}
    args = {**reading.args, **{name: value for name, value in chosen.items() if value is not None}}
    reading = msgspec.structs.replace(reading, args=args)
    missing = tuple(name for name in missing if name not in args)
    if not missing:
        return reading
    if not linked or not all(slot_of(name, properties[name]).wired for name in missing):
        return None
    return msgspec.structs.replace(reading, wanted=(*reading.wanted, *missing))


def _choice(schema: Mapping[str, Any], text: str) -> Any:
    said = {word.lower() for word in text.split()}
    found = [one for one in schema["enum"] if isinstance(one, str) and one.lower() in said]
    return found[0] if len(found) == 1 else None


def _each_forms(text: str) -> list[tuple[str, bool]]:
    forms = [(text, False)]
    for pattern in (_FOR_EACH, _EACH_END):
        match = pattern.fullmatch(text)
        if match is not None:
            forms.append((match["rest"], True))
    return forms


def _pieces(text: str) -> list[tuple[int, int]]:
    """Where the parts between `and` and commas begin and end."""
    found: list[tuple[int, int]] = []
    start = 0
    for match in _AND.finditer(text):
        if match.start() > start:
            found.append((start, match.start()))
        start = match.end()
    if start < len(text):
        found.append((start, len(text)))
    return found
