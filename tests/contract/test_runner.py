"""One suite for every runner: what a job may rely on, however its calls are made."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from protocol.artifact import ArtifactRef
from protocol.errors import NotAllowed, NotFound, SchemaMismatch
from protocol.frame import Assign, Input, StagedFile, WorkSpec
from protocol.ids import AttemptId, Fence
from protocol.outcome import Success
from protocol.skill import SkillSpec
from workers.context import AsyncSkillContext, Situation, SkillContext
from workers.file import File
from workers.registry import Entry, Source
from workers.root import Root, Roots
from workers.runner.failure import failure_of
from workers.runner.inline import InlineRunner
from workers.runner.job import Desk, outcome_of, prepare
from workers.runner.python import AsyncPythonRunner, PythonRunner
from workers.skill import skill


class Pipe:
    """A wire that answers at once and remembers."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, Any]] = []
        self.answers: dict[str, bytes] = {}

    def ask(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        self.asked.append((k, what, msgspec.json.decode(body)))
        return self.answers.get(what, b"null")

    async def ask_async(self, attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        return self.ask(attempt, k, what, body)

    def note(self, attempt: AttemptId, body: bytes) -> None:
        self.asked.append((0, "progress", msgspec.json.decode(body)))

    def log(self, attempt: AttemptId, text: str) -> None:
        self.asked.append((0, "log", text))


class Stage:
    """A folder, its roots, and a way to run a function under one of the runners."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.kind = kind
        self.pipe = Pipe()
        self.paths: dict[str, str] = {}
        self.desk: Desk | None = None
        self.roots = Roots("pi-1", [Root(os.path.realpath(folder))])

    def entry(self, function: Callable[..., Any], **settings: Any) -> Entry:
        made = skill(**{"effect": "pure", **settings})(_as_coroutine(function) if self.kind != "python" else function)
        spec = msgspec.structs.replace(made.spec, inline=self.kind == "inline")
        return Entry(spec, dict(made.variants), made.signature, Source("builtin", ""), is_async=made.is_async)

    def run(self, function: Callable[..., Any], args: Any = None, **more: Any) -> bytes:
        settings = {key: more.pop(key) for key in ("effect", "name", "begin_effect") if key in more}
        entry = self.entry(function, **settings)
        work = WorkSpec(entry.spec.name, "", msgspec.Raw(msgspec.json.encode(args or {})), effect=entry.spec.effect)
        assign = Assign(
            AttemptId(1, 1, 1), Fence(1, 1), b"", msgspec.json.encode(work), "r1/a#1", idempotency_key="key", **more
        )

        def locate(digest: str) -> str:
            if digest not in self.paths:
                raise NotFound(digest)
            return self.paths[digest]

        if self.kind == "inline":
            value = InlineRunner(lambda name: entry).start(assign, work, locate)
            return anyio.run(_wait, value) if not isinstance(value, bytes) else value
        job = prepare(entry, assign, work, locate)
        desk = self.desk = Desk(assign, self.roots, str(self.folder), locate)
        situation = Situation(
            assign, "cpu", str(self.folder), str(self.folder), self.roots, time.monotonic() + 9, desk.uri
        )
        if self.kind == "python":
            return PythonRunner().run(job, SkillContext(self.pipe, situation), desk)
        return anyio.run(AsyncPythonRunner().run, job, AsyncSkillContext(self.pipe, situation), desk)


async def _wait(value: Any) -> bytes:
    found: bytes = await value
    return found


def _as_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    import functools

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return awaited


@pytest.fixture(params=["python", "async", "inline"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(tmp_path, request.param)


@pytest.fixture(params=["python", "async"])
def hosted(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(tmp_path, request.param)


def add(a: int, b: int = 1) -> int:
    return a + b


def broken(a: int) -> int:
    raise ZeroDivisionError(a)


def lies(a: int) -> int:
    return "no number"  # type: ignore[return-value]


def read(file: File) -> dict[str, str]:
    return {"text": file.read_text(), "uri": file.uri}


def give_back(file: File) -> File:
    return file


def make(name: str) -> File:
    return File(name)


def test_value_comes_back_as_json(stage: Stage) -> None:
    assert stage.run(add, {"a": 2, "b": 3}) == b"5"
    assert stage.run(add, {"a": 2}) == b"3"


def test_items_are_called_one_by_one_into_a_list(stage: Stage) -> None:
    items = tuple((Input("x[]", str(n).encode()),) for n in (1, 2, 3))
    assert stage.run(add, {"a": {"ref": "x[]"}, "b": 10}, items=items) == b"[11,12,13]"


def test_parts_of_a_manifest_are_joined_and_flattened(stage: Stage) -> None:
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    args = {"numbers": {"ref": "p"}}
    assert stage.run(total, args, inputs=(Input("p", parts=(b"1", b"2")),)) == b"3"
    assert stage.run(total, args, inputs=(Input("p", parts=(b"[1,2]", b"[3]"), flat=True),)) == b"6"


def test_artifact_is_read_from_its_local_file_and_pointed_into(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(b'{"a": [7, 8]}')
    digest = "sha256:" + "0" * 64
    stage.paths[digest] = str(tmp_path / "value")
    ref = ArtifactRef(digest, "application/json", 13)
    assert stage.run(add, {"a": {"ref": "v/a/1"}}, inputs=(Input("v/a/1", ref, ("a", "1")),)) == b"9"
    with pytest.raises(NotFound):
        stage.run(add, {"a": {"ref": "v/b"}}, inputs=(Input("v/b", ref, ("b",)),))


def test_wrong_arguments_are_all_named_before_anything_runs(stage: Stage) -> None:
    ran: list[int] = []

    def never(a: int, b: int) -> int:
        ran.append(a)
        return a

    with pytest.raises(SchemaMismatch) as caught:
        stage.run(never, {"a": "x", "c": 1})
    assert len(caught.value.problems) >= 2
    assert not ran


def test_wrong_result_is_a_mismatch(stage: Stage) -> None:
    with pytest.raises(SchemaMismatch, match="result"):
        stage.run(lies, {"a": 1})


def test_exception_of_a_skill_passes_through(stage: Stage) -> None:
    with pytest.raises(ZeroDivisionError):
        stage.run(broken, {"a": 1})


def test_once_asks_first_unless_the_skill_does_so_itself(hosted: Stage) -> None:
    hosted.run(add, {"a": 1}, effect="once")
    assert hosted.pipe.asked == [(1, "begin_effect", None)]
    hosted.pipe.asked.clear()
    hosted.run(add, {"a": 1}, effect="once", begin_effect="own")
    assert not hosted.pipe.asked


def test_refused_begin_means_nothing_ran(hosted: Stage) -> None:
    ran: list[int] = []

    def act(a: int) -> int:
        ran.append(a)
        return a

    def refuse(attempt: AttemptId, k: int, what: str, body: bytes) -> bytes:
        raise NotAllowed("the lease is over")

    hosted.pipe.ask = refuse  # type: ignore[method-assign]
    with pytest.raises(NotAllowed):
        hosted.run(act, {"a": 1}, effect="once")
    assert not ran


def test_file_arguments_become_local_files_that_remember_their_uri(hosted: Stage, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "cached").write_text("moved")
    uri = hosted.roots.uri(tmp_path / "a.txt")
    assert msgspec.json.decode(hosted.run(read, {"file": uri})) == {"text": "hello", "uri": uri}
    assert msgspec.json.decode(hosted.run(read, {"file": "a.txt"})) == {"text": "hello", "uri": uri}
    digest = "sha256:" + "1" * 64
    hosted.paths[digest] = str(tmp_path / "cached")
    assert msgspec.json.decode(hosted.run(read, {"file": digest}))["text"] == "moved"
    elsewhere = "file://pi-2/photos/b.txt"
    staged = (StagedFile(elsewhere, ArtifactRef(digest, "text/plain", 5)),)
    assert msgspec.json.decode(hosted.run(read, {"file": elsewhere}, files=staged)) == {
        "text": "moved",
        "uri": elsewhere,
    }
    assert msgspec.json.decode(hosted.run(give_back, {"file": elsewhere}, files=staged)) == elsewhere
    with pytest.raises(NotAllowed):
        hosted.run(read, {"file": elsewhere})
    with pytest.raises(NotAllowed):
        hosted.run(read, {"file": "file://pi-1/etc/passwd"})


def test_a_file_that_was_named_by_its_path_may_be_fetched_by_the_name_it_is_given_back_under(
    hosted: Stage, tmp_path: Path
) -> None:
    (tmp_path / "named.txt").write_text("x")
    found = msgspec.json.decode(hosted.run(give_back, {"file": "named.txt"}))
    assert found == hosted.roots.uri(tmp_path / "named.txt")
    assert hosted.desk is not None
    assert hosted.desk.issued == [os.path.realpath(tmp_path / "named.txt")]


def test_result_files_are_issued_and_stay_below_the_roots(hosted: Stage, tmp_path: Path) -> None:
    (tmp_path / "made.txt").write_text("x")
    assert msgspec.json.decode(hosted.run(make, {"name": "made.txt"})) == hosted.roots.uri(tmp_path / "made.txt")
    assert hosted.desk is not None
    assert hosted.desk.issued == [os.path.realpath(tmp_path / "made.txt")]
    with pytest.raises(NotAllowed):
        hosted.run(make, {"name": "/etc/passwd"})
    with pytest.raises(NotFound):
        hosted.run(make, {"name": "never-made.txt"})


def test_context_numbers_its_calls_and_names_children_as_references(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "python")
    stage.pipe.answers = {"spawn": b'{"id":"a.1"}', "join": b"[5]", "ask": b'{"answer":"yes","by":"ann"}'}

    def parent(ctx: SkillContext) -> dict[str, Any]:
        child = ctx.spawn("add", a=1)
        ctx.spawn("add", a=child, file=ctx.file("f").path)
        ctx.progress(0.5)
        ctx.emit("half", done=1)
        return {"all": ctx.join(child), "said": ctx.ask("go?", ["yes", "no"]), "key": ctx.idempotency_key}

    (tmp_path / "f").write_text("")
    value = msgspec.json.decode(stage.run(parent))
    assert value == {"all": [5], "said": "yes", "key": "key"}
    assert [(k, what) for k, what, _ in stage.pipe.asked] == [
        (1, "spawn"), (2, "spawn"), (0, "progress"), (3, "emit"), (4, "join"), (5, "ask"),
    ]  # fmt: skip
    assert stage.pipe.asked[1][2]["args"] == {"a": {"ref": "a.1"}, "file": stage.roots.uri(tmp_path / "f")}


def test_large_value_is_spilled_under_its_digest(tmp_path: Path) -> None:
    assert outcome_of(b"1", str(tmp_path)) == (Success(b"1"), "")
    outcome, spill = outcome_of(b'"' + b"x" * 70_000 + b'"', str(tmp_path))
    assert isinstance(outcome, Success)
    assert isinstance(outcome.value, ArtifactRef)
    assert Path(spill).stat().st_size == outcome.value.size


class Wobbly(Exception):
    transient = True


class Forbidden(Exception):
    klass = "policy"


@pytest.mark.parametrize(
    ("error", "klass"),
    [
        (ValueError("x"), "permanent"), (TimeoutError(), "transient"), (ConnectionResetError(), "transient"),
        (Wobbly(), "transient"), (Forbidden(), "policy"), (SchemaMismatch("x"), "permanent"),
        (SystemExit(3), "permanent"), (RuntimeError("CUDA error: unspecified launch failure"), "infra"),
        (type("CUDARuntimeError", (RuntimeError,), {})("cudaErrorECCUncorrectable"), "infra"),
    ],
)  # fmt: skip
def test_what_an_exception_means(error: BaseException, klass: str) -> None:
    assert failure_of(error).klass == klass


def test_inline_runner_runs_only_what_the_registry_marks_inline(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "python")
    entry = stage.entry(add)
    work = WorkSpec("add", "", msgspec.Raw(b'{"a":1}'))
    assign = Assign(AttemptId(1, 1, 1), Fence(1, 1), b"", b"", "r1/a#1")
    with pytest.raises(NotFound):
        InlineRunner(lambda name: entry).start(assign, work, str)
    assert isinstance(entry.spec, SkillSpec)
