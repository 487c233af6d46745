"""Other runtimes on the same work, in the same call: each peer runs beside us, graph by graph, turn and turn about.

A peer is a process in an environment of its own (`make peers`; bench/peers), started, measured and ended before the
next, so that no two of them share the machine. Who goes first changes with every turn. One that fails or hangs is ended
and named, and costs no more than its `Patience`. Both sides count from the call that submits the graph. Only the
prototype has no client: its chain and layers stand beside our time from the acknowledgement on. (A fan-out runs while
it is being submitted.) Invariant: the two numbers of a ratio were measured within the same minute.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import anyio.abc
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from orchestrator.client.client import AsyncClient

from .guard import guarded
from .metric import Spread, spread
from .peers.shape import SHAPES, Shape, tasks_of
from .stopwatch import timed
from .workload import chain, fan_out, layered

PLAYER: Final = Path(__file__).parent / "peers" / "play.py"
WORKERS: Final = 2
Seconds = dict[Shape, list[float]]
_LINE: Final = 1 << 16
_PLANS: Final[dict[Shape, Callable[[int], dict[str, Any]]]] = {
    "fan_out": fan_out,
    "chain": chain,
    "layered": lambda size: layered(size, size),
}
Missing = Literal["not installed", "no time left", "failed", "hung"]


class Patience(msgspec.Struct, frozen=True):
    """How long a peer may take: to start, for one graph, to end."""

    start_s: float = 120.0
    graph_s: float = 120.0
    end_s: float = 10.0


_PATIENCE: Final = Patience()


class Candidate(msgspec.Struct, frozen=True):
    """A peer, where it is installed, and the sizes that it takes some seconds for."""

    name: str
    title: str
    home: str
    sizes: dict[Shape, int]
    note: str = ""
    client: bool = True
    """Its users submit from a client, as ours do."""


def _sizes(fan: int, length: int, side: int) -> dict[Shape, int]:
    return {"fan_out": fan, "chain": length, "layered": side}


_ALONE: Final = "one process, no workers"
CANDIDATES: Final = (
    Candidate("prototype", "our stack, bare", "", _sizes(10_000, 1_000, 100), "no retries, leases, schemas", False),
    Candidate("autogen", "AutoGen, gRPC", "autogen", _sizes(10_000, 1_000, 100), "no journal, the caller walks"),
    Candidate("langgraph_sqlite", "LangGraph, SQLite", "langgraph", _sizes(5_000, 500, 40), _ALONE),
    Candidate("langgraph", "LangGraph", "langgraph", _sizes(5_000, 500, 40), f"{_ALONE}, no journal"),
    Candidate("hyperqueue", "HyperQueue", "hyperqueue", _sizes(1_000, 50, 20), "each task a process; no journal"),
    Candidate("ray", "Ray", "ray", _sizes(5_000, 1_000, 70), "no journal"),
    Candidate("dask", "Dask distributed", "dask", _sizes(1_000, 200, 30), "no journal"),
    Candidate("parsl", "Parsl, HTEX", "parsl", _sizes(2_000, 500, 40), "no journal"),
    Candidate("prefect", "Prefect", "prefect", _sizes(200, 30, 10), "tasks are threads of the client"),
)  # fmt: skip


class Rates(msgspec.Struct, frozen=True):
    """What one side did."""

    fanout_tasks_per_s: Spread
    layered_tasks_per_s: Spread
    chain_ms_per_hop: Spread


class Comparison(msgspec.Struct, frozen=True):
    """A peer beside us. `times_faster`: our rate over its own, its hop over ours, by medians; above 1 we are ahead."""

    title: str
    version: str
    note: str
    peer: Rates
    ours: Rates
    times_faster: dict[str, float]
    sizes: dict[Shape, int]
    start_s: float


class Field(msgspec.Struct, frozen=True):
    """Who was measured, and who was not."""

    peers: dict[str, Comparison] = {}
    missing: dict[str, Missing] = {}


def python_of(candidate: Candidate) -> Path | None:
    """The interpreter that has the peer; None where it isn't installed. Looks in ASTERISM_PEERS, else ./.peers."""
    if not candidate.home:
        return Path(sys.executable)
    found = Path(os.environ.get("ASTERISM_PEERS", ".peers")) / candidate.home / "bin" / "python"
    ready = found.parent.parent / "installed"
    return found.absolute() if found.exists() and ready.exists() else None


