"""Versions of journal bodies: older ones are lifted step by step, newer ones refused, nothing is guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from orchestrator.core import event as e
from orchestrator.core.event_codec import decode_events, encode_events
from orchestrator.journal.form import FORM, Form
from orchestrator.journal.journal import Record
from orchestrator.journal.recovery import recover
from orchestrator.journal.sqlite import SqliteJournal
from protocol.errors import JournalCorrupt, VersionMismatch


class Quiet:
    def disk_full(self, full: bool) -> None: ...

    def failed(self, error: Exception) -> None: ...


def renamed(event: list[Any]) -> list[Any]:
    """Version 1 called it WorkerJoined."""
    return ["WorkerEnrolled", *event[1:]]


def split(event: list[Any]) -> list[Any]:
    """Version 2 kept the name as [site, host]."""
    kind, worker, name, *rest = event
    return [kind, worker, "-".join(name), *rest]


THREE = Form(3, {("WorkerJoined", 1): renamed, ("WorkerEnrolled", 2): split})


def body(*events: list[Any]) -> bytes:
    return msgspec.msgpack.encode(events)


def test_todays_body_passes_untouched() -> None:
    raw = encode_events((e.RunRemoved(1),))
    assert FORM.lift(1, FORM.version, raw) is raw


def test_an_old_body_takes_every_step_that_its_kind_has() -> None:
    old = body(["WorkerJoined", 1, ["attic", "pi"], "hash"], ["RunRemoved", 4])
    assert decode_events(THREE.lift(1, 1, old)) == (e.WorkerEnrolled(1, "attic-pi", "hash"), e.RunRemoved(4))
    assert decode_events(THREE.lift(1, 2, body(["WorkerEnrolled", 1, ["a", "b"], "h"]))) == (
        e.WorkerEnrolled(1, "a-b", "h"),
    )


def test_a_newer_body_is_refused_with_the_way_out() -> None:
    with pytest.raises(VersionMismatch, match="record 9 has version 2") as refused:
        FORM.lift(9, 2, b"")
    assert (refused.value.exit_code, "newer asterism" in refused.value.hint) == (9, True)


@pytest.mark.parametrize("raw", [b"", b"\xc1", body([]), body(["WorkerEnrolled"]), b"\x01"])
def test_a_body_that_no_version_made_names_its_record(raw: bytes) -> None:
    with pytest.raises(JournalCorrupt) as refused:
        THREE.lift(5, 1, raw)
    assert refused.value.where == "5"


def test_a_journal_of_mixed_versions_replays(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db", form=THREE)
        journal.start(Quiet())
        rows = [
            (1, ["EpochStarted", 1, journal.id]),
            (1, ["WorkerJoined", 1, ["attic", "pi"], "h1"]),
            (2, ["WorkerEnrolled", 2, ["cellar", "pi"], "h2"]),
            (3, ["WorkerEnrolled", 3, "hall-pi", "h3"]),
        ]
        records = [Record(seq, 0, raw[0], 1.0, body(raw), v) for seq, (v, raw) in enumerate(rows, 1)]
        await journal.append(records).wait()
        found = recover(journal)
        assert [one.name for one in found.state.workers.values()] == ["attic-pi", "cellar-pi", "hall-pi"]
        await journal.aclose()

    anyio.run(main)
