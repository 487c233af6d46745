"""The form of a case's file, checked where it comes in: which keys there are, and what may stand in each.

It must not know what the values mean to each other.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

PREDICATES: Final = ("equals", "near", "contains", "same_set", "rows", "sha256", "exists", "count")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Name = Annotated[str, Field(min_length=1, max_length=200)]
MachineName = Literal["workstation", "gpu-box", "db-server", "log-server", "edge-cam"]
Machines = Annotated[list[MachineName], BeforeValidator(_listed)]


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class FixtureTable(Table):
    make: Name
    on: Annotated[Machines, Field(min_length=1)]
    path: str
    name: Name = Field(alias="as")
    draw: str = ""
    args: dict[str, Any] = {}


class SaidTable(Table):
    reply: dict[str, Any] | None = None
    text: str = ""
    calls: list[dict[str, Any]] = []
    match: str = ""


class AnswerTable(Table):
    task: Name
    do: Literal["approve", "reject", "answer", "retry", "fail"]
    value: Any = None


class ClaimTable(Table):
    equals: Any = None
    near: Any = None
    contains: Any = None
    same_set: list[Any] | dict[str, Any] = []
    rows: list[Any] | dict[str, Any] = []
    sha256: Any = None
    exists: bool = True
    count: int | dict[str, Any] = 0
    within: float = Field(0.0, ge=0, strict=False)
    value: str = ""

    @property
    def expects(self) -> dict[str, Any]:
        """The predicates that the file names."""
        return {key: getattr(self, key) for key in PREDICATES if key in self.model_fields_set}


class SubtaskTable(ClaimTable):
    id: Name


class CheckTable(ClaimTable):
    output: str = ""
    file: str = ""
    form: Literal["", "text", "json", "csv", "lines", "bytes", "sqlite", "archive"] = Field("", alias="as")
    query: str = ""


class RunTable(Table):
    """What is asked of the run beside its plan: options of `asterism run`."""

    on_failure: Literal["continue", "stop", "replan"] | None = None
    replan: dict[str, int] | None = None
    budget: dict[str, int | float] | None = None
    review: int | None = None
    deadline: str | float | None = None
    schedule_grace: str | float | None = None


class CaseFile(Table):
    form: Literal["asterism/case/v1"] = Field(alias="schema")
    title: Name
    category: Literal[
        "collection", "log-analysis", "data-pipeline", "heavy-compute", "administration",
        "backup", "monitoring", "build-test", "content", "recovery",
    ]  # fmt: skip
    request: Annotated[str, Field(min_length=1, max_length=4000)]
    plan: dict[str, Any]
    tags: list[str] = []
    needs: Machines = []
    absent: Machines = []
    run: RunTable = RunTable()
    state: Literal["succeeded", "partial", "failed"] = "succeeded"
    fixture: list[FixtureTable] = []
    replan: list[SaidTable] = []
    answer: list[AnswerTable] = []
    subtask: Annotated[list[SubtaskTable], Field(min_length=1)]
    check: Annotated[list[CheckTable], Field(min_length=1)]
