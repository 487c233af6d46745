"""Run time never goes back; virtual time moves only when told; a network's script is the same for the same seed."""

from __future__ import annotations

import anyio
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.service.query import clock_warnings
from protocol.clock import RunClock, VirtualClock
from protocol.pipe import Pipe, Weather


def test_run_time_starts_no_earlier_than_the_journal_and_follows_elapsed_time() -> None:
    wall, elapsed = 1000.0, 5.0
    clock = RunClock(1500.0, lambda: wall, lambda: elapsed)
    assert clock.now() == 1500.0
    elapsed = 7.5
    wall = 0.0  # somebody set the wall clock back
    assert clock.now() == 1502.5
    assert RunClock(10.0, lambda: 1000.0, lambda: 0.0).now() == 1000.0


def test_run_time_goes_on_over_restarts_wherever_the_wall_clock_was_set_meanwhile() -> None:
    """Each start as (wall clock, seconds it then runs)."""
    last = wall = since = 0.0

    def read_wall() -> float:
        return wall

    def read_since() -> float:
        return since

    for wall, runs_s in [(1000.0, 50.0), (400.0, 10.0), (1e9, 5.0), (2000.0, 5.0), (1e9 + 60.0, 1.0)]:
        clock = RunClock(last, read_wall, read_since)
        assert clock.now() == max(wall, last)
        since += runs_s
        assert clock.now() == max(wall, last) + runs_s
        last = clock.now()
    assert last == 1e9 + 61.0


def test_a_step_of_the_wall_clock_does_not_move_run_time_and_a_sleep_of_the_machine_does() -> None:
    wall, since = 1000.0, 0.0
    clock = RunClock(0.0, lambda: wall, lambda: since)
    for wall in (5000.0, -5000.0, 1000.0):  # noqa: B007 what NTP does
        since += 1.0
        assert clock.now() == 1000.0 + since
    since += 3600.0  # CLOCK_BOOTTIME counts it
    assert clock.now() == 1000.0 + since
    since -= 10.0  # no clock should; run time stands still then
    assert clock.now() == 1000.0 + since + 10.0


def test_a_person_is_told_when_run_time_and_wall_clock_are_apart() -> None:
    assert clock_warnings(1.0) == clock_warnings(-59.0) == ()
    assert "86,400 s ahead of the wall clock" in clock_warnings(86_400.0)[0]
    assert "120 s behind" in clock_warnings(-120.0)[0]


@given(st.lists(st.floats(-1e6, 1e6)))
def test_run_time_never_goes_back(readings: list[float]) -> None:
    source = iter([0.0, *readings])
    clock = RunClock(0.0, lambda: 100.0, lambda: next(source))
    times = [clock.now() for _ in readings]
    assert times == sorted(times)
    assert all(at >= 100.0 for at in times)


def test_real_clocks_move_forward() -> None:
    clock = RunClock()
    assert clock.now() <= clock.now()


def test_virtual_events_fire_in_time_order_and_ties_as_scheduled() -> None:
    clock = VirtualClock(100.0)
    told: list[tuple[str, float]] = []
    clock.call_at(103.0, lambda: told.append(("late", clock.now())))
    clock.call_at(101.0, lambda: told.append(("first", clock.now())))
    clock.call_at(101.0, lambda: told.append(("second", clock.now())))
    clock.call_in(0.5, lambda: clock.call_in(1.0, lambda: told.append(("made on the way", clock.now()))))
    clock.call_at(0.0, lambda: told.append(("overdue", clock.now())))
    clock.run_until(102.0)
    assert told == [("overdue", 100.0), ("first", 101.0), ("second", 101.0), ("made on the way", 101.5)]
    assert clock.now() == 102.0
    assert clock.next_at == 103.0
    assert clock.step()
    assert not clock.step()
    assert (told[-1], clock.now()) == (("late", 103.0), 103.0)


def test_tasks_can_sleep_in_virtual_time() -> None:
    async def main() -> list[float]:
        clock, woke = VirtualClock(0.0), list[float]()

        async def sleeper(at: float) -> None:
            await clock.sleep_until(at)
            woke.append(at)

        async with anyio.create_task_group() as group:
            for at in (3600.0, 60.0, 0.0):
                group.start_soon(sleeper, at)
            await anyio.wait_all_tasks_blocked()
            while clock.step():
                await anyio.wait_all_tasks_blocked()
        return woke

    assert anyio.run(main) == [0.0, 60.0, 3600.0]


def test_a_clear_network_delivers_everything_at_once_in_order() -> None:
    pipe = Pipe[int]("to_server")
    for k in range(5):
        pipe.push(k, 1.0)
    assert pipe.next_at == 1.0
    assert pipe.pull(1.0) == [0, 1, 2, 3, 4]
    assert pipe.next_at is None


def test_a_bad_network_loses_doubles_and_reorders_and_the_seed_replays_it() -> None:
    def run(seed: int) -> list[int]:
        pipe = Pipe[int]("to_server", Weather(loss=0.2, double=0.2, late=0.5).fate(seed))
        for k in range(200):
            pipe.push(k, k * 0.001)
        return pipe.pull(10.0)

    got = run(1)
    assert got == run(1) != run(2)
    assert set(got) < set(range(200))
    assert len(got) > len(set(got))
    assert got != sorted(got)
