"""The catalog planner is total: any text is planned, refused or left alone, and what is planned parses back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog_planner import CatalogPlanner
from planner.notation import parse_notation
from planner.view import PlanView
from protocol.builtin import BUILTINS
from protocol.patch import Patch
from protocol.plan import parse_patch, patch_document

PLANNER = CatalogPlanner()
TEXTS = (
    'find count hash *.log logs a.txt in each then and -> & ( ) ; , for every file them ERROR \'x y\' "q" [1] {"a":1}',
    "pack into logs.zip sleep 2 echo hi on gpu all machines write a report called X as = find(logs) markdown(T)",
)
WORDS = st.sampled_from(" ".join(TEXTS).split())


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.lists(WORDS, max_size=14).map(" ".join))
def test_any_text_is_planned_refused_or_left_alone(request: str) -> None:
    decided = PLANNER.decide(PlanView(request, skills=BUILTINS))
    assert (decided.outcome.kind == "complete") == bool(decided.patches)
    for patch in decided.patches:
        assert parse_patch(patch_document(patch), author="planner") == patch
        assert isinstance(patch, Patch)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab(),->&;='\"[] \\", max_size=60))
def test_any_text_is_the_notation_or_is_not(text: str) -> None:
    found = parse_notation(text)
    assert found is None or all(pipeline.stages for pipeline in found)
