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
from .guess import guess, vocabulary
from .phrase import LONGEST, Phrase
from .place import Placed, Places
from .sentence import NOUNS, Reading, Sentence, sentences_of
from .shortlist import Shortlist, words
from .slot import is_folder, slot_of
from .wiring import Source, makes_file

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
WRITER: Final = "fs.write"
"""What is saved is saved here unless a machine is named: that is certain."""
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
        good = reading.draft.tasks and not reading.draft.problems and reading.whole
        return reading.draft if good else None

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
        self.places = Places(workers)
        self.draft = Draft(clauses.catalog.by_name.get(FINDER))
        self.before: tuple[Source, ...] = ()
        self.now: list[Source] = []
        self.last: tuple[Source, ...] = ()
        """What the last clause of this stage made."""
        self.listed: tuple[Source, ...] = ()
        """What the last `each` of this stage ran over: another one beside it runs over the same."""
        self.meant: tuple[str, tuple[Source, ...]] = ("", ())
        """The skill of the last clause of this stage that pointed back, and to what."""
        self.scope: Placed | None = None
        """The place in front of the stage, of all clauses that say none."""
        self.named = self.unplaced = False
        """Some clause names a machine; some clause reads files or a machine and doesn't."""

    @property
    def whole(self) -> bool:
        """Nothing is left open: once a machine is named, what lies on none of them might lie on any."""
        return not (self.named and self.unplaced)

    def stage(self, text: str) -> bool:
        self.before, self.now = tuple(self.now) or self.before, []
        self.last, self.listed, self.meant = (), (), ("", ())
        self.scope, text = self.places.scope(_PARALLEL.sub(" ", text).strip())
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
        for place in self.places.read(text):
            if not (place.on or place.machines) and self.scope is not None:
                place = msgspec.structs.replace(self.scope, text=text)
            if self._placed(place):
                return True
        return False

    def _placed(self, place: Placed) -> bool:
        spread_over = _FOR_EACH_OF.fullmatch(place.text)
        if spread_over is not None:
            return self._over_files(spread_over, True, place)
        for rest, each in _each_forms(place.text):
            if self._task(rest, each, place):
                return True
        among = _FILES_OF.fullmatch(place.text)
        return among is not None and self._over_files(among, among["all"].lower() != "all", place)

    def _over_files(self, said: re.Match[str], each: bool, place: Placed) -> bool:
        finder = self.clauses.catalog.by_name.get(FINDER)
        folder = self.phrase.unfold(said["path"])
        if finder is None or not isinstance(folder, str) or not is_folder(folder) or place.on == ("all",):
            return False
        match = self.clauses.match(self.phrase, said["rest"], True)
        if match is None or not match.reading.wanted:
            return False
        step = _step(match, each)
        find = Step(finder, {"path": folder.rstrip("/") or "/", "glob": said["glob"] or "*"})
        made, found = [], []
        for machine in place.machines or (None,):
            on = (machine,) if machine is not None else ()
            found.append(self.draft.add(msgspec.structs.replace(find, on=on), self.before))
            step = msgspec.structs.replace(step, on=() if place.lies else on or place.on)
            made.append(self.draft.add(step, (found[-1],)))
        self._made(place, True, (), made)
        self.listed = tuple(found)
        return True

    def _task(self, text: str, each: bool, place: Placed) -> bool:
        match = self.clauses.match(self.phrase, text, bool(self.before or self.now))
        if match is None:
            return False
        step = _step(match, each or match.reading.each)
        if step.each and not step.wanted:
            return False
        if not step.wanted:
            return self._first(step, place)
        if place.lies or (step.spread and place.on == ("all",)):
            return False  # `from` says where files lie, and these are what came before
        sources = self._sources(step, match.reading.pointed)
        groups = [(source,) for source in sources] if step.each else [sources]
        machines: tuple[str, ...] = place.machines
        if not sources or len(machines) > 1 or not all(_is_called(match.reading.nouns, one.skill) for one in sources):
            return False
        if match.reading.pointed or step.each:
            self.meant = (step.skill.name, sources)
        on = machines or place.on
        made = [self.draft.add(msgspec.structs.replace(step, on=on), group) for group in groups]
        self._made(place, reads_place(step), sources, made)
        self.listed = sources if step.each else self.listed
        return True

    def _first(self, step: Step, place: Placed) -> bool:
        """A task that nothing feeds; once on each machine."""
        if step.spread and place.on == ("all",):
            return False  # files of each machine for each machine: no plan here says that
        reads = reads_place(step)
        if place.lies and not reads:
            return False
        made = []
        for machine in place.machines or (None,):
            on = (machine,) if machine is not None else place.on
            lies = place.lies and bool(step.spread)
            found_on = (machine,) if machine is not None else ()
            step = msgspec.structs.replace(step, on=() if lies else on, found_on=found_on)
            made.append(self.draft.add(step, self.before))
        self._made(place, reads, (), made)
        self.listed, self.meant = (), ("", ())
        return True

    def _made(self, place: Placed, reads: bool, used: tuple[Source, ...], made: list[Source]) -> None:
        self.named = self.named or bool(place.machines)
        self.unplaced = self.unplaced or (reads and not place.machines and not place.on)
        self.now = [*(one for one in self.now if one not in used), *made]
        self.last = tuple(made)

    def _sources(self, step: Step, pointed: bool) -> tuple[Source, ...]:
        """What the clause is fed by, () where that isn't certain.

        `each`: what the last `each` ran over, else the nearest thing that is a list. What isn't said (`write a
        report`): all of this stage, else of the one before. `it`: the stage before, or the last thing made in this one;
        where both could be meant, what the clause before pointed to if it did the same, else what that made, if that
        is a file of its own. Anything else is not certain.
        """
        now = tuple(self.now)
        if step.each:
            if self.listed and self._fits(step, self.listed):
                return self.listed
            if len(now) > len(self.last) and self._fits(step, self.last):
                return () if self._fits(step, tuple(one for one in now if one not in self.last)) else self.last
            return next((group for group in (now, self.before) if group and self._fits(step, group)), ())
        if not pointed:
            return next((group for group in (now, self.before) if group and self._fits(step, group)), ())
        skill, meant = self.meant
        if skill == step.skill.name and meant and self._fits(step, meant):
            return meant
        here = now if now and self._fits(step, now) else ()
        there = meant or self.before
        if not here or not there or not self._fits(step, there):
            return here or (there if there and self._fits(step, there) else ())
        return here if len(here) == 1 and makes_file(here[0].skill) else ()

    def _fits(self, step: Step, sources: tuple[Source, ...]) -> bool:
        """Tried on a copy: every wanted argument is filled by these sources, and every source is of use."""
        trial = Draft(self.clauses.catalog.by_name.get(FINDER))
        trial.tasks = dict(self.draft.tasks)
        made = [trial.add(step, group) for group in ([(one,) for one in sources] if step.each else [sources])]
        return not trial.problems and not any(trial.tasks[one.id].after for one in made)


def reads_place(step: Step) -> bool:
    """Whether it matters where it runs, by itself: it is about a machine, or reads a file that is named by a path."""
    if step.skill.name != WRITER and step.skill.place == "local":
        return not step.wanted
    properties = step.skill.params.get("properties", {})
    literal = (value for name, value in step.args.items() if slot_of(name, properties[name]).kind in ("file", "files"))
    texts = (text for value in literal for text in (value if isinstance(value, list) else [value]))
    return bool(step.spread) or not all(str(text).startswith(("file://", "sha256:")) for text in texts)


def _is_called(nouns: tuple[str, ...], skill: SkillSpec) -> bool:
    """Whether what the skill gave may be called so: what a count gave is no report."""
    known = vocabulary(skill) | frozenset(words(" ".join(skill.result.get("properties", ()))))
    return all(not NOUNS[noun].isdisjoint(known) for noun in nouns)


def _step(match: Match, each: bool) -> Step:
    reading = match.reading
    return Step(skill=match.skill, args=reading.args, each=each, wanted=reading.wanted, spread=reading.spread)


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
