"""Which skills a planner is shown, and in whose words.

What workers announce is data, and read by a planner all the same. So the words of built-in skills are ours whoever
announces them, and those of the rest are the ones they had when the run first asked its planner: what was changed, or
came, since then is shown without any. Names and shapes stay: without them nothing could be called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from protocol.builtin import BUILTINS
from protocol.builtin_model import MODEL_SKILLS
from protocol.skill import SkillSpec

from ..core.graph import Run
from ..core.state import BUILT_IN, State

_LABEL: Final = re.compile(r"[\w.:/+-]{0,63}")


def known_skills(state: State) -> tuple[SkillSpec, ...]:
    """Built-ins and everything announced: what a plan may use. Those that ask a model, where some worker has one."""
    found = {spec.name: spec for spec in BUILTINS if spec.name not in MODEL_SKILLS}
    offered = {
        name for record in state.workers.values() if not record.gone for name in MODEL_SKILLS & record.skills.keys()
    }
    for name in state.digests:
        spec = state.skill(name)
        if spec is not None and (name not in MODEL_SKILLS or name in offered):
            found[name] = spec
    return tuple(found.values())


def offered(state: State, run: Run) -> tuple[SkillSpec, ...]:
    """The skills for a planner of this run."""
    return tuple(
        spec if spec.name in BUILT_IN or run.described.get(spec.name) == state.fingerprint(spec.name) else bare(spec)
        for spec in known_skills(state)
    )


def bare(spec: SkillSpec) -> SkillSpec:
    """The skill without a word that its announcer chose freely."""
    return msgspec.structs.replace(
        spec, doc="", examples=(), tags=(), params=_shape(spec.params), result=_shape(spec.result)
    )


def _shape(schema: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: _shape(one) for name, one in value.items()}
        elif key == "anyOf":
            found[key] = [_shape(one) for one in value]
        elif key not in ("description", "default"):
            found[key] = _shape(value) if isinstance(value, Mapping) and key != "const" else value
    return found


def plain_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels that are names and not sentences."""
    return {key: value for key, value in labels.items() if _LABEL.fullmatch(key) and _LABEL.fullmatch(value)}
