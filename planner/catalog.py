"""The skills there are, by full name and by last part where that is unique.

Invariant: a name means one skill or none; an ambiguous one is never resolved silently. It must not know requests.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from protocol.skill import SkillSpec


class Catalog:
    """An immutable set of skills. A later spec of the same name replaces an earlier one."""

    def __init__(self, skills: Iterable[SkillSpec]) -> None:
        self.by_name = {spec.name: spec for spec in skills}
        self._short: dict[str, list[SkillSpec]] = {}
        for spec in self.by_name.values():
            self._short.setdefault(short_name(spec.name), []).append(spec)

    def find(self, name: str) -> SkillSpec | None:
        """The skill of that full name, or the only one whose name ends in `.name`."""
        found = self.by_name.get(name)
        if found is not None:
            return found
        same = self._short.get(name, ())
        return same[0] if len(same) == 1 else None

    def named(self, short: str) -> tuple[str, ...]:
        """The full names that a last part could mean."""
        return tuple(spec.name for spec in self._short.get(short, ()))

    def nearest(self, name: str) -> str:
        """A sentence with up to three names like this one."""
        several = self.named(name)
        if len(several) > 1:
            return f"write {' or '.join(several)}"
        close = difflib.get_close_matches(short_name(name)[:64], self._short, n=3, cutoff=0.6)
        close += difflib.get_close_matches(name[:64], self.by_name, n=3, cutoff=0.7)
        names = dict.fromkeys(full for one in close for full in (self.named(one) or (one,)))
        return f"did you mean {' or '.join(list(names)[:3])}?" if names else "see asterism skills"


def short_name(name: str) -> str:
    """`text.count` -> `count`."""
    return name.rpartition(".")[2]
