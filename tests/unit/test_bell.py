"""A bell: no ring is lost, and whoever waits lets everybody else of this turn speak first."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from protocol.bell import Bell

pytestmark = pytest.mark.anyio


async def test_any_number_of_rings_before_a_wait_are_one() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    await bell.wait()
    with anyio.move_on_after(0) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_a_ring_between_two_waits_is_not_lost_unless_it_is_stilled() -> None:
    bell, heard = Bell(), []

    async def listen() -> None:
        while len(heard) < 2:
            await bell.wait()
            heard.append(len(heard))
            if len(heard) == 1:
                bell.ring()

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await anyio.lowlevel.checkpoint()
        bell.ring()
    assert heard == [0, 1]
    bell.ring()
    bell.still()
    with anyio.move_on_after(0) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_what_is_ready_in_this_turn_is_there_when_the_wait_returns() -> None:
    bell, ready = Bell(), []

    async def bring(what: int) -> None:
        ready.append(what)
        bell.ring()

    async with anyio.create_task_group() as group:
        for what in range(3):
            group.start_soon(bring, what)
        bell.ring()  # rung already: the others still get their turn
        await bell.wait()
        assert ready == [0, 1, 2]


async def test_a_wait_that_is_cancelled_leaves_the_bell_as_it_was() -> None:
    bell = Bell()
    with anyio.move_on_after(0):
        await bell.wait()
    bell.ring()
    with anyio.fail_after(1):
        await bell.wait()
