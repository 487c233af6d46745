"""What an Assign asks for, decoded and judged against this worker: its skills, its policies, its whole capacity.

The same spec bytes serve all children of a map, so each is decoded once. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from protocol.frame import WorkSpec
from protocol.outcome import Failure
from protocol.profile import Policy, WorkerProfile, ruling
from protocol.skill import SkillSpec

from .capacity import Need, need_of

_SPEC: Final = msgspec.json.Decoder(WorkSpec)
_REMEMBERED: Final = 4096


class Work(msgspec.Struct, frozen=True, gc=False):
    """A decoded work spec with the skill it names. One per distinct spec bytes, shared by all children of a map."""

    spec: WorkSpec
    skill: SkillSpec
    need: Need
    policy: Policy
    by_name: bool = False
    """This worker's owner allows the skill by its name: as good as a person's approval."""


class Works:
    """All specs this worker was asked for lately."""

    def __init__(self, profile: WorkerProfile, could_ever_hold: Callable[[Need], bool]) -> None:
        self._skills = {skill.name: skill for skill in profile.skills}
        self._digests = {skill.name: skill.digest() for skill in profile.skills}
        self._policies = profile.policies
        self._could_ever_hold = could_ever_hold
        self._known: dict[bytes, Work | str] = {}

    def read(self, spec: bytes) -> Work | str:
        """The work, or why this worker can't do it: `Code: message`."""
        known = self._known.get(spec)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[spec] = self._decode(spec)
        return known

    def forget(self) -> None:
        """What this worker has is less than it was: each is judged again."""
        self._known.clear()

    def _decode(self, spec: bytes) -> Work | str:
        try:
            work = _SPEC.decode(spec)
        except msgspec.DecodeError as error:
            return f"BadSpec: {error}"
        skill = self._skills.get(work.skill)
        if skill is None:
            return f"NoSuchSkill: this worker has no skill {work.skill!r}"
        if work.digest and work.digest != self._digests[work.skill]:
            return f"NoSuchSkill: this worker has another version of {work.skill!r}"
        need = need_of(work)
        if not skill.inline and not self._could_ever_hold(need):
            return f"BadSpec: {work.skill!r} needs more than this worker has"
        said = ruling(self._policies, work.skill)
        return Work(work, skill, need, said or ("ask" if skill.asks else "allow"), said == "allow")


def refused_by_policy(work: Work) -> Failure:
    """What an attempt reports that this worker must not run without a person's word, or at all."""
    name = work.spec.skill
    if work.policy == "deny":
        return Failure("NotAllowed", f"this worker denies {name}", hint=f"start it with --allow {name}")
    return Failure("NotApproved", f"{name} asks before it acts", "policy", hint="approve it, or start with --allow")
