"""The outbox keeps every report until it is forgotten, whatever happens to the process or to the last bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.frame import Report
from protocol.ids import AttemptId, Fence
from protocol.outcome import Failure, Success
from workers.outbox import Outbox


def report(task: int, value: bytes = b"1") -> Report:
    return Report(AttemptId(1, task, 1), Fence(1, task), b"pin", Success(value))


def reopened(folder: Path) -> Outbox:
    return Outbox(folder)


def owed(outbox: Outbox) -> set[int]:
    spools = outbox.spools()
    return {attempt.task for attempt in spools.owed.get(spools.journal, {})}


def test_reports_survive_without_close_and_read_back_whole(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.adopt("j1", 4)
    failed = Report(AttemptId(1, 3, 1), Fence(1, 3), b"pin", Failure("X", "why", "infra"))
    outbox.append([report(1), report(2, b'"two"'), failed])
    again = reopened(tmp_path)
    assert owed(again) == {1, 2, 3}
    assert again.read(AttemptId(1, 2, 1)) == report(2, b'"two"')
    assert again.read(AttemptId(1, 3, 1)) == failed
    assert again.spools().epochs == {"j1": 4}


def test_forgotten_reports_do_not_come_back(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.adopt("j1", 1)
    outbox.append([report(1), report(2)])
    outbox.forget((AttemptId(1, 1, 1),))
    assert owed(reopened(tmp_path)) == {2}
    assert outbox.read(AttemptId(1, 1, 1)) is None


@pytest.mark.parametrize("cut", [1, 5, 9, 20])
def test_torn_tail_costs_only_the_torn_record_and_later_ones_are_kept(tmp_path: Path, cut: int) -> None:
    outbox = Outbox(tmp_path)
    outbox.adopt("j1", 1)
    outbox.append([report(1)])
    outbox.append([report(2)])
    path = tmp_path / "j1.log"
    path.write_bytes(path.read_bytes()[:-cut])
    again = reopened(tmp_path)
    assert owed(again) == {1}
    again.append([report(3)])
    assert owed(reopened(tmp_path)) == {1, 3}


def test_flipped_byte_is_noticed(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.adopt("j1", 1)
    outbox.append([report(1, b'"aaaa"')])
    path = tmp_path / "j1.log"
    path.write_bytes(path.read_bytes().replace(b"aaaa", b"aaab"))
    assert owed(reopened(tmp_path)) == set()


def test_journals_are_kept_apart(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.adopt("j1", 1)
    outbox.append([report(1)])
    outbox.adopt("j2", 1)
    assert outbox.read(AttemptId(1, 1, 1)) is None
    outbox.append([report(2)])
    spools = reopened(tmp_path).spools()
    assert spools.journal == "j2"
    assert {name: {a.task for a in found} for name, found in spools.owed.items()} == {"j1": {1}, "j2": {2}}


def test_journal_name_cannot_be_a_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="letters"):
        Outbox(tmp_path).adopt("../x", 1)


def test_compaction_keeps_exactly_what_is_owed(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.adopt("j1", 9)
    big = b'"' + b"x" * 60_000 + b'"'
    for task in range(100):
        outbox.append([report(task, big)])
        if task:
            outbox.forget((AttemptId(1, task, 1),))
    assert (tmp_path / "j1.log").stat().st_size < 5_000_000
    assert owed(outbox) == {0}
    again = reopened(tmp_path)
    assert owed(again) == {0}
    assert again.spools().epochs == {"j1": 9}
    assert again.read(AttemptId(1, 0, 1)) == report(0, big)


def test_sync_covers_what_was_appended_before_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.adopt("j1", 1)
    outbox.append([report(1)])
    assert outbox.dirty
    outbox.sync()
    assert not outbox.dirty


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["append", "forget", "reopen"]), st.integers(0, 6)), max_size=40),
    st.integers(0, 200),
)
def test_any_history_then_any_cut_leaves_a_prefix_of_it(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("outbox")
    outbox = Outbox(folder)
    outbox.adopt("j1", 1)
    states: list[set[int]] = [set()]
    for what, task in steps:
        state = set(states[-1])
        if what == "append":
            outbox.append([report(task)])
            state.add(task)
        elif what == "forget":
            outbox.forget((AttemptId(1, task, 1),))
            state.discard(task)
        else:
            outbox = reopened(folder)
        states.append(state)
        assert owed(outbox) == state
    path = folder / "j1.log"
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    assert owed(reopened(folder)) in states


def test_renewed_files_hold_what_is_owed_and_are_on_disk(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.adopt("j1", 3)
    outbox.append([report(1), report(2)])
    outbox.forget((report(1).attempt,))
    assert outbox.dirty
    outbox.renew()
    assert not outbox.dirty
    outbox.append([report(3)])
    outbox.close()
    again = Outbox(tmp_path)
    assert set(again.spools().owed["j1"]) == {report(2).attempt, report(3).attempt}
    assert again.spools().epochs["j1"] == 3
    again.close()
