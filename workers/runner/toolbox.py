"""The skills that one agent may use, as a model sees them: told apart on every server, arguments checked here.

Invariant: nothing but the skills that were chosen comes out of `read`, whatever a model wrote or was talked into; and
only arguments that fit the skill's schema. It must not know models, tasks or how a skill is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from protocol.chat import ChatTool, ToolCall
from protocol.errors import UsageError, WireError
from protocol.json_bytes import read_json
from protocol.schema import check
from protocol.skill import SkillSpec
from protocol.strict_schema import loosen, strict

MOST_TOOLS: Final = 64
MOST_ARGUMENTS: Final = 64 * 1024
_SHOWN: Final = 10
_NEVER: Final = "agent.run"
"""An agent with an agent for a tool would choose the tools of that one by itself."""


class Use(msgspec.Struct, frozen=True):
    """A call of a tool that may be made."""

    skill: SkillSpec
    args: dict[str, Any]


class Toolbox:
    """Made before the first call of the model. Raises: UsageError for skills that this worker can't offer."""

    def __init__(self, wanted: Sequence[str], known: Mapping[str, SkillSpec], worker: str) -> None:
        names = tuple(dict.fromkeys(wanted))
        if _NEVER in names:
            raise UsageError(f"an agent can't use {_NEVER}", hint="let a plan start the second agent")
        if missing := [name for name in names if name not in known]:
            raise UsageError(
                f"{worker} offers no {', '.join(missing[:_SHOWN])}",
                hint="name skills of the worker that runs the agent, in full; it may need an `on`",
            )
        if len(names) > MOST_TOOLS:
            raise UsageError(f"{len(names)} skills, an agent takes {MOST_TOOLS} at most")
        self._skills: dict[str, SkillSpec] = {}
        for name in names:
            other = self._skills.setdefault(tool_name(name), known[name])
            if other.name != name:
                raise UsageError(
                    f"{other.name} and {name} would both be called {tool_name(name)}", hint="choose one of them"
                )
        self.tools = tuple(
            ChatTool(spec.name, f"{spec.doc} Its effect: {spec.effect}.", strict(spec.params))
            for spec in self._skills.values()
        )

    def read(self, call: ToolCall) -> Use | str:
        """The call as it may be made, or why it can't be, for the model to read."""
        skill = self._skills.get(tool_name(call.name))
        if skill is None:
            offered = ", ".join(tool.name for tool in self.tools) or "none"
            return f"there is no tool {call.name[:64]!r}; there are: {offered}"
        if len(call.arguments) > MOST_ARGUMENTS:
            return f"arguments of {len(call.arguments)} characters, {MOST_ARGUMENTS} are taken"
        try:
            args = read_json(call.arguments.encode() or b"{}")
        except (WireError, UnicodeEncodeError) as error:
            return f"the arguments are no JSON: {error}"
        args = loosen(skill.params, args)
        if problems := check(skill.params, args):
            return "the arguments do not fit:\n" + "\n".join(f"- {problem}" for problem in problems[:_SHOWN])
        return Use(skill, args)


def tool_name(skill: str) -> str:
    """`fs.find` -> `fs_find`: what a server that takes no dots is given and answers with."""
    return skill.replace(".", "_")
