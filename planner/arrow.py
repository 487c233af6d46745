"""A request in the notation, put onto skills: each name resolved, each arrow wired by types.

Invariant: pure; a name that is no skill is told apart from a skill used wrongly, since the first means that nothing
here serves the request and the second that the person should correct it.
"""

from __future__ import annotations

import msgspec

from protocol.errors import Problem

from .catalog import Catalog
from .draft import Draft, Step
from .notation import Call, Pipeline
from .value import read_value
from .wiring import Source


class Drawn(msgspec.Struct, frozen=True):
    """The draft of a request in the notation, and the names in it that no skill has."""

    draft: Draft
    unknown: tuple[Problem, ...]


def draw(pipelines: tuple[Pipeline, ...], catalog: Catalog) -> Drawn:
    """Put every step of the pipelines into one draft. Its problems name the step as it was written."""
    drawing = _Drawing(catalog)
    for pipeline in pipelines:
        drawing.pipeline(pipeline, ())
    return Drawn(drawing.draft, tuple(drawing.unknown))


class _Drawing:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.draft = Draft(catalog)
        self.unknown: list[Problem] = []

    def pipeline(self, pipeline: Pipeline, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        for stage in pipeline.stages:
            found: list[Source] = []
            for step in stage:
                if isinstance(step, Pipeline):
                    found.extend(self.pipeline(step, sources))
                elif (made := self._call(step, sources)) is not None:
                    found.append(made)
            sources = tuple(found)
        return sources

    def _call(self, call: Call, sources: tuple[Source, ...]) -> Source | None:
        skill = self.catalog.find(call.name)
        if skill is None:
            message = f"there is no skill {call.name}"
            if len(self.catalog.named(call.name)) > 1:
                message = f"several skills are called {call.name}"
            self.unknown.append(Problem("UnknownSkill", call.text, message, self.catalog.nearest(call.name)))
            return None
        if call.id in self.draft.tasks:
            self.draft.problems.append(
                Problem("DuplicateId", call.text, f"{call.id} is used already", "choose another name after `as`")
            )
        properties = skill.params.get("properties", {})
        return self.draft.add(
            Step(
                skill=skill,
                args={name: read_value(text, properties.get(name, {})) for name, text in call.args if name},
                positional=tuple(text for name, text in call.args if not name),
                each=call.each,
                on=call.on,
                id=call.id,
                text=call.text,
            ),
            sources,
        )
