"""Every kind of event, as each release has written it, is read for ever; a kind without a row here fails.

`ASTERISM_WRITE_GOLDEN=1` adds rows for kinds that have none, and for those whose fields have grown; rows that are there
are never written again.
"""

from __future__ import annotations

import json
import os
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.core import event as e
from orchestrator.core.event_codec import decode_events, encode_events
from protocol.artifact import ArtifactRef, digest_of
from protocol.ids import Fence
from protocol.outcome import Failure, Stopped, Success, Usage
from protocol.patch import Edit, Patch
from protocol.plan import parse_plan
from protocol.profile import WorkerProfile
from protocol.resource import Resources
from protocol.skill import SkillSpec, Variant
from protocol.task import FirstOf, Output, Ref, RunBudget, RunSettings

GOLDEN = Path(__file__).with_name("events.json")
KINDS: dict[str, Any] = {kind.__name__: kind for kind in typing.get_args(e.Event)}
REF = ArtifactRef(digest_of(b"content"), "text/csv", 2**41)
_PLAN = parse_plan(
    {
        "tasks": [
            {"id": "scan", "on": ["here"], "skill": "fs.find", "args": {"path": "logs"}},
            {"id": "count", "skill": "text.count", "args": {"file": {"ref": "scan/files[]/file"}}, "map": {"chunk": 2}},
            {"id": "sum", "skill": "flow.echo", "args": {"value": {"ref": ["count", "scan/x"]}}, "after": ["scan"],
             "when": [{"ref": "scan/n", "op": ">", "value": 1}], "alt": ["flow.list"], "needs": {"gpu": 1},
             "retry": {"max": 1, "backoff": 0.5}, "timeout": 60, "deadline": 90, "priority": 3, "effect": "once",
             "approve": True, "label": "Sum"},
        ]
    }
)  # fmt: skip
PATCH = Patch(
    "person:ann", _PLAN.tasks, "why", 2, ("x",), (Edit("retry", "a", "note", "flow.echo"),), (("a", "b"),),
    (("c", "d"),), (Output("o", Ref("sum", ("x",))), Output("p", FirstOf((Ref("a"), Ref("b"))))), "",
)  # fmt: skip
SAMPLES: dict[Any, Any] = {
    str: "text", int: 3, float: 1.5, bool: True, bytes: b'{"a":1}', Fence: Fence(2**40, 7), ArtifactRef: REF,
    Usage: Usage(0.5, "gpu", 0.4, 2**33, 10, 20, 0.01, 9, 0.25), Patch: PATCH,
    Resources: Resources(cpu=2.0, memory=2**34),
    RunSettings: RunSettings("replan", 60.0, RunBudget(tokens=5), labels={"a": "b"}, attached=True),
    SkillSpec: SkillSpec("x.work", "Works.", effect="pure", variants=(Variant("gpu", Resources(gpu=1.0)),)),
    WorkerProfile: WorkerProfile(),
}  # fmt: skip
OUTCOMES = (Success(b"1"), Success(REF), Failure("Bad", "no", "transient", "story", "hint"), Stopped("why"))


def sample(hint: Any) -> Any:
    """A value of the annotated type that is no default."""
    if hint in SAMPLES:
        return SAMPLES[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return args[-1]
    if origin is tuple:
        return (sample(args[0]),) if args[-1] is Ellipsis else tuple(map(sample, args))
    if origin is dict:
        return {sample(args[0]): sample(args[1])}
    if origin in (typing.Union, types.UnionType):
        return sample(args[0])
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint(**{field.name: sample(field.type) for field in msgspec.structs.fields(hint)})
    raise TypeError(f"write a sample of {hint}")


def samples(kind: Any) -> list[Any]:
    found = kind(**{field.name: sample(field.type) for field in msgspec.structs.fields(kind)})
    if type(found) is e.AttemptEnded:
        return [msgspec.structs.replace(found, outcome=one) for one in OUTCOMES]
    return [found]


def told(event: Any) -> dict[str, Any]:
    """As JSON, every field: `what`, so that a row shows what it means."""
    return {name: json.loads(msgspec.json.encode(getattr(event, name))) for name in event.__struct_fields__}


def shape(what: dict[str, Any]) -> tuple[int, int]:
    """How many fields an event has, and its usage, which is written as an array."""
    return len(what), len(what.get("usage", ()))


def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else []
    if os.environ.get("ASTERISM_WRITE_GOLDEN"):
        known = {(row["kind"], shape(row["what"])) for row in found}
        for name, kind in KINDS.items():
            found += [
                {"kind": name, "body": encode_events((one,)).hex(), "what": told(one)}
                for one in samples(kind)
                if (name, shape(told(one))) not in known
            ]
        lines = ",\n".join(json.dumps(row, sort_keys=True, separators=(",", ":")) for row in found)
        GOLDEN.write_text(f"[\n{lines}\n]\n")
    return found


ROWS = rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["kind"])
def test_an_event_of_any_release_is_read_as_it_was_meant(row: dict[str, Any]) -> None:
    (found,) = decode_events(bytes.fromhex(row["body"]))
    assert type(found).__name__ == row["kind"]
    now = told(found)
    if "usage" in row["what"]:
        now["usage"], grown = now["usage"][: len(row["what"]["usage"])], now["usage"][len(row["what"]["usage"]) :]
        assert not any(grown)
    assert {name: now[name] for name in row["what"]} == row["what"]
    for field in msgspec.structs.fields(type(found)):  # what was not written then has its default
        if field.name not in row["what"]:
            assert getattr(found, field.name) == (
                field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            )


def test_every_kind_of_event_has_a_row_with_all_its_fields() -> None:
    written = {(row["kind"], shape(row["what"])) for row in ROWS}
    missing = {name for name, kind in KINDS.items() if (name, shape(told(samples(kind)[0]))) not in written}
    assert missing == set(), "ASTERISM_WRITE_GOLDEN=1 python -m pytest tests/golden/test_event.py adds rows"


@pytest.mark.parametrize("name", KINDS)
def test_the_samples_survive_their_encoding(name: str) -> None:
    for one in samples(KINDS[name]):
        assert decode_events(encode_events((one, one))) == (one, one)
