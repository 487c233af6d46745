"""What the sweep of a server names as needed, and that a clock that is set forward makes nothing old."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from orchestrator.artifacts.store import ArtifactStore
from orchestrator.artifacts.sweep import MARK
from orchestrator.core import event as e
from orchestrator.core.state import State
from orchestrator.service import garbage
from orchestrator.service.garbage import Garbage
from protocol.artifact import ArtifactRef
from protocol.ids import Fence
from protocol.outcome import Success
from protocol.patch import Patch
from protocol.task import RunSettings, TaskSpec

DAY = 86_400.0


def digest(n: int) -> str:
    return f"sha256:{n:064x}"


def story() -> State:
    """A run that names contents in every place there is: 1 to 7."""
    state = State()
    args = [b'{"literal":{"value":"%s"}}' % digest(n).encode() for n in (1, 2)]
    specs = tuple(TaskSpec(f"t{n}", "flow.echo", raw) for n, raw in enumerate(args))
    value = ArtifactRef(digest(3), "text/plain", 1)
    inputs = {"x": f'"{digest(4)}"'.encode()}
    state.apply(e.RunSubmitted(1, "", "k", "me", RunSettings(), inputs))
    reused = ((b"pin", ArtifactRef(digest(5), "text/plain", 1)),)
    state.apply(e.PatchAccepted(1, 1, Patch("planner", specs), reused=reused))
    state.apply(e.FilePinned(1, "file://pi-1/a", ArtifactRef(digest(6), "text/plain", 1)))
    state.apply(e.AttemptDispatched(1, 0, 1, 1, Fence(1, 1), b"pin", why=digest(7)))
    state.apply(e.AttemptEnded(1, 0, 1, Success(value)))
    state.apply(e.TaskSettled(1, 0, "succeeded", 1))
    return state


@pytest.mark.parametrize("size", [1, 500])
def test_a_run_read_in_slices_names_all_that_the_whole_of_it_names(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "SLICE_TASKS", size)
    state = story()
    found = {one for piece in garbage._pieces(state.runs[1]) for one in MARK.findall(piece)}
    assert found == set(MARK.findall(state.part(1)))
    assert {digest(n).encode() for n in range(1, 8)} <= found


@pytest.mark.parametrize(("step", "freed"), [(0.0, 0), (DAY, 0), (-DAY, 0)])
def test_a_step_of_the_wall_clock_makes_nothing_older_than_it_is(tmp_path: Path, step: float, freed: int) -> None:
    wall, since = 1_000_000.0, 0.0
    store = ArtifactStore(tmp_path / "artifacts")
    sweeper = Garbage(store, State(), tmp_path / "workers", lambda: wall, lambda: since)
    fresh = store.path(store.put(b'"on its way"').digest)
    os.utime(fresh, (wall, wall))
    wall, since = wall + 60.0 + step, 60.0

    async def collect(grace_s: float) -> int:
        found = await sweeper.collect(since, grace_s, False)
        return int(found["artifacts"])

    assert anyio.run(collect, 3600.0) == freed
    assert fresh.exists()
    wall, since = wall + 2 * 3600.0 + max(0.0, -step), since + 2 * 3600.0 + max(0.0, -step)
    assert anyio.run(collect, 3600.0) == 1, "it is two hours old by then"
