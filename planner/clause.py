"""A request in plain words, cut into clauses, each matched to one skill, wired by types.

    find *.log in logs, then count ERROR in each and hash each, then write a report called Errors

`then` starts the next stage, `and` another task beside the last one. A clause is one of a skill's sentences, or (by
BM25) words that all belong to one skill together with values that all find their argument. Invariant: pure, and all or
nothing: one clause that can't be read, one word that isn't accounted for, and the whole request is left to somebody
who understands it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from protocol.skill import SkillSpec
from protocol.task import Condition

from .antecedent import Antecedents, is_called
from .catalog import Catalog
from .condition import joined, lines_of, read_condition
from .draft import FINDER, Draft, Step
from .guess import guess
from .phrase import LONGEST, Phrase
from .place import Placed, Places
from .sentence import Reading, Sentence, sentences_of
from .shortlist import Shortlist
from .slot import FileName, is_folder, looks_like_file, slot_of

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
_CALL: Final = re.compile(
    r"call (?:it|them|this|that|these|those|the results?) (?P<name>[a-z][a-z0-9_]{0,30})", re.IGNORECASE
)
_ALLOWED: Final = re.compile(
    r",?\s+(?:(?:but )?(?:only )?(?:once|when|if|after) (?:I|somebody|someone|a person) (?:have |has )?"
    r"(?:approve[sd]?|allow(?:s|ed)?) (?:it|that|this)|with my (?:approval|permission)|but ask me (?:first|before))\Z",
    re.IGNORECASE,
)
_SECOND: Final = re.compile(
    r"(?P<first>.+?),? or,? (?:if|where|when) (?:that|it|this) fails,? (?P<rest>.+)", re.IGNORECASE
)
_IN_ANY_CASE: Final = re.compile(r"in any case,?\s+", re.IGNORECASE)
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
        stages = [part for part in _THEN.split(joined(phrase.text)) if part.strip()]
        if not stages or len(stages) > _MOST_CLAUSES or not all(reading.stage(part) for part in stages):
            return None
        good = reading.draft.tasks and not reading.draft.problems and reading.whole
        return reading.draft if good else None

    def match(self, phrase: Phrase, text: str, linked: bool, known: Collection[str] = ()) -> Match | None:
        """The one skill that the clause means. The sentence with most words spelled out wins; a tie means none.
        `known`: names that were given."""
        found = [
            Match(skill, reading)
            for skill, sentence in self.sentences
            if (read := sentence.read(phrase, text, linked, known)) is not None
            and (reading := _whole(skill, read, text, linked)) is not None
        ]
        if not found:
            guessed = guess(phrase, text, linked, self.shortlist)
            return Match(*guessed) if guessed is not None else None
        most = max(match.reading.words for match in found)
        best = [match for match in found if match.reading.words == most]
        return best[0] if all(match.skill is best[0].skill for match in best) else None


class _Reading:
    """One request being read, stage by stage."""

    def __init__(self, clauses: Clauses, phrase: Phrase, workers: frozenset[str]) -> None:
        self.clauses = clauses
        self.phrase = phrase
        self.places = Places(workers)
        self.past = Antecedents(clauses.catalog)
        self.draft = self.past.draft
        self.scope: Placed | None = None
        """The place in front of the stage, of all clauses that say none."""
        self.when: tuple[Condition, ...] = ()
        """What has to hold for what is read now."""
        self.doubtful: set[str] = set()
        """Tasks that may not be done."""
        self.anyway = False
        """This stage is done in any case."""
        self.allowed = False
        """A person has to allow what is read now."""
        self.named = self.unplaced = False
        """Some clause names a machine; some clause reads files or a machine and doesn't."""

    @property
    def whole(self) -> bool:
        """Nothing is left open: once a machine is named, what lies on none of them might lie on any."""
        return not (self.named and self.unplaced)

    def stage(self, text: str) -> bool:
        self.past.begin()
        text = _PARALLEL.sub(" ", text).strip()
        self.anyway = _IN_ANY_CASE.match(text) is not None
        self.scope, text = self.places.scope(_IN_ANY_CASE.sub("", text, count=1) if self.anyway else text)
        said = read_condition(text, self.phrase)
        if said is None:
            return self._clauses(text)
        self.anyway = True  # it says itself when it is done
        named = self.past.names.get(said.name)
        lines = lines_of(said, self.past.before if not said.name else () if named is None else (named,))
        if lines is None or not self._branch(said.rest, lines[0]):
            return False
        done, self.past.now = tuple(self.past.now), []
        self.past.forget()
        if said.otherwise and not self._branch(said.otherwise, lines[1]):
            return False
        if said.otherwise:
            self.past.either(done, tuple(self.past.now))
        else:
            self.past.now = [*done]
            self.past.may_be()
        return True

    def _branch(self, text: str, line: Condition) -> bool:
        self.when, known = (line,), {*self.draft.tasks}
        good = self._clauses(text)
        self.when = ()
        self.doubtful |= self.draft.tasks.keys() - known
        return good

    def _clauses(self, text: str) -> bool:
        pieces = _pieces(text)
        if len(pieces) > _MOST_PIECES:
            return False
        at = tasks = 0
        asks = False
        while at < len(pieces):
            for end in range(len(pieces), at, -1):
                said = text[pieces[at][0] : pieces[end - 1][1]].strip()
                if self._call(said):
                    break
                if self._clause(said):
                    tasks, asks = tasks + 1, asks or self.allowed
                    break
            else:
                return False
            at = end
        return tasks < 2 or not asks  # what it is that a person allows is certain of one clause only

    def _call(self, text: str) -> bool:
        call = _CALL.fullmatch(text)
        return call is not None and self.past.call(call["name"])

    def _clause(self, text: str) -> bool:
        allowed = _ALLOWED.search(text)
        self.allowed = allowed is not None
        text = text if allowed is None else text[: allowed.start()]
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
        ways = _SECOND.fullmatch(place.text)
        if ways is not None:
            return self._task(ways["first"], False, place, ways["rest"])
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
        if match is None or not match.reading.wanted or place.source or self._waits_in_doubt():
            return False
        step = self._step(match, each)
        find = Step(finder, {"path": folder.rstrip("/") or "/", "glob": said["glob"] or "*"}, when=self.when)
        made, found = [], []
        for machine in place.machines or (None,):
            on = (machine,) if machine is not None else ()
            found.append(self.draft.add(msgspec.structs.replace(find, on=on), self.past.before))
            step = msgspec.structs.replace(step, on=() if place.lies else on or place.on)
            made.append(self.draft.add(step, (found[-1],)))
        self._made(place, True)
        self.past.took(made, listed=tuple(found))
        return True

    def _task(self, text: str, each: bool, place: Placed, second: str = "") -> bool:
        """`second`: what does the same if the first fails."""
        linked = bool(self.past.before or self.past.now)
        match = self.clauses.match(self.phrase, text, linked, self.past.names)
        other = self.clauses.match(self.phrase, second, linked, self.past.names) if second else None
        if match is None or (second and (other is None or not _alike(match, other))):
            return False
        step = self._step(match, each or match.reading.each)
        step = step if other is None else msgspec.structs.replace(step, alt=(other.skill.name,))
        if step.each and not step.wanted:
            return False
        if not step.wanted:
            return self._first(step, place)
        if place.lies or place.source or (step.spread and place.on == ("all",)):
            return False  # `from` says where files lie, and these are what came before
        fed = self.past.of(step, match.reading)
        machines: tuple[str, ...] = place.machines
        if fed is None or len(machines) > 1:
            return False
        sources = fed.sources
        if not all(is_called(match.reading.nouns, one.skill) for one in sources):
            return False
        if match.reading.pointed or step.each:
            self.past.meant = (step.skill.name, sources)
        step = msgspec.structs.replace(step, on=machines or place.on, each=fed.maps)
        made = [self.draft.add(step, group) for group in fed.groups]
        self._made(place, reads_place(step))
        self.past.took(made, sources, listed=sources if fed.maps else None)
        return True

    def _first(self, step: Step, place: Placed) -> bool:
        """A task that nothing feeds; once on each machine."""
        if (step.spread and place.on == ("all",)) or self._waits_in_doubt():
            return False  # files of each machine for each machine: no plan here says that
        reads = reads_place(step)
        if (place.lies and not reads) or (place.source and not reads_files(step)):
            return False
        made = []
        for machine in place.machines or (None,):
            on = (machine,) if machine is not None else place.on
            lies = place.lies and (bool(step.spread) or any(isinstance(one, FileName) for one in step.args.values()))
            found_on = place.source or ((machine,) if machine is not None else ())
            step = msgspec.structs.replace(step, on=() if lies else on, found_on=found_on)
            made.append(self.draft.add(step, self.past.before))
        self._made(place, reads)
        self.past.took(made, listed=())
        self.past.meant = ("", ())
        return True

    def _step(self, match: Match, each: bool) -> Step:
        reading = match.reading
        return Step(
            match.skill,
            reading.args,
            each=each,
            wanted=reading.wanted,
            spread=reading.spread,
            when=self.when,
            approve=self.allowed,
        )

    def _waits_in_doubt(self) -> bool:
        """What only comes after something that may not be done: whether it is done then, nobody says."""
        return not self.anyway and any(one.id in self.doubtful for one in self.past.before)

    def _made(self, place: Placed, reads: bool) -> None:
        self.named = self.named or bool(place.machines)
        self.unplaced = self.unplaced or (reads and not place.machines and not place.on)


