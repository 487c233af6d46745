"""What a worker says of itself, checked before anybody believes it: a skill it announces is everybody's for good.

Invariant: what passes can be applied, placed and checked against without an exception. Schemas that the catalog knows
already are not looked at again, so that a fleet which comes back at once costs little. It knows no stream.
"""

from __future__ import annotations

from typing import Final

from protocol.profile import WorkerProfile
from protocol.profile_bound import MOST, capacity_problems, problems_of
from protocol.schema import check_schema
from protocol.skill import LONGEST_S, SkillSpec
from protocol.task_form import SKILL_NAME

from .state import State

MOST_SKILLS: Final = 10_000


def objection(state: State, profile: WorkerProfile) -> str:
    """Why the profile can't be believed; "" if it can."""
    if problems := problems_of(profile):
        return f"{problems[0].message} ({problems[0].fix})"
    if len(profile.skills) > MOST_SKILLS:
        return f"{len(profile.skills)} skills, {MOST_SKILLS} are allowed"
    for skill in profile.skills:
        why = "" if skill.digest() in state.catalog else _unfit(skill)
        if not (0 <= skill.run_s <= LONGEST_S and 0 <= skill.warm_s <= LONGEST_S):  # they are no part of the digest
            why = f"a run of it is said to take {skill.run_s} s, and to leave something warm for {skill.warm_s} s"
        if why:
            return f"the skill {skill.name[:80]!r}: {why}"
    return ""


def _unfit(skill: SkillSpec) -> str:
    if SKILL_NAME.fullmatch(skill.name) is None:
        return "its name is none"
    if not skill.variants or any(capacity_problems(variant.needs, "needs") for variant in skill.variants):
        return "it needs nothing that a machine could have"
    if not 0 < skill.timeout_s <= MOST or not 0 <= skill.retry_max <= MOST:
        return "its timeout or retries are no such number"
    for schema, what in ((skill.params, "params"), (skill.result, "result")):
        problems = check_schema(schema, what)
        if problems:
            return str(problems[0])
    return ""
