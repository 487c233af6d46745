"""The answer of `bench overhead` as a page: one chart a figure, the bars of the design marked in each.

Invariant: no number that the answer doesn't hold.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from .chart import Bar, bars, short
from .comparison import Comparison, Rates
from .metric import Spread
from .overhead import Overhead
from .page import Section, write_page

_Figure = Callable[[Rates], Spread]
_HOP_MS: Final = 0.8
_KEPT_BYTES: Final = 1500.0
_TURNS: Final = (
    "Every peer ran beside us, graph by graph in turns, so that both numbers of a ratio are of the same minute. "
    "Counted from the call that submits the graph."
)


def write_overhead(answer: Overhead, path: Path) -> None:
    """Raises: UsageError when the file can't be written."""
    about = (
        f"{platform.system()} {platform.machine()}, {answer.cores} cores, Python {platform.python_version()}, fsync "
    )
    write_page(path, "What the fabric costs", f"{about}{short(answer.fsync_p50_ms)} ms", _sections(answer))


def _sections(answer: Overhead) -> Iterator[Section]:
    sizes = answer.sizes
    rows = [
        _bar(f"fan-out of {sizes.fan_out:,}", answer.fanout_tasks_per_s),
        _bar("  with its submission", answer.fanout_with_submit_tasks_per_s),
        _bar(f"{sizes.layers} layers of {sizes.layers}", answer.layered_tasks_per_s),
    ]
    yield Section(
        "Tasks a second",
        "Tasks that do nothing, one orchestrator with its journal on the disk, two workers.",
        (bars("Tasks a second", "tasks/s", rows),),
    )
    hop = (_bar(f"chain of {sizes.chain:,}", answer.chain_ms_per_hop),)
    yield Section(
        "Latency of a hop",
        "From one task's result to the next one's: two frames, one decision, one commit.",
        (bars("Milliseconds a hop", "ms", hop, bound=_HOP_MS),),
    )
    yield Section(
        "Memory",
        f"What the orchestrator keeps of a finished task (of {sizes.large:,}), and what each process holds idle.",
        (
            bars(
                "Bytes a task",
                "bytes",
                (Bar("a finished task", answer.memory_bytes_per_task, own=True),),
                bound=_KEPT_BYTES,
            ),
            bars(
                "Idle processes",
                "MiB",
                [Bar(name.replace("_", " "), mib, own=True) for name, mib in answer.idle_mib.items()],
            ),
        ),
    )
    peers = tuple(answer.peers.values())
    if peers:
        yield _against(peers, "Fan-out beside others", "tasks/s", lambda one: one.fanout_tasks_per_s, "fanout")
        yield _against(peers, "Layers beside others", "tasks/s", lambda one: one.layered_tasks_per_s, "layered")
        yield _against(peers, "Chain beside others", "ms a hop", lambda one: one.chain_ms_per_hop, "chain")


def _against(peers: tuple[Comparison, ...], heading: str, unit: str, figure: _Figure, ratio: str) -> Section:
    rows: list[Bar] = []
    for one in peers:
        rows += [_bar("Asterism", figure(one.ours)), _bar(one.title, figure(one.peer), own=False)]
    table = [
        ("peer", "version", unit, "ours", "times faster", "note"),
        *(
            (
                one.title,
                one.version,
                short(figure(one.peer).median),
                short(figure(one.ours).median),
                short(one.times_faster[ratio]),
                one.note,
            )
            for one in peers
        ),
    ]
    return Section(heading, _TURNS, (bars(heading, f"{unit}, logarithmic", rows, log=True),), table)


def _bar(label: str, found: Spread, own: bool = True) -> Bar:
    return Bar(label, found.median, found.min, found.max, own)
