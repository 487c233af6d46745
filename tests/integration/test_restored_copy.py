"""A server that is started on a copy of its journal: its workers know more than it does, and nothing goes wrong."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_disk import begin
from tests.integration.test_durability import TASKS, Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def exported(fleet: Fleet, *words: str) -> list[dict[str, Any]]:
    done = fleet.said("journal", "export", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def greeted(fleet: Fleet) -> bool:
    rows = (fleet.json("workers") or {"workers": []})["workers"]
    return any(row["slots"] and row["state"] == "connected" for row in rows)


def test_a_copy_begins_behind_every_epoch_that_was_seen_and_repeats_nothing_it_knows(fleet: Fleet) -> None:
    hold = fleet.folder / "ledger.hold"
    hold.touch()
    run = begin(fleet)
    copy, address = fleet.folder / "copy.db", fleet.address()
    assert fleet.said("journal", "export", "--to", str(copy)).returncode == 0
    fleet.until(lambda: fleet.done() >= 40)
    fleet.kill("server")  # what comes now is in no copy: another epoch, and more results
    fleet.server(address)
    fleet.until(lambda: greeted(fleet))  # the worker knows the second epoch; without it, it goes on with what it has
    hold.unlink()
    fleet.until(lambda: fleet.done() >= 80)
    fleet.kill("server")
    server = fleet.folder / "home" / "server"
    for end in ("-wal", "-shm"):
        (server / f"journal.db{end}").unlink(missing_ok=True)
    shutil.copy(copy, server / "journal.db")
    settled = {row["task"] for row in exported(fleet) if row["kind"] == "task_settled"}
    assert 0 < len(settled) < 80
    fleet.server(address)
    fleet.until(lambda: (fleet.json("status", run) or {}).get("state") in ("succeeded", "failed", "cancelled"), 60)
    assert fleet.json("result", run)["outputs"] == {f"o{n}": n * n for n in range(TASKS)}
    started = Counter((fleet.folder / "ledger").read_text().split("\n"))
    assert [name for name in settled if started[f"start {name[1:]}"] != 1] == []
    rows = exported(fleet)
    fences = Counter(row["fence"] for row in rows if row["kind"] == "attempt_dispatched")
    assert [fence for fence, count in fences.items() if count > 1] == []
    epochs = [row["epoch"] for row in rows if row["kind"] == "epoch_started"]
    assert epochs == [1, 2, 3], "the second was given once already, to what the copy does not know"
    assert len([row for row in rows if row["kind"] == "epoch_started" and row.get("restored")]) == 1
    assert "is a copy" in fleet.said("doctor").stdout
    assert Counter(row["task"] for row in rows if row["kind"] == "task_settled").most_common(1)[0][1] == 1
    assert fleet.json("journal", "verify", "--artifacts")["sound"]
