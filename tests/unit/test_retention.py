"""Which settled runs a server lets go by itself, and that it never touches what is needed."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.machine import Machine
from orchestrator.core.state import State
from orchestrator.engine.engine import Engine
from orchestrator.journal.memory import MemoryJournal
from orchestrator.service.retention import Retention, overdue
from protocol.config import load
from protocol.errors import ConfigInvalid
from protocol.setting import RetentionDefaults
from protocol.task import RunSettings

DAY = 86_400.0
NOW = 100 * DAY


def story(runs: int = 6, opened: tuple[int, ...] = (), **special: dict[str, Any]) -> State:
    """Run n was settled on day n; `special["r3"]` are fields of its submission."""
    state = State()
    for number in range(1, runs + 1):
        fields = special.get(f"r{number}", {})
        state.apply(e.RunSubmitted(number, "", f"k{number}", "me", RunSettings(), {}, **fields))
        if number not in opened:
            state.apply(e.RunSettled(number, "succeeded", at=number * DAY))
    return state


def test_by_default_everything_is_kept() -> None:
    assert overdue(story(), RetentionDefaults(), NOW, 10**12) == []


def test_the_oldest_go_beyond_a_number_an_age_and_a_size() -> None:
    assert overdue(story(), RetentionDefaults(keep_runs=4), NOW, 0) == [1, 2]
    assert overdue(story(), RetentionDefaults(days=97.5), NOW, 0) == [1, 2]
    assert overdue(story(), RetentionDefaults(max_bytes=1000), NOW, 1000) == []
    assert overdue(story(), RetentionDefaults(max_bytes=1000), NOW, 1001) == [1]
    assert overdue(story(), RetentionDefaults(keep_runs=1, days=99), NOW, 0) == [1, 2, 3, 4, 5]


def test_open_runs_those_that_a_kept_one_was_forked_from_and_those_with_the_label_stay() -> None:
    state = story(opened=(2,), r5={"fork_of": 1}, r3={"labels": {"keep": "yes"}})
    assert overdue(state, RetentionDefaults(keep_runs=1), NOW, 0) == [4, 5, 6]
    assert overdue(state, RetentionDefaults(days=1), NOW, 0) == [4, 5, 6]
    state.apply(e.RunRemoved(5))
    assert overdue(state, RetentionDefaults(days=1), NOW, 0) == [1, 4, 6]


def test_settings_are_read_with_their_units_and_refused_with_their_place() -> None:
    limits = load({"retention.max_bytes": "512MiB", "retention.keep_runs": 3}).settings.retention
    assert (limits.max_bytes, limits.keep_runs, limits.days) == (512 * 2**20, 3, 0.0)
    with pytest.raises(ConfigInvalid, match="max_bytes"):
        load({"retention.max_bytes": "much"})


class Collected:
    def __init__(self) -> None:
        self.times = 0
        self.done = anyio.Event()

    async def collect(self, now: float, grace_s: float, dry: bool) -> dict[str, Any]:
        self.times += 1
        self.done.set()
        return {}


def test_a_server_removes_them_through_the_core_and_sweeps_afterwards() -> None:
    async def main() -> None:
        state = story(8, opened=(8,))
        journal = MemoryJournal()
        engine = Engine(Machine(state), journal, lambda: NOW)
        journal.start(engine)
        sizes = iter([5000, 4000, 3000, 900, 900])
        swept = Collected()
        limits = RetentionDefaults(keep_runs=5, max_bytes=1000)
        retention = Retention(engine, swept, limits, lambda: next(sizes), between_s=0.0)
        async with anyio.create_task_group() as group:
            await group.start(engine.run)
            group.start_soon(retention.run)
            await swept.done.wait()
            group.cancel_scope.cancel()
        assert sorted(state.runs) == [5, 6, 7, 8]
        assert journal.removed() == {1, 2, 3, 4}
        assert swept.times == 1
        assert [record.kind for record in journal.read()].count("RunRemoved") == 4

    anyio.run(main)


def test_nothing_is_asked_of_a_full_disk() -> None:
    async def main() -> None:
        engine = Engine(Machine(story()), MemoryJournal(), lambda: NOW)
        engine.pressure.disk_full(True)
        assert await Retention(engine, Collected(), RetentionDefaults(keep_runs=1), lambda: 0).round() == 0
        assert isinstance(engine._inbox[0], s.DiskState)

    anyio.run(main)
