"""The planner that needs no key and no model: it matches a request to the catalog, and abstains otherwise.

In order: a saved template asked for by its exact text; the explicit notation; a template's sentence; clauses in plain
words. Invariant: a plan that leaves here has passed the compiler, and every word of the request had a part in it.
What isn't certain isn't planned. It must not know models, runs or the fleet's load.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Final

import anyio.to_thread
import msgspec
from anyio.abc import ObjectSendStream

from protocol.errors import PlanRefused, Problem
from protocol.patch import Patch
from protocol.skill import SkillSpec
from protocol.task import Plan

from .arrow import draw
from .catalog import Catalog
from .clause import Clauses
from .compiler import compile_plan
from .notation import Pipeline, parse_notation
from .planner import PlanOutcome
from .shortlist import Shortlist
from .template import Template
from .view import PlanView

EXAMPLE: Final = "find(logs, *.log) -> count(ERROR) each -> markdown(Errors)"
_EXACT: Final = 10_000
_BROKEN: Final = re.compile(r"[\ud800-\udfff]")
_MODEL: Final = "set a model: OPENAI_API_KEY or OPENAI_BASE_URL, and ASTERISM_MODEL"


class Decided(msgspec.Struct, frozen=True):
    """What the planner made of a request: patches to send (none unless complete) and the outcome."""

    patches: tuple[Patch, ...]
    outcome: PlanOutcome


class CatalogPlanner:
    """A `Planner`. `templates` are tried in order; of two that match, the one with more words spelled out wins."""

    name = "catalog"
    replans = False
    learns = False

    def __init__(self, templates: Sequence[Template] = ()) -> None:
        self.templates = tuple(templates)
        self._index: _Index | None = None

    async def plan(self, view: PlanView, patches: ObjectSendStream[Patch]) -> PlanOutcome:
        """Decide off the loop (a large catalog takes a moment), then send."""
        async with patches:
            decided = await anyio.to_thread.run_sync(self.decide, view)
            for patch in decided.patches:
                await patches.send(patch)
            return decided.outcome

    def decide(self, view: PlanView) -> Decided:
        """The whole of it, without I/O."""
        index = self._indexed(view)
        if view.digest is not None and view.digest.kind not in ("plan", "propose"):
            why = "the catalog planner plans a request once; it does not re-plan"
            return Decided((), PlanOutcome("abstained", why, f"to re-plan, {_MODEL}", self.name))
        request = (view.goal or view.request).strip()
        if _BROKEN.search(request):
            return _refused(self.name, (Problem("LoneSurrogate", "request", "the request is no whole text"),))
        if not request:
            return _refused(self.name, (Problem("EmptyPlan", "request", "the request is empty"),))
        matched = self._template(request)
        if matched is not None and matched[0] >= _EXACT:
            return self._filled(matched[1], matched[2], view, index)
        pipelines = parse_notation(request)
        if pipelines is not None:
            decided = self._notation(pipelines, view, index)
            if decided is not None:
                return decided
        if matched is not None:
            return self._filled(matched[1], matched[2], view, index)
        draft = index.clauses.draft(request, tuple(worker.name for worker in view.fleet))
        if draft is not None:
            try:
                return self._complete(draft.plan(), self.name, view, index)
            except PlanRefused:
                pass  # words that seemed to fit and don't compile were not understood
        return self._abstain(request, index)

    def saved(self, view: PlanView) -> Decided | None:
        """What a template has for a first plan's request; None without one."""
        matched = self._template(view.request.strip()) if view.digest is None else None
        return self._filled(matched[1], matched[2], view, self._indexed(view)) if matched is not None else None

    def _indexed(self, view: PlanView) -> _Index:
        if self._index is None or self._index.skills != view.skills:
            self._index = _Index(view.skills)
        return self._index

    def _template(self, request: str) -> tuple[int, Template, dict[str, object]] | None:
        best: tuple[int, Template, dict[str, object]] | None = None
        for template in self.templates:
            found = template.matches(request)
            if found is not None and (best is None or found[0] > best[0]):
                best = (found[0], template, found[1])
        return best

    def _filled(self, template: Template, values: dict[str, object], view: PlanView, index: _Index) -> Decided:
        name = f"template:{template.name}"
        try:
            return self._complete(template.fill(values, view.inputs), name, view, index)
        except PlanRefused as error:
            return _refused(name, error.problems, error.message)

    def _notation(self, pipelines: tuple[Pipeline, ...], view: PlanView, index: _Index) -> Decided | None:
        """None if no name in it is a skill: then it only looked like the notation."""
        drawn = draw(pipelines, index.catalog)
        if drawn.unknown:
            if not drawn.draft.tasks:
                return None
            nearest = tuple(dict.fromkeys(_named(problem, index) for problem in drawn.unknown))[:3]
            message = "; ".join(problem.message for problem in drawn.unknown[:3])
            hint = f"{drawn.unknown[0].fix}; or {_MODEL}"
            return Decided((), PlanOutcome("abstained", message, hint, self.name, nearest, drawn.unknown))
        if drawn.draft.problems:
            return _refused(self.name, tuple(drawn.draft.problems))
        try:
            return self._complete(drawn.draft.plan(), self.name, view, index)
        except PlanRefused as error:
            return _refused(self.name, error.problems)

    def _complete(self, plan: Plan, name: str, view: PlanView, index: _Index) -> Decided:
        patches = compile_plan(plan, index.catalog, inputs=view.inputs)
        count = len(plan.tasks)
        return Decided(patches, PlanOutcome("complete", f"{count} task{'s' * (count > 1)}", "", name))

    def _abstain(self, request: str, index: _Index) -> Decided:
        nearest = index.nearest(request)
        message = "no skill here serves this request for certain"
        hint = f"nearest: {', '.join(nearest) or 'none'}; {_MODEL}; or write the steps: {EXAMPLE}"
        return Decided((), PlanOutcome("abstained", message, hint, self.name, nearest))


class _Index:
    """What is built once for a set of skills."""

    def __init__(self, skills: tuple[SkillSpec, ...]) -> None:
        self.skills = skills
        self.catalog = Catalog(skills)
        self.shortlist = Shortlist(self.catalog.by_name.values())
        self.clauses = Clauses(self.catalog, self.shortlist)

    def nearest(self, request: str) -> tuple[str, ...]:
        """Three skills: by words, then by likeness of the name, then in order, so that a person sees what there is."""
        found = [spec.name for _, spec in self.shortlist.rank(request, 3)]
        by_likeness = sorted(
            self.catalog.by_name,
            key=lambda name: (-difflib.SequenceMatcher(None, name, request.lower()[:200]).ratio(), name),
        )
        return tuple(dict.fromkeys([*found, *by_likeness]))[:3]


def _named(problem: Problem, index: _Index) -> str:
    return index.nearest(problem.where)[0] if index.catalog.by_name else ""


def _refused(planner: str, problems: tuple[Problem, ...], message: str = "") -> Decided:
    said = message or f"the request has {len(problems)} problem{'s' * (len(problems) > 1)}"
    return Decided((), PlanOutcome("refused", said, "", planner, (), problems))
