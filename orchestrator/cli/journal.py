"""`journal info | verify | export`: looks at the journal's file itself, whether its server runs or not.

No server is asked or started, and nothing in the file changes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from protocol.config import load
from protocol.errors import UsageError
from protocol.event_row import event_report
from protocol.outcome import Success
from protocol.report import SCHEMA
from protocol.security import home as home_folder

from ..core.event import Event, run_of
from ..core.event_codec import decode_events
from ..core.state import State
from ..journal.archive import Archive
from ..journal.recovery import Recovered, records, replay
from ..service.audit import audit
from ..service.lookup import worker_name
from . import show
from .option import RunParam, output_option

F = TypeVar("F", bound=Callable[..., Any])


def home_option(command: F) -> F:
    return click.option(
        "--home", type=click.Path(file_okay=False, path_type=Path), help="The server's folder, else ASTERISM_HOME."
    )(command)


def _server_folder(home: Path | None) -> Path:
    return (home or Path(load().settings.home or home_folder())).expanduser() / "server"


def _open(home: Path | None) -> Archive:
    return Archive(_server_folder(home) / "journal.db")


@click.command()
@home_option
@output_option("json")
def info(home: Path | None, output: str) -> None:
    """Show what the journal is and holds: identity, versions, events, size, how much of it a snapshot covers."""
    with _open(home) as archive:
        counts, (seq, at) = archive.counts(), archive.last()
        covered = int(archive.meta.get("snapshot_seq", 0))
        layout = archive.meta.get("snapshot_layout", "")
        found: dict[str, Any] = {
            "path": str(archive.path),
            "journal": archive.id,
            "epoch": archive.epoch,
            "schema_version": int(archive.meta["schema"]),
            "body_version": int(archive.meta.get("body", 1)),
            "records": counts["event"],
            "events": seq - sum(last - first + 1 for first, last in archive.gaps().items()),
            "last_seq": seq,
            "last_at": at or None,
            "runs": sum(1 for run in archive.runs() if run and run not in archive.removed()),
            "removed_runs": counts["removal"],
            "size_bytes": archive.size_bytes(),
            "snapshot": {
                "seq": covered,
                "tail_records": archive.tail(),
                "usable": bool(covered) and layout == State.layout(),
            },
            "tables": counts,
        }
    if output == "json":
        show.json_value({"schema": SCHEMA, **found})
        return
    snapshot = found["snapshot"]
    usable = "" if snapshot["usable"] else ", of no use to this build"
    behind = f"up to event {covered}, {snapshot['tail_records']} records behind it{usable}"
    words = {
        "last_at": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "never",
        "size_bytes": show.size(found["size_bytes"]),
        "snapshot": behind if covered else "none",
        "tables": ", ".join(f"{name} {count}" for name, count in counts.items()),
    }
    rows = [(key.replace("_", " ").removesuffix(" bytes"), words.get(key, value)) for key, value in found.items()]
    show.table((("what", lambda row: row[0]), ("is", lambda row: row[1])), rows)


@click.command()
@home_option
@click.option("--artifacts", is_flag=True, help="Also read every artifact that a run needs, and check its digest.")
@output_option("json")
def verify(home: Path | None, artifacts: bool, output: str) -> None:
    """Read every record and check it: checksum, number, form, and that replay and snapshot tell the same.

    Names the first bad record and exits 1 if anything is wrong.
    """
    with _open(home) as archive:
        found = audit(archive, _server_folder(home) / "artifacts" if artifacts else None)
    if output == "json":
        show.json_value({"schema": SCHEMA, "sound": found.sound, **msgspec.to_builtins(found)})
    else:
        for defect in found.defects:
            click.echo(f"FAIL {defect.code}: {defect.message}")
        for note in found.notes:
            click.echo(f"note {note}")
        checked = f"{show.many(found.events, 'event')} of {show.many(found.runs, 'run')}"
        more = f", {show.many(found.artifacts, 'artifact')}" if artifacts else ""
        click.echo(f"{'sound' if found.sound else 'not sound'}: {checked}{more}")
    if not found.sound:
        if output != "json":
            show.say("  fix: restore the journal from a copy (asterism journal export --to made one?)")
        click.get_current_context().exit(1)


@click.command()
@home_option
@click.option("--run", type=RunParam(), help="Only events of this run.")
@click.option("--after", type=click.IntRange(0), default=0, metavar="SEQ", help="Only events numbered above this.")
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), help="Instead, make a whole copy at this file.")
@output_option("json")
def export(home: Path | None, run: int | None, after: int, to: Path | None, output: str) -> None:
    """Write the events out, one JSON object a line; or, with --to, copy the whole journal, also from a running server.

    Hashes of credentials are left out of the lines. The copy holds everything.
    """
    with _open(home) as archive:
        if to is not None:
            if run is not None or after:
                raise UsageError("a copy holds every event", hint="leave out --run and --after, or --to")
            archive.copy_to(to)
            show.say(f"copied {archive.path} up to event {archive.last()[0]} to {to}")
            show.say("a server that is started on it goes on under a higher epoch; see docs/how-to/recover.md")
            if output == "json":
                show.json_value({"schema": SCHEMA, "journal": archive.id, "to": str(to), "last_seq": archive.last()[0]})
            return
        if run == 0:
            run = max((one for one in archive.runs() if one not in archive.removed()), default=0)
        for row in _rows(archive, run, after):
            show.json_line(row)
    sys.stdout.flush()


def _rows(archive: Archive, run: int | None, after: int) -> Iterator[dict[str, Any]]:
    """What `events` shows, and the value of a result. Names of tasks and workers are as of each event."""
    removed = archive.removed()
    made = Recovered(State.restore({}, removed), 0, 0.0, 0, {}, {})
    for record in records(archive):
        replay(made, record, removed)
        if (run is not None and record.run != run) or made.seq <= after:
            continue
        for offset, event in enumerate(decode_events(record.body)):
            if record.seq + offset > after:
                yield _row(made.state, event, record.seq + offset, record.at)


def _row(state: State, event: Event, seq: int, at: float) -> dict[str, Any]:
    run = state.runs.get(run_of(event))

    def task_of(index: int) -> str:
        return run.name_of(run.tasks[index]) if run is not None and index < len(run.tasks) else str(index)

    def worker_of(worker: int) -> str:
        record = state.workers.get(worker)
        return (worker_name(state, run, worker) if run is not None else record.name if record else "") or str(worker)

    row = event_report(event, seq=seq, at=at, task_of=task_of, worker_of=worker_of)
    outcome = getattr(event, "outcome", None)
    if isinstance(outcome, Success):
        value = outcome.value
        row["value"] = msgspec.Raw(value) if isinstance(value, bytes) else msgspec.structs.asdict(value)
    return row
