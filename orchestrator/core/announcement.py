"""What a worker says of itself, checked before anybody believes it: a skill it announces is everybody's for good.

Invariant: what passes can be applied, placed and checked against without an exception. Schemas that the catalog knows
already are not looked at again, so that a fleet which comes back at once costs little. It knows no stream.
"""

from __future__ import annotations

from typing import Final

from protocol.profile import WorkerProfile
from protocol.resource import Resources
from protocol.schema import check_schema
from protocol.skill import SkillSpec
from protocol.task_form import SKILL_NAME

from .state import State

MOST_SLOTS: Final = 65_536
MOST_SKILLS: Final = 10_000
_MOST: Final = 2.0**60


def objection(state: State, profile: WorkerProfile) -> str:
    """Why the profile can't be believed; "" if it can."""
    link = profile.link
    if not 0 < profile.slots <= MOST_SLOTS:
        return f"{profile.slots} slots"
    if not _sound(profile.capacity):
        return "a capacity below nothing or beyond any machine"
    if any(not (0 < one.speed <= _MOST and 0 <= one.count <= _MOST) for one in profile.devices):
        return "a device without speed"
    if not (0 < link.bandwidth <= _MOST and 0 <= link.latency_s <= _MOST):
        return "a link without bandwidth"
    if len(profile.skills) > MOST_SKILLS:
        return f"{len(profile.skills)} skills, {MOST_SKILLS} are allowed"
    for skill in profile.skills:
        why = "" if skill.digest() in state.catalog else _unfit(skill)
        if why:
            return f"the skill {skill.name[:80]!r}: {why}"
    return ""


def _unfit(skill: SkillSpec) -> str:
    if SKILL_NAME.fullmatch(skill.name) is None:
        return "its name is none"
    if not skill.variants or not all(_sound(variant.needs) for variant in skill.variants):
        return "it needs nothing that a machine could have"
    if not 0 < skill.timeout_s <= _MOST or not 0 <= skill.retry_max <= _MOST:
        return "its timeout or retries are no such number"
    for schema, what in ((skill.params, "params"), (skill.result, "result")):
        problems = check_schema(schema, what)
        if problems:
            return str(problems[0])
    return ""


def _sound(amounts: Resources) -> bool:
    return all(0 <= amount <= _MOST for amount in amounts.amounts().values())
