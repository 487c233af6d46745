"""The catalog planner on requests that no skill serves, and on the patterns that its page documents.

It must abstain from the first (a guess is worse than none) and draw exactly the documented graph for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from planner.catalog_planner import CatalogPlanner
from planner.view import PlanView, WorkerView
from protocol.builtin import BUILTINS
from protocol.plan import parse_plan

from .pattern import FLEET


class Abstention(msgspec.Struct, frozen=True):
    """`rate`: of the requests that no skill serves, the share it leaves alone; `planned`: those that it did not.

    `exact`: the share of the documented patterns whose graph is the documented one; `other`: those that are not.
    """

    requests: int
    rate: float
    planned: tuple[str, ...]
    patterns: int
    exact: float
    other: tuple[str, ...]


def abstention(outside: Iterable[str], patterns: Mapping[str, Mapping[str, Any]]) -> Abstention:
    """`outside`: requests that no skill serves; `patterns`: by request, the plan document it stands for."""
    planner = CatalogPlanner()
    requests = list(outside)
    planned = [one for one in requests if planner.decide(_view(one)).outcome.kind != "abstained"]
    other = [one for one, document in patterns.items() if not _exact(planner, one, document)]
    return Abstention(
        requests=len(requests),
        rate=round(1 - len(planned) / len(requests), 4),
        planned=tuple(planned),
        patterns=len(patterns),
        exact=round(1 - len(other) / len(patterns), 4),
        other=tuple(other),
    )


def _view(request: str) -> PlanView:
    return PlanView(request, skills=BUILTINS, fleet=tuple(map(WorkerView, FLEET)))


def _exact(planner: CatalogPlanner, request: str, document: Mapping[str, Any]) -> bool:
    decided = planner.decide(_view(request))
    tasks = tuple(task for patch in decided.patches for task in patch.tasks)
    return decided.outcome.kind == "complete" and tasks == parse_plan(document).tasks
