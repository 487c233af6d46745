"""Which sandbox level each skill gets on this worker: what it asks for, what the settings say, what holds here.

A skill gets the highest level that leaves it its warm process, its network and the files of its user: cgroup where
that holds, else process. Bubblewrap takes those away, so it comes by word only: of the skill itself, or of a setting.
Invariant: nothing is ever held lower than somebody asked for; it is refused instead. Pure.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

import msgspec

from protocol.errors import UsageError
from protocol.outcome import Failure
from protocol.skill import LEVELS, Level, SkillSpec

_ROOMY: Final = LEVELS.index("cgroup")


class SandboxRules(msgspec.Struct, frozen=True):
    """The settings `sandbox.*`. `skills`: (pattern, lowest level), every pattern that fits counts."""

    minimum: Level = "none"
    maximum: Level = "bubblewrap"
    skills: tuple[tuple[str, Level], ...] = ()

    def check(self, held: frozenset[Level]) -> None:
        """Raises: UsageError when a setting asks for what does not hold here: better no worker than a lax one."""
        for what, level in (("sandbox.minimum", self.minimum), *((f"sandbox.skills {p}", at) for p, at in self.skills)):
            if self._pick(held, level) is None:
                raise UsageError(
                    f"{what} is {level}, but this machine holds {_said(held)} at most",
                    hint="asterism worker probe says what is missing; or lower the setting",
                )

    def level(self, spec: SkillSpec, held: frozenset[Level]) -> Level | None:
        """The level that holds this skill, None if none may."""
        asked = [self.minimum, *(level for pattern, level in self.skills if fnmatchcase(spec.name, pattern))]
        if spec.sandbox:
            asked.append(spec.sandbox)
        return self._pick(held, max(asked, key=LEVELS.index))

    @property
    def plain(self) -> Level:
        """What hosts that serve skill after skill are held with, as far as it holds here."""
        return LEVELS[min(_ROOMY, LEVELS.index(self.maximum))]

    def reach(self, held: frozenset[Level]) -> Level:
        """The highest level that a skill can have here: what the profile says."""
        return max((one for one in self._allowed(held)), key=LEVELS.index)

    def _allowed(self, held: frozenset[Level]) -> list[Level]:
        return [one for one in LEVELS[: LEVELS.index(self.maximum) + 1] if one == "none" or one in held]

    def _pick(self, held: frozenset[Level], wanted: Level) -> Level | None:
        fit = [one for one in self._allowed(held) if LEVELS.index(one) >= LEVELS.index(wanted)]
        roomy = [one for one in fit if LEVELS.index(one) <= _ROOMY]
        return (roomy or fit)[-1] if fit else None


def unheld(spec: SkillSpec) -> Failure:
    """What an attempt reports whose skill no level of this worker may hold."""
    return Failure(
        "NoSandbox",
        f"{spec.name} may only run at sandbox level {spec.sandbox}, which this worker does not reach",
        hint="asterism worker probe says what is missing",
    )


def _said(held: frozenset[Level]) -> str:
    return max(held, key=LEVELS.index, default="none")