async def compare(
    client: AsyncClient, repeats: int, share: float, until: float, say: Callable[[str], None],
    candidates: Sequence[Candidate] = CANDIDATES, patience: Patience = _PATIENCE, player: Path = PLAYER,
) -> Field:  # fmt: skip
    """Every candidate that is installed, at `share` of its sizes; none is begun after `until` (perf_counter)."""
    peers: dict[str, Comparison] = {}
    missing: dict[str, Missing] = {}
    for candidate in candidates:
        python = python_of(candidate)
        if python is None:
            missing[candidate.name] = "not installed"
        elif time.perf_counter() > until:
            missing[candidate.name] = "no time left"
        else:
            say(f"beside {candidate.title}")
            with guarded("peer-") as guard:
                argv = [str(python), "-P", str(player), candidate.name, str(WORKERS), str(guard.folder)]
                told = guard.folder / "stderr"
                try:
                    async with _player(argv, guard.folder, told, patience.end_s) as process:
                        peers[candidate.name] = await _beside(client, candidate, process, repeats, share, patience)
                except TimeoutError:
                    missing[candidate.name] = "hung"
                except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, msgspec.DecodeError):
                    missing[candidate.name] = "failed"
                if candidate.name in missing:
                    last = told.read_text(errors="replace").strip().rpartition("\n")[2]
                    say(f"  {candidate.title} {missing[candidate.name]}: {last[:200] or 'it said nothing'}")
    return Field(peers, missing)


@asynccontextmanager
async def _player(argv: Sequence[str], folder: Path, told: Path, end_s: float) -> AsyncIterator[anyio.abc.Process]:
    """A peer's process; when this is left it is told to end, and killed if it hasn't after `end_s`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("ASTERISM_", "OPENAI_", "PYTHON"))}
    environ = {**clean, "ASTERISM_HOME": str(folder)}  # by that its processes are found at the end
    with told.open("wb") as stderr:
        async with await anyio.open_process(argv, stderr=stderr, env=environ) as process:
            try:
                yield process
            finally:
                assert process.stdin is not None
                await process.stdin.aclose()
                with anyio.move_on_after(end_s):
                    await process.wait()
                if process.returncode is None:
                    process.kill()


async def _beside(
    client: AsyncClient, candidate: Candidate, process: anyio.abc.Process, repeats: int, share: float,
    patience: Patience,
) -> Comparison:  # fmt: skip
    sizes = {
        shape: max(10, int(size * (share**0.5 if shape == "layered" else share)))
        for shape, size in candidate.sizes.items()
    }
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, lines = process.stdin, BufferedByteReceiveStream(process.stdout)
    ours: Seconds = {shape: [] for shape in SHAPES}
    its: Seconds = {shape: [] for shape in SHAPES}

    async def we(shape: Shape) -> None:
        since_known, since_call = await timed(client, _PLANS[shape](sizes[shape]))
        ours[shape].append(since_call if candidate.client or shape == "fan_out" else since_known)

    async def it(shape: Shape) -> None:
        await stdin.send(f"{shape} {sizes[shape]}\n".encode())
        with anyio.fail_after(patience.graph_s):
            its[shape].append(msgspec.json.decode(await lines.receive_until(b"\n", _LINE))["seconds"])

    with anyio.fail_after(patience.start_s):
        hello = msgspec.json.decode(await lines.receive_until(b"\n", _LINE))
    for shape in SHAPES:
        for turn in range(repeats):
            for side in (it, we) if turn % 2 else (we, it):
                await side(shape)
    gain = {shape: statistics.median(its[shape]) / statistics.median(ours[shape]) for shape in SHAPES}
    return Comparison(
        title=candidate.title,
        version=hello["version"],
        note=candidate.note,
        peer=_rates(its, sizes),
        ours=_rates(ours, sizes),
        times_faster={
            "fanout": _short(gain["fan_out"]),
            "layered": _short(gain["layered"]),
            "chain": _short(gain["chain"]),
        },
        sizes=sizes,
        start_s=_short(hello["start_s"]),
    )


def _rates(seconds: Seconds, sizes: dict[Shape, int]) -> Rates:
    def rate(shape: Shape) -> Spread:
        return spread(tasks_of(shape, sizes[shape]) / one for one in seconds[shape])

    hops = spread(one * 1000 / sizes["chain"] for one in seconds["chain"])
    return Rates(rate("fan_out"), rate("layered"), hops)


def _short(value: float) -> float:
    return float(f"{value:.3g}")
