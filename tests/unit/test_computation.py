"""A thread that computes lets the loop go on, and what was set for it does not stay."""

from __future__ import annotations

import asyncio
import sys

import anyio
import pytest

from orchestrator.computation import SWITCH_S, computed

pytestmark = pytest.mark.anyio
TURNS = 40


async def test_the_loop_goes_first_while_a_thread_computes() -> None:
    usual, seen, over, steps = sys.getswitchinterval(), list[float](), False, 0

    def compute() -> int:
        nonlocal steps
        while not over:
            steps += 1
        return steps

    async def turn() -> None:
        nonlocal over
        while not steps:  # noqa: ASYNC110 - the thread says so by counting
            await asyncio.sleep(0)
        for _ in range(TURNS):  # each time the loop polls, the thread has the interpreter
            await asyncio.sleep(0)
        seen.append(sys.getswitchinterval())
        over = True

    async with anyio.create_task_group() as group:
        group.start_soon(turn)
        assert await computed(compute) == steps
    assert seen == [pytest.approx(SWITCH_S)]
    assert sys.getswitchinterval() == usual


async def test_the_last_of_several_sets_it_back_also_where_one_fails() -> None:
    usual, going = sys.getswitchinterval(), asyncio.Event()

    async def fails() -> None:
        with pytest.raises(ZeroDivisionError):
            await computed(lambda: 1 // 0)
        assert sys.getswitchinterval() < usual
        going.set()

    loop = asyncio.get_running_loop()
    async with anyio.create_task_group() as group:
        group.start_soon(fails)
        await computed(lambda: asyncio.run_coroutine_threadsafe(going.wait(), loop).result())
    assert sys.getswitchinterval() == usual
