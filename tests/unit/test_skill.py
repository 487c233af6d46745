"""@skill: schemas from signatures, variants, and the way between JSON and Python."""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Optional, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, Field

from protocol.errors import UsageError
from protocol.resource import Resources
from protocol.schema import check
from workers.file import File
from workers.skill import Skill, skill

if TYPE_CHECKING:
    from workers.context import SkillContext


@dataclass
class Point:
    x: int
    y: float = 0.5


class Box(BaseModel):
    name: str = Field(description="what it is called", max_length=9)
    corner: Point
    cover: File | None = None


class Row(TypedDict):
    file: File
    count: NotRequired[int]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Pair(msgspec.Struct):
    left: str
    right: list[Point] = []


class Node(BaseModel):
    below: Optional[Node] = None  # noqa: UP045 - recursion as users write it


@skill(effect="pure", needs=Resources(cpu=2, memory="1GiB"), timeout="30s", tags=["t"])  # type: ignore[arg-type]
def everything(
    ctx: SkillContext,
    file: File,
    files: list[File],
    text: Annotated[str, "some text"],
    mode: Literal["fast", "slow"] = "fast",
    limit: int | None = None,
    point: Point = Point(1),  # noqa: B008
    box: Box | None = None,
    rows: list[Row] = [],  # noqa: B006
    colour: Colour = Colour.RED,
    pair: Pair | None = None,
    table: dict[str, list[int]] | None = None,
    tags: set[str] | None = None,
    data: File | str | list[Any] = "",
    as_: str = "x",
    anything: Any = None,
) -> dict[str, int]:
    """Does everything.

    More about it.

    Args:
        mode: how fast
          it goes
    """
    return {}


def _local(text: str) -> File:
    return File("/cache/" + text.rpartition("/")[2], text)


def test_the_schema_comes_from_the_signature_and_the_docs_from_the_docstring() -> None:
    spec = everything.spec
    properties = spec.params["properties"]
    assert spec.name == "everything"
    assert spec.doc == "Does everything."
    assert spec.params["required"] == ["file", "files", "text"]
    assert "ctx" not in properties
    assert properties["file"] == {"type": "file"}
    assert properties["files"] == {"type": "array", "items": {"type": "file"}}
    assert properties["text"] == {"type": "string", "description": "some text"}
    assert properties["mode"] == {
        "type": "string",
        "enum": ["fast", "slow"],
        "default": "fast",
        "description": "how fast it goes",
    }
    assert properties["limit"] == {"type": "integer", "nullable": True, "default": None}
    assert properties["point"]["properties"] == {"x": {"type": "integer"}, "y": {"type": "number", "default": 0.5}}
    assert properties["point"]["required"] == ["x"]
    assert properties["box"]["properties"]["name"] == {
        "type": "string",
        "description": "what it is called",
        "maxLength": 9,
    }
    assert properties["box"]["properties"]["cover"] == {"type": "file", "nullable": True, "default": None}
    assert properties["rows"]["items"]["required"] == ["file"]
    assert properties["colour"] == {"type": "string", "enum": ["red", "blue"], "default": "red"}
    assert properties["table"]["additionalProperties"] == {"type": "array", "items": {"type": "integer"}}
    assert properties["data"]["anyOf"][0] == {"type": "file"}
    assert properties["as"] == {"type": "string", "default": "x"}
    assert properties["anything"] == {"default": None}
    assert spec.result == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert spec.variants[0].needs == Resources(cpu=2, memory=1024**3)
    assert spec.timeout_s == 30.0
    assert everything.signature.context == "ctx"


def test_json_arguments_become_what_the_function_takes() -> None:
    args = {
        "file": "file://pi/a.txt",
        "files": ["sha256:1"],
        "text": "t",
        "point": {"x": 2, "y": 1},
        "box": {"name": "b", "corner": {"x": 1}, "cover": "file://pi/c.png"},
        "rows": [{"file": "file://pi/r"}],
        "colour": "blue",
        "pair": {"left": "l", "right": [{"x": 3}]},
        "table": {"a": [1]},
        "tags": ["x", "x"],
        "data": ["file://pi/no"],
        "as": "y",
        "limit": None,
    }
    assert check(everything.spec.params, args) == []
    loaded = everything.signature.load(args, _local)
    assert loaded["file"] == "/cache/a.txt"
    assert loaded["file"].uri == "file://pi/a.txt"
    assert loaded["file"].name == "a.txt"
    assert loaded["point"] == Point(2, 1.0)
    assert loaded["box"].corner == Point(1)
    assert loaded["box"].cover.uri == "file://pi/c.png"
    assert loaded["rows"] == [{"file": "/cache/r"}]
    assert loaded["colour"] is Colour.BLUE
    assert loaded["pair"].right == [Point(3)]
    assert loaded["tags"] == {"x"}
    assert loaded["data"] == ["file://pi/no"]
    assert loaded["as_"] == "y"
    assert loaded["limit"] is None
    assert everything.signature.load({"data": "file://pi/d"}, _local)["data"] == "/cache/d"
    assert type(everything.signature.load({"data": "plain"}, _local)["data"]) is str


