"""A run's capability envelope: the skills that its first plan and persons name, and whether they may be had freely."""

from __future__ import annotations

from collections.abc import Callable

from protocol.skill import SkillSpec
from protocol.task import TaskSpec


def widen(envelope: dict[str, bool], spec: TaskSpec, known: Callable[[str], SkillSpec | None]) -> None:
    """By this task: its skill, its fallbacks, and what those say they spawn.

    What a person or the plan gates (by an approval; by a condition, if it acts) is had only so: False.
    """
    for name in (spec.skill, *spec.alt):
        if envelope.get(name):
            continue
        skill = known(name)
        acts = skill is None or skill.effect != "pure"
        freely = not spec.approve and not (acts and spec.when)
        names = [name]
        while names:
            one = names.pop()
            if one in envelope and (envelope[one] or not freely):
                continue
            envelope[one] = freely
            skill = known(one)
            if skill is not None and not isinstance(skill.spawns, bool):
                names.extend(other for other in skill.spawns if not other.startswith("@"))
