"""`asterism journal` on the file of a server that runs, and of one that is stopped."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.event_codec import decode_events
from orchestrator.journal.archive import Archive
from orchestrator.journal.recovery import records
from tests.integration.test_command import Shell

PLAN = {
    "tasks": [
        {"id": "a", "skill": "flow.echo", "args": {"value": "x" * 70_000}},
        {"id": "b", "skill": "flow.echo", "args": {"value": 2}, "after": ["a"]},
    ],
    "outputs": [{"name": "b", "ref": "b"}],
}


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    made = Shell(tmp_path, tmp_path / "home")
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    yield made
    if (tmp_path / "home" / "server.json").exists():
        made.run("server", "stop")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_journal_is_looked_at_checked_and_copied_while_its_server_runs_and_after(shell: Shell) -> None:
    for _ in range(2):
        assert shell.run("run", "-f", str(shell.folder / "plan.json")).returncode == 0
    about = shell.json("journal", "info")
    assert (about["runs"], about["epoch"], about["schema_version"]) == (2, 1, 3)
    assert about["events"] == about["last_seq"]
    assert about["journal"] == shell.json("server", "info")["journal"]
    checked = shell.json("journal", "verify", "--artifacts")
    assert checked["sound"]
    assert checked["artifacts"] == 1
    rows = lines(shell.run("journal", "export", "--run", "r1").stdout)
    assert {row["run"] for row in rows} == {"r1"}
    (ended,) = [row for row in rows if row["kind"] == "attempt_ended" and row["task"] == "b"]
    assert ended["value"] == {"value": 2}
    everything = shell.run("journal", "export").stdout
    with Archive(shell.home / "server" / "journal.db") as archive:
        events = [event for record in records(archive) for event in decode_events(record.body)]
    hashes = {found for event in events if (found := getattr(event, "secret_hash", ""))}
    assert hashes
    assert not [one for one in hashes if one in everything]
    assert "secret_hash" not in everything
    assert len(lines(everything)) == about["events"]
    assert lines(shell.run("journal", "export", "--after", "5").stdout)[0]["seq"] == 6
    copy = shell.folder / "copy" / "server" / "journal.db"
    told = shell.json("journal", "export", "--to", str(copy))
    assert told["last_seq"] >= about["last_seq"]
    assert shell.json("journal", "verify", "--home", str(shell.folder / "copy"))["sound"]
    assert shell.run("journal", "export", "--to", str(copy)).returncode == 2
    shell.run("server", "stop")
    assert shell.json("journal", "info")["snapshot"]["usable"]
    assert shell.json("journal", "verify")["sound"]
    with sqlite3.connect(copy) as file:
        file.execute("UPDATE event SET body = zeroblob(4) WHERE seq = 4")
    file.close()
    found = shell.json("journal", "verify", "--home", str(shell.folder / "copy"), code=1)
    assert (found["sound"], found["first_bad"]) == (False, 4)
    missing = shell.json("journal", "info", "--home", str(shell.folder / "nowhere"), code=3)
    assert missing["error"]["code"] == "NotFound"


def test_a_journal_that_a_newer_build_wrote_is_refused_with_exit_code_9_and_the_way_out(shell: Shell) -> None:
    assert shell.run("run", "-f", str(shell.folder / "plan.json")).returncode == 0
    shell.run("server", "stop")
    with sqlite3.connect(shell.home / "server" / "journal.db") as file:
        file.execute("UPDATE meta SET value = '99' WHERE key = 'body'")
    file.close()
    for words in (("journal", "info"), ("journal", "verify"), ("journal", "export")):
        refused = shell.json(*words, code=9)["error"]
        assert refused["code"] == "VersionMismatch"
        assert "newer asterism" in refused["hint"]
    started = shell.start("server", "start", "-o", "json")
    out, _ = started.communicate(timeout=60)
    assert started.returncode == 9, out
    checks = {check["name"]: check for check in shell.json("doctor", code=1)["checks"]}
    assert (checks["journal"]["level"], "newer asterism" in checks["journal"]["fix"]) == ("error", True)
