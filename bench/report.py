"""How a benchmark's answer is shown: a table for people. (The JSON is the answer itself.)

Invariant: no number that the answer doesn't hold. It must not know how anything was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec

from protocol.report import SCHEMA

from .metric import Spread
from .overhead import Overhead


def document(answer: Overhead) -> dict[str, object]:
    """What `-o json` prints."""
    return {"schema": SCHEMA, "bench": "overhead", **msgspec.to_builtins(answer)}


def table(answer: Overhead) -> str:
    """Aligned rows: what, median, range, runs."""
    found = aligned([("", "median", "min .. max", "runs"), *_rows(answer)], numbers=(1,))
    return "\n\n".join(filter(None, (found, _peers(answer))))


def _peers(answer: Overhead) -> str:
    """A row a peer: its own figures, and how many times faster we were beside it."""
    if not answer.peers:
        return ""
    head = ("beside us", "fan-out/s", "ours is", "layers/s", "ours is", "ms a hop", "ours is", "")
    rows = [
        (
            f"{one.title} {one.version}",
            _number(one.peer.fanout_tasks_per_s.median),
            f"x {one.times_faster['fanout']:g}",
            _number(one.peer.layered_tasks_per_s.median),
            f"x {one.times_faster['layered']:g}",
            _number(one.peer.chain_ms_per_hop.median),
            f"x {one.times_faster['chain']:g}",
            one.note,
        )
        for one in answer.peers.values()
    ]
    left = ", ".join(f"{name} ({why})" for name, why in answer.peers_missing.items())
    return aligned([head, *rows], numbers=range(1, 7)) + (f"\nnot measured: {left}" if left else "")


def aligned(rows: Sequence[Sequence[str]], numbers: Collection[int]) -> str:
    """Columns as wide as their widest cell; those in `numbers` end at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = (
        "  ".join(
            cell.rjust(width) if at in numbers else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _rows(answer: Overhead) -> Iterator[tuple[str, str, str, str]]:
    sizes = answer.sizes
    yield _row(f"fan-out of {sizes.fan_out:,}, tasks/s", answer.fanout_tasks_per_s)
    yield _row("  with its submission, tasks/s", answer.fanout_with_submit_tasks_per_s)
    yield _row(f"{sizes.layers} x {sizes.layers} layers, tasks/s", answer.layered_tasks_per_s)
    yield _row(f"chain of {sizes.chain:,}, ms a hop", answer.chain_ms_per_hop)
    yield _one(f"{sizes.large:,} tasks in one run, tasks/s", answer.large["tasks_per_s"])
    yield _one("  its time a task against the fan-out's", answer.large["time_per_task_against_fanout"])
    yield _one("  kept per finished task, bytes", answer.memory_bytes_per_task)
    for name, mib in answer.idle_mib.items():
        yield _one(f"idle {name.replace('_', ' ')}, MiB", mib)
    yield _row("asterism --help, s", answer.help_s)
    yield _row("fsync in the journal's folder, ms", answer.fsync_ms)
    yield ("cores", f"{answer.cores}", "", "")


def _row(name: str, found: Spread) -> tuple[str, str, str, str]:
    return name, _number(found.median), f"{_number(found.min)} .. {_number(found.max)}", str(found.runs)


def _one(name: str, value: float) -> tuple[str, str, str, str]:
    return name, _number(value), "", ""


def _number(value: float) -> str:
    """Three digits or more, never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
