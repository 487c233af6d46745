"""The demo's model: it says one recorded plan, whatever it is asked, at the pace of a model.

The plan is that of the shipped template `demo`. Asked to go on with a graph, it says the tasks that are not in it yet.
It must not know what runs the plan.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from planner.scripted.asked import Asked
from planner.scripted.dialogue import Turn
from planner.template import shipped_folder

RATE: Final = 200.0
"""Tokens a second."""


class RecordedModel:
    """A dialogue for the scripted server: any number of calls."""

    def __init__(self) -> None:
        template = msgspec.json.decode((shipped_folder() / "demo.json").read_bytes())
        self._plan: dict[str, Any] = template["plan"]

    def __call__(self, asked: Asked) -> Turn:
        left = [task for task in self._plan["tasks"] if f'"id":"{task["id"]}"' not in asked.said]
        text = msgspec.json.encode({**self._plan, "tasks": left}).decode()
        return Turn(text=text, rate=RATE, constrained=True)
