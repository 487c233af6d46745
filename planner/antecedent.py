"""What a clause points back to: `it`, `each`, `the archive`, `the tables of a query`, a name that something was given.

Kept as the request is read: what the stage before made, what this one has made, in which order. Invariant: pure, and
only what is certain: where two things could be meant, it is none of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.skill import SkillSpec

from .catalog import Catalog
from .draft import Draft, Step
from .guess import vocabulary
from .query import tables_of
from .sentence import NOUNS, Reading
from .shortlist import stem, words
from .wiring import Source, makes_file, part_slots

Group = tuple[Source, ...]


class Fed(msgspec.Struct, frozen=True):
    """What a step is fed by: a task for each of `groups`; a map each where the step says `each` and `maps`."""

    groups: tuple[Group, ...]
    maps: bool = False

    @property
    def sources(self) -> Group:
        return tuple(source for group in self.groups for source in group)


class Antecedents:
    """What was made so far of one request, as far as it can be pointed to."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.draft = Draft(catalog)
        self.made: list[Source] = []
        self.names: dict[str, Source] = {}
        """What was given a name (`call it sums`)."""
        self.before: Group = ()
        self.now: list[Source] = []
        """The leaves of the stage before, and of this one."""
        self.last: Group = ()
        """What the last clause of this stage made."""
        self.listed: Group = ()
        """What the last `each` of this stage ran over: another one beside it runs over the same."""
        self.instead: Group = ()
        """What was made before the stage before, if that may not have been done; `unless`: the same of this stage."""
        self.unless: Group = ()
        self.meant: tuple[str, Group] = ("", ())
        """The skill of the last clause of this stage that pointed back, and to what."""

    def begin(self) -> None:
        """The next stage."""
        self.before, self.now = tuple(self.now) or self.before, []
        self.instead, self.unless = self.unless, ()
        self.forget()

    def may_be(self) -> None:
        """This stage is only done under a condition: if it isn't, `it` is what there was before."""
        self.unless = self.before

    def forget(self) -> None:
        """Nothing of this stage is pointed to by what follows."""
        self.last, self.listed, self.meant = (), (), ("", ())

    def took(self, made: Iterable[Source], used: Group = (), *, listed: Group | None = None) -> None:
        """A clause of this stage made these, of those that it `used`. `listed`: what its `each` ran over, if it had
        one, or () if what came before is no longer what the next one runs over."""
        self.last = tuple(made)
        self.made += self.last
        self.now = [*(one for one in self.now if one not in used), *self.last]
        self.listed = self.listed if listed is None else listed

    def call(self, name: str) -> bool:
        """Give the last thing that was made a name; False if that isn't one thing, or the name is taken."""
        group = self.last or self.before
        if len(group) != 1:
            return False
        renamed = self.draft.rename(group[0], name)
        if renamed is None:
            return False
        self.names[name] = renamed
        for held in ("before", "last"):
            setattr(self, held, tuple(renamed if one.id == group[0].id else one for one in getattr(self, held)))
        self.now = [renamed if one.id == group[0].id else one for one in self.now]
        self.made = [renamed if one.id == group[0].id else one for one in self.made]
        return True

    def either(self, done: Group, otherwise: Group) -> None:
        """Only one of the two was done: if they are alike, `it` is what was made by whichever that was."""
        self.now = [*done, *otherwise]
        if len(done) != 1 or len(otherwise) != 1:
            return
        (first,), (second,) = done, otherwise
        if first.skill is second.skill and not first.mapped and not second.mapped:
            merged = msgspec.structs.replace(first, other=second.id)
            self.now = [merged]

    def of(self, step: Step, reading: Reading) -> Fed | None:
        """What the clause is fed by; None where that isn't certain."""
        if reading.names:
            said = tuple(self.names[name] for name in reading.names)
            named = self._queried(step, said)
            return self._fed(step, said if named is None else named)
        near = self._near(step, reading)
        if near is not None and self._doubtful(step, reading, near):
            near = None
        named = self._queried(step, self.made)
        if named is None:
            return near
        recent = {one.id for one in (*self.before, *self.now)}
        if step.each:
            known = near is not None and near.maps and [one.id for one in near.sources] == [one.id for one in named]
            return Fed((named,), True) if known else None
        if reading.pointed and recent.isdisjoint(one.id for one in named):
            return None  # it points to what came before, and the query to something else
        return self._fed(step, named)

    def _doubtful(self, step: Step, reading: Reading, near: Fed) -> bool:
        """Whether this may not have been made, and it could as well mean what there was before."""
        if not self.instead or not any(one in self.before for one in near.sources):
            return False
        instead = tuple(one for one in self.instead if is_called(reading.nouns, one.skill))
        return self._fed(step, instead) is not None

    def _queried(self, step: Step, among: Iterable[Source]) -> Group | None:
        """The tables that the step's query names, each by its task or by the file that it was read from; () where one
        of them isn't there, or is two; None if it says none."""
        properties = step.skill.params.get("properties", {})
        sql = step.args.get("sql")
        if not isinstance(sql, str) or not any(part_slots(properties[name]) for name in step.wanted):
            return None
        known = list(among)
        found = []
        for table in tables_of(sql):
            same = [one for one in known if table.lower() in (one.name.lower(), one.stem.lower())]
            if len(same) != 1:
                return ()
            found.append(msgspec.structs.replace(same[0], called=table))
        return tuple(found) or None

    def _fed(self, step: Step, group: Group) -> Fed | None:
        """These, each as a map if the step says so."""
        if not group:
            return None
        if not step.each:
            return Fed((group,)) if self._fits(step, group) else None
        if self._fits(step, group):
            return Fed(tuple((one,) for one in group), True)
        alone = msgspec.structs.replace(step, each=False)
        single = len(group) > 1 and not any(map(_has_list, group)) and all(self._fits(alone, (one,)) for one in group)
        return Fed(tuple((one,) for one in group)) if single else None  # each of several results, none of them a list

    def _near(self, step: Step, reading: Reading) -> Fed | None:
        """`each`: what the last `each` ran over, else the nearest thing that is a list, else each of several results.
        What isn't said (`write a report`): all of this stage, else of the one before. `it`: the only thing that is
        called so; else the stage before, or the last thing made in this one; where both could be meant, what the clause
        before pointed to if it did the same, else what that made, if that is a file of its own. Anything else is not
        certain.
        """
        now = tuple(self.now)
        if step.each:
            if self.listed and (fed := self._fed(step, self.listed)) is not None:
                return fed
            if len(now) > len(self.last) and (fed := self._fed(step, self.last)) is not None:
                rest = tuple(one for one in now if one not in self.last)
                return None if self._fed(step, rest) is not None else fed
            return self._first_of(step, (now, self.before))
        if not reading.pointed:
            return self._first_of(step, (now, self.before))
        if reading.nouns:
            called = tuple(one for one in (*now, *self.before) if is_called(reading.nouns, one.skill))
            if len(called) == 1:
                return self._fed(step, called)
        skill, meant = self.meant
        if skill == step.skill.name and meant and self._fits(step, meant):
            return Fed((meant,))
        here = now if now and self._fits(step, now) else ()
        there = meant or self.before
        if not here or not there or not self._fits(step, there):
            return self._fed(step, here or there)
        return Fed((here,)) if len(here) == 1 and makes_file(here[0].skill) else None

    def _first_of(self, step: Step, groups: tuple[Group, ...]) -> Fed | None:
        return next((fed for group in groups if (fed := self._fed(step, group)) is not None), None)

    def _fits(self, step: Step, sources: Group) -> bool:
        """Tried on a copy: every wanted argument is filled by these sources, and every source is of use."""
        trial = Draft(self.catalog)
        trial.tasks = dict(self.draft.tasks)
        made = [trial.add(step, group) for group in ([(one,) for one in sources] if step.each else [sources])]
        return not trial.problems and not any(trial.tasks[one.id].after for one in made)


def _has_list(source: Source) -> bool:
    return source.mapped or any(schema.get("type") == "array" for schema in source.fields().values())


def is_called(nouns: tuple[str, ...], skill: SkillSpec) -> bool:
    """Whether what the skill gave may be called so: what a count gave is no report."""
    known = vocabulary(skill) | frozenset(words(" ".join(skill.result.get("properties", ()))))
    return all(not NOUNS.get(noun, frozenset((stem(noun),))).isdisjoint(known) for noun in nouns)
