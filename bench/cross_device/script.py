"""What the scripted model and the scripted person say during one play, as the case's file has it.

Asked for the plan the model says the gold one, asked again for the same it says the same again; a further call gets the
case's next reply that fits, and a planner for whom none is left changes nothing. Invariant: nothing is said that the
file doesn't say. It must not know how it is asked.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from planner.scripted.asked import Asked
from planner.scripted.dialogue import Call, Turn
from protocol.errors import NotFound

from .case import Answer, Case, Said

TOKEN: Final = 4096
"""Characters a token: the pace of a model is not what is measured."""
_STATE: Final = "# State of the graph\n"
_NOTHING: Final[dict[str, Any]] = {"tasks": [], "edits": []}


class Script:
    """Of one play; `asked` counts the calls."""

    def __init__(self, case: Case) -> None:
        self.asked = 0
        self._plan = case.plan
        self._request = f"# Request\n{case.request.strip()}"
        self._left = list(case.replans)
        self._answers = case.answers
        self._said: dict[tuple[str, ...], Turn] = {}

    def turn(self, asked: Asked) -> Turn:
        """Raises: NotFound for a call of a task that the case has no reply for."""
        self.asked += 1
        key = tuple(str(row.get("content")) for row in asked.body["messages"])
        tools = bool(asked.body.get("tools"))
        if not tools and len(key) == 4:
            key = key[:2]  # what it said had problems: it says it again
        if key not in self._said:
            self._said[key] = self._next(asked.said, planner=key[0].startswith("You plan for Asterism"), tools=tools)
        return self._said[key]

    def answer(self, task: str, *words: str, loose: bool = False) -> Answer | None:
        """What the person does about this task, if one of `words` is what is asked of them; `loose`: its name is not
        the gold plan's."""
        fitting = [one for one in self._answers if one.do in words]
        exact = [one for one in fitting if fnmatchcase(task, one.task)]
        return next(iter(exact or (fitting if loose else [])), None)

    def _next(self, said: str, *, planner: bool, tools: bool) -> Turn:
        if planner and self._request in said:  # else a sub-plan is asked for
            done = _begun(said)
            if done is not None:
                left = [task for task in self._plan["tasks"] if task["id"] not in done]
                return _turn(Said({**self._plan, "tasks": left}))
        found = next((one for one in self._left if one.match in said and bool(one.calls) <= tools), None)
        if found is not None:
            self._left.remove(found)
            return _turn(found)
        if planner:
            return _turn(Said(_NOTHING))
        raise NotFound("the case has no reply left for this call")


def _begun(said: str) -> set[str] | None:
    """The tasks that are there of a first plan that is asked for (again); None if it is another call."""
    if _STATE not in said:
        return set()
    line = said.partition(_STATE)[2].partition("\n")[0]
    digest: dict[str, Any] = msgspec.json.decode(line)
    return {task["id"] for task in digest.get("tasks", ())} if digest["kind"] == "plan" else None


def _turn(said: Said) -> Turn:
    text = said.text if said.reply is None else msgspec.json.encode(said.reply).decode()
    calls = tuple(msgspec.convert(one, Call) for one in said.calls)
    return Turn(text=text, calls=calls, token_chars=TOKEN)
