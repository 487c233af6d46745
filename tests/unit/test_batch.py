"""Several tasks in one call: when a call leaves, who joins it, and what each of them comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from protocol.errors import UsageError
from protocol.ids import AttemptId
from protocol.resource import Resources
from protocol.skill import SkillSpec
from workers.context import SkillContext
from workers.file import File
from workers.runner.batch import Batcher
from workers.skill import skill


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Stage:
    """A batcher and its calls; each waits until it is told to go on, where `open` is not set."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.begun = anyio.Event()
        self.open = anyio.Event()
        self.ended: list[int] = []
        self.results: dict[int, Any] = {}

    async def call(self, x: list[int]) -> list[Any]:
        self.calls.append(x)
        self.begun.set()
        await self.open.wait()
        if 13 in x:
            raise RuntimeError("thirteen")
        self.ended.extend(x)
        return [ValueError("seven") if one == 7 else one * 10 for one in x]

    async def join(self, batcher: Batcher, x: int) -> None:
        try:
            self.results[x] = (await batcher.join({"x": x}, AttemptId(1, x, 1)))[0]
        except (ValueError, RuntimeError) as error:
            self.results[x] = str(error)


@asynccontextmanager
async def batcher(call: Callable[..., Any], size: int, wait_s: float, *, is_async: bool = True) -> AsyncIterator[Any]:
    made = Batcher(call, SkillSpec("x", batch=size, batch_wait_s=wait_s), is_async=is_async, begins=lambda _: None)
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        yield made
        group.cancel_scope.cancel()


async def join_all(stage: Stage, made: Batcher, *elements: int) -> None:
    async with anyio.create_task_group() as group:
        for x in elements:
            group.start_soon(stage.join, made, x)


@pytest.mark.anyio
async def test_a_call_leaves_when_it_is_full_however_long_it_might_wait() -> None:
    stage = Stage()
    stage.open.set()
    async with batcher(stage.call, 3, 1_000.0) as made:
        await join_all(stage, made, 1, 2, 3)
    assert stage.calls == [[1, 2, 3]]
    assert stage.results == {1: 10, 2: 20, 3: 30}


@pytest.mark.anyio
async def test_elements_that_name_other_arguments_go_with_their_like() -> None:
    calls: list[tuple[list[int], list[int] | None]] = []

    async def call(x: list[int], top: list[int] | None = None) -> list[int]:
        calls.append((x, top))
        return [one + extra for one, extra in zip(x, top or [0] * len(x), strict=True)]

    found: dict[int, int] = {}
    async with batcher(call, 4, 0.0) as made:

        async def join(**arguments: int) -> None:
            found[arguments["x"]] = (await made.join(arguments, AttemptId(1, arguments["x"], 1)))[0]

        async with anyio.create_task_group() as group:
            for arguments in ({"x": 1}, {"x": 2, "top": 100}, {"x": 3}, {"x": 4, "top": 200}):
                group.start_soon(lambda given=arguments: join(**given))
    assert calls == [([1, 3], None), ([2, 4], [100, 200])]
    assert found == {1: 1, 2: 102, 3: 3, 4: 204}


@pytest.mark.anyio
async def test_a_call_leaves_with_fewer_once_it_has_waited_long_enough() -> None:
    stage = Stage()
    stage.open.set()
    async with batcher(stage.call, 100, 0.0) as made:
        await join_all(stage, made, 1, 2)
    assert sorted(one for call in stage.calls for one in call) == [1, 2]


@pytest.mark.anyio
async def test_while_a_call_runs_the_next_elements_gather() -> None:
    stage = Stage()
    async with batcher(stage.call, 3, 0.0) as made, anyio.create_task_group() as group:
        group.start_soon(stage.join, made, 1)
        await stage.begun.wait()
        for x in (2, 3, 4, 5):
            group.start_soon(stage.join, made, x)
        await anyio.wait_all_tasks_blocked()
        stage.open.set()
    assert stage.calls == [[1], [2, 3, 4], [5]]


