"""The `book.index` skill: spawn and join over chapters and terms. Workers load this module by name."""

from __future__ import annotations

from typing import Annotated, TypedDict

from workers.context import SkillContext
from workers.file import File
from workers.skill import skill


class Term(TypedDict):
    term: str
    n: int
    chapters: int


class Index(TypedDict):
    rows: list[Term]
    children: int


@skill(
    name="book.index",
    effect="pure",
    timeout="5m",
    cached=False,
    spawns=("text.count",),
    examples=("index {terms} in {files}",),
    tags=("index", "terms", "chapters", "spawn"),
)
def index(
    ctx: SkillContext,
    files: Annotated[list[File], "the chapters"],
    terms: Annotated[list[str], "what to look for"],
) -> Index:
    """How often each term occurs, and in how many chapters: a task of its own counts one term in one chapter."""
    handles = [[ctx.spawn("text.count", file=file, pattern=term) for file in files] for term in terms]
    rows = []
    for term, row in zip(terms, handles, strict=True):
        counts = [int(one["matches"]) for one in ctx.join(*row)]
        rows.append(Term(term=term, n=sum(counts), chapters=sum(count > 0 for count in counts)))
    return Index(rows=rows, children=len(files) * len(terms))