def reads_place(step: Step) -> bool:
    """Whether it matters where it runs, by itself: it is about a machine, or reads a file that is named by a path."""
    if step.skill.name != WRITER and step.skill.place == "local":
        return not step.wanted
    return reads_files(step)


def reads_files(step: Step) -> bool:
    """Whether it names files by a path, not by where they are."""
    properties = step.skill.params.get("properties", {})
    literal = [
        value
        for name, value in step.args.items()
        if isinstance(value, FileName) or slot_of(name, properties[name]).kind in ("file", "files")
    ]
    texts = (text for value in literal for text in (value if isinstance(value, list) else [value]))
    return bool(step.spread) or not all(str(text).startswith(("file://", "sha256:")) for text in texts)


def _alike(one: Match, other: Match) -> bool:
    """Whether two clauses are the same thing done by two skills, which take the same and give the same."""
    said = msgspec.structs.replace(other.reading, words=one.reading.words)
    taken = {*one.reading.args, *one.reading.spread, *one.reading.wanted}
    params, results = ([schema.get("properties", {}) for schema in pair] for pair in (
        (one.skill.params, other.skill.params), (one.skill.result, other.skill.result)
    ))  # fmt: skip
    return (
        one.skill is not other.skill
        and said == one.reading
        and all(_type(params[0].get(name)) == _type(params[1].get(name)) for name in taken)
        and results[0].keys() == results[1].keys()
        and all(_type(results[0][name]) == _type(results[1][name]) for name in results[0])
    )


def _type(schema: Mapping[str, Any] | None) -> Any:
    """A schema without what only people read."""
    if not isinstance(schema, Mapping):
        return schema
    return {key: _type(one) for key, one in schema.items() if key not in ("description", "default")}


def _whole(skill: SkillSpec, reading: Reading, text: str, linked: bool) -> Reading | None:
    """The reading, with the required arguments that its sentence has no place for.

    A choice is taken from the words themselves (`post` is the method POST); what earlier tasks can give is left to
    them. None when something is still missing.
    """
    given = {*reading.args, *reading.spread, *reading.wanted}
    missing = tuple(name for name in skill.params.get("required", ()) if name not in given)
    properties = skill.params.get("properties", {})
    if any(isinstance(one, FileName) for one in reading.args.values()) and not all(
        looks_like_file(str(one))
        for name, one in reading.args.items()
        if slot_of(name, properties[name]).kind == "path"
    ):
        return None  # `save a.txt as pdf` is more than a copy
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