@pytest.mark.anyio
async def test_an_element_fails_alone_by_its_entry_and_by_what_the_call_raises() -> None:
    stage = Stage()
    stage.open.set()
    async with batcher(stage.call, 6, 1_000.0) as made:
        await join_all(stage, made, 1, 7, 13, 4, 5, 6)
    assert stage.results == {1: 10, 7: "seven", 13: "thirteen", 4: 40, 5: 50, 6: 60}
    assert stage.calls == [[1, 7, 13, 4, 5, 6], [1, 7, 13], [1], [7, 13], [7], [13], [4, 5, 6]]


@pytest.mark.anyio
async def test_one_that_is_cancelled_leaves_and_the_others_stay() -> None:
    stage = Stage()
    scopes = {x: anyio.CancelScope() for x in range(1, 5)}

    async def join(made: Batcher, x: int) -> None:
        with scopes[x]:
            await stage.join(made, x)

    async with batcher(stage.call, 2, 1_000.0) as made, anyio.create_task_group() as group:
        for x in (1, 2, 3):
            group.start_soon(join, made, x)
        await stage.begun.wait()  # 1 and 2 run, 3 waits
        await anyio.wait_all_tasks_blocked()
        scopes[1].cancel()
        scopes[3].cancel()
        group.start_soon(join, made, 4)
        await anyio.wait_all_tasks_blocked()
        assert scopes[1].cancelled_caught
        assert scopes[3].cancelled_caught
        stage.open.set()
        await anyio.wait_all_tasks_blocked()
        assert stage.results == {2: 20}  # what 1 came to is nobody's
        assert stage.calls == [[1, 2]]  # 3 has left before a call, 4 waits for another
        scopes[4].cancel()


@pytest.mark.anyio
async def test_the_last_one_that_is_cancelled_ends_the_call_and_others_go_on() -> None:
    stage = Stage()
    scopes = {1: anyio.CancelScope(), 2: anyio.CancelScope()}

    async def join(made: Batcher, x: int) -> None:
        with scopes[x]:
            await stage.join(made, x)

    async with batcher(stage.call, 2, 1_000.0) as made, anyio.create_task_group() as group:
        group.start_soon(join, made, 1)
        group.start_soon(join, made, 2)
        await stage.begun.wait()
        for scope in scopes.values():
            scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert stage.ended == []
        stage.open.set()
        await join_all(stage, made, 5, 6)
    assert stage.results == {5: 50, 6: 60}


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [None, "ab", [1, 2, 3]])
async def test_an_answer_that_is_no_list_of_that_length_fails_all_of_them(answer: Any) -> None:
    async with batcher(lambda x: answer, 2, 1_000.0, is_async=False) as made:
        errors: list[UsageError] = []

        async def join(x: int) -> None:
            try:
                await made.join({"x": x}, AttemptId(1, x, 1))
            except UsageError as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(join, 1)
            group.start_soon(join, 2)
    assert len(errors) == 2


def test_a_batched_skill_is_described_by_one_element_and_takes_no_slot() -> None:
    @skill(effect="pure", batch=8, batch_wait="5ms", needs=Resources(gpu=0.125))
    def embed(text: list[str], k: list[int]) -> list[dict[str, int] | ValueError]:
        return [{text[0]: k[0]}]

    assert embed.spec.params["properties"] == {"text": {"type": "string"}, "k": {"type": "integer"}}
    assert embed.spec.result == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert (embed.spec.batch, embed.spec.batch_wait_s) == (8, 0.005)
    assert embed.spec.variants[0].needs.amounts() == {"gpu": 0.125}
    assert embed(["a"], [2]) == [{"a": 2}]


def test_what_can_not_be_called_for_several_tasks_at_once_is_refused() -> None:
    def lists(x: list[int]) -> list[int]:
        return x

    def plain(x: int) -> int:
        return x

    def context(x: list[int], ctx: SkillContext) -> list[int]:
        return x

    def files(x: list[int]) -> list[File]:
        return []

    def nothing() -> list[int]:
        return []

    wrong: list[tuple[Any, dict[str, Any]]] = [
        (plain, {}), (context, {}), (files, {}), (nothing, {}), (lists, {"effect": "once"}), (lists, {"spawns": True}),
        (lists, {"batch": 5_000}), (lists, {"batch": -1}),
    ]  # fmt: skip
    for function, more in wrong:
        with pytest.raises(UsageError):
            skill(**{"effect": "pure", "batch": 4, **more})(function)