def test_a_value_that_a_model_refuses_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="argument box"):
        everything.signature.load({"box": {"name": "too long a name", "corner": {"x": 1}}}, _local)
    with pytest.raises(UsageError, match="no argument nope"):
        everything.signature.load({"nope": 1}, _local)


@skill(effect="pure")
def results(value: Any) -> list[Row]:
    return []


def test_results_become_json_and_files_keep_their_uri() -> None:
    def uri(path: str) -> str:
        return "file://here" + path

    dumped = results.signature.dump(
        [{"file": File("/cache/x", "file://pi/x")}, {"file": File("/made")}, {"file": Path("/p")}, {"file": "/s"}], uri
    )
    assert [row["file"] for row in dumped] == ["file://pi/x", "file://here/made", "file://here/p", "file://here/s"]
    assert type(dumped[0]["file"]) is str
    box = Box(name="b", corner=Point(1), cover=File("/c"))
    assert everything.signature.dump({"a": box, "p": Point(1), "c": Colour.RED, "t": (1, {2})}, uri) == {
        "a": {"name": "b", "corner": {"x": 1, "y": 0.5}, "cover": "file://here/c"},
        "p": {"x": 1, "y": 0.5},
        "c": "red",
        "t": [1, [2]],
    }
    assert everything.signature.dump(File("/f"), uri) == "file://here/f"
    with pytest.raises(UsageError, match="can't return object"):
        everything.signature.dump({"a": object()}, uri)


def test_a_skill_stays_callable_and_keeps_its_name() -> None:
    @skill
    def double(n: int) -> int:
        return 2 * n

    assert double(4) == 8
    assert double.__name__ == "double"
    assert double.spec.effect == "once"
    assert double.spec.retry_max == 0
    assert not double.spec.cached


def test_variants_share_one_name_and_one_contract() -> None:
    @skill(effect="pure")
    def scale(n: int) -> int:
        return n

    @scale.on("gpu", needs={"gpu": 1, "vram": "6GiB", "licence": 1})
    def _(n: int) -> int:
        return -n

    assert isinstance(scale, Skill)
    assert [variant.device for variant in scale.spec.variants] == ["cpu", "gpu"]
    assert scale.spec.variants[1].needs == Resources(cpu=1, gpu=1, vram=6 * 1024**3, counters={"licence": 1})
    assert scale(1) == 1
    assert scale.variants["gpu"](1) == -1
    with pytest.raises(UsageError, match="already"):
        scale.on("gpu")
    with pytest.raises(UsageError, match="no device kind"):
        scale.on("tpu")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="other arguments"):
        scale.on("edge")(lambda m: m)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: skill(_takes_bytes), "no JSON type"),
        (lambda: skill(_takes_path), "use File"),
        (lambda: skill(_takes_star), "no name of its own"),
        (lambda: skill(_takes_recursion), "nests deeper"),
        (lambda: skill(_takes_tuple), "fixed length"),
        (lambda: skill(_takes_int_keys), "text keys"),
        (lambda: skill(name="Bad Name")(_fine), "no name for a skill"),
        (lambda: skill(name="fine", effect="maybe")(_fine), "effect"),  # type: ignore[call-overload]
        (lambda: skill(name="fine", sinks=["nope"])(_fine), "sinks name nope"),
    ],
)
def test_what_json_cannot_carry_is_refused_with_the_fix(make: Any, why: str) -> None:
    with pytest.raises(UsageError) as error:
        make()
    assert why in str(error.value)
    assert error.value.hint


def _takes_bytes(b: bytes) -> None: ...
def _takes_path(p: Path) -> None: ...
def _takes_star(*a: int) -> None: ...
def _takes_recursion(n: Node) -> None: ...
def _takes_tuple(t: tuple[int, str]) -> None: ...
def _takes_int_keys(d: dict[int, str]) -> None: ...
def _fine(a: int) -> None: ...


def test_what_a_skill_takes_is_an_argument_or_seconds() -> None:
    def made(takes: Any) -> Any:
        return skill(name="fine", takes=takes)(_fine).spec

    assert (made("a").takes, made("a").run_s) == ("a", 0.0)
    assert (made(2).takes, made(2).run_s) == ("", 2.0)
    assert made(2).digest() == made("a").digest()
    for wrong in ("b", 0, -1.0, float("nan"), 1e9, True):
        with pytest.raises(UsageError, match="takes"):
            made(wrong)


def test_a_skill_without_a_file_is_refused_with_the_fix() -> None:
    names: dict[str, Any] = {"__name__": "typed_in"}
    exec("def typed(a: int) -> int:\n    return a", names)  # noqa: S102 - as typed into an interpreter
    made = skill(names["typed"])
    with pytest.raises(UsageError, match="not in a file") as error:
        made.home()
    assert "into a .py file" in error.value.hint

    @skill
    def inner(a: int) -> int:
        return a

    with pytest.raises(UsageError, match="defined inside"):
        inner.home()
    assert everything.home() == Path(sys.modules[__name__].__file__ or "")
