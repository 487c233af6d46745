"""However a text is cut into chunks, the decoder finds the same pieces in it; and it finds every task of a plan."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.decoder import Decoder, Piece
from protocol.document import Limits
from protocol.errors import Problem

SMALL = Limits(max_bytes=300, max_tasks=3, max_depth=5)
WORDS = st.sampled_from(
    [
        *'{}[]",:\\<',
        "<think>",
        "</think>",
        '"tasks"',
        '"id"',
        '"a"',
        "\\u12",
        '\\"',
        "```json\r\n",
        " ",
        "é",
        "1",
        "null",
    ]
)
SOUP = st.lists(WORDS, max_size=60).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
TASKS = st.lists(
    st.fixed_dictionaries({"id": st.text(max_size=5), "args": st.dictionaries(st.text(max_size=5), JSON, max_size=3)}),
    max_size=4,
)
PLAN = st.fixed_dictionaries({"why": st.text(max_size=9), "tasks": TASKS, "outputs": st.lists(JSON, max_size=2)})


def read(text: str, cuts: list[int], limits: Limits) -> tuple[list[Piece], Problem | None]:
    decoder, found, at = Decoder(limits), [], 0
    for cut in [*sorted(one % (len(text) + 1) for one in cuts), len(text)]:
        found += decoder.feed(text[at:cut])
        at = cut
    return found, decoder.end()


@settings(max_examples=300, deadline=None)
@given(SOUP | PLAN.map(json.dumps) | st.tuples(SOUP, PLAN.map(json.dumps), SOUP).map("".join), st.data())
def test_chunks_make_no_difference(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, 400), max_size=12))
    assert read(text, [], SMALL) == read(text, cuts, SMALL) == read(text, list(range(len(text))), SMALL)


@settings(max_examples=100, deadline=None)
@given(PLAN, st.sampled_from([None, 2]), st.booleans())
def test_every_task_of_a_plan_is_found(plan: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    found, problem = read(json.dumps(plan, indent=indent, ensure_ascii=ascii_only), [7, 40], Limits())
    assert problem is None
    assert [piece.value for piece in found if piece.index >= 0] == plan["tasks"]
    assert [piece.value for piece in found if piece.key == "outputs"] == [plan["outputs"]]
