"""The bench of planners at its smallest: all of it is real, every fault of a model's server ends its call as it may."""

from __future__ import annotations

import json

import anyio
import pytest

from bench.planner.answer import Answer, live_table, table
from bench.planner.live import REQUESTS, live
from bench.planner.suite import Sizes, planner
from planner.scripted.dialogue import Turn
from planner.scripted.server import ScriptedServer

SMALL = Sizes(runs=1, shapes=("layers",), seeds=1, cuts=0, each=False, token_s=0.001)
PROMISED = {
    "streamed_speedup", "dispatch_lag_s", "asynchow_makespan_ratio", "false_accepts", "hangs", "abstention_rate",
}  # fmt: skip


@pytest.fixture(scope="module")
def answer() -> Answer:
    return anyio.run(planner, SMALL, None, lambda text: None)


def test_every_fault_of_a_models_server_ends_the_call_in_its_way(answer):
    found = answer.matrix
    assert found.cases > 50
    assert {f"{cell.profile}, {cell.fault}": cell.wrong for cell in found.cells if cell.wrong} == {}
    assert found.hangs == 0


def test_the_promised_figures_stand_at_the_top_and_what_was_not_measured_is_null(answer):
    document = json.loads(json.dumps(answer.document()))
    assert document.keys() >= PROMISED
    assert [name for name in PROMISED if document[name] is None] == ["asynchow_makespan_ratio"]
    assert document["sound"] is answer.sound is True
    assert "streamed_speedup" in table(answer)


def test_a_live_endpoint_is_asked_and_what_it_plans_is_carried_out():
    task = {"id": "look", "skill": "fs.find", "args": {"path": "logs", "glob": "*.log"}}
    text = json.dumps({"tasks": [task], "outputs": [{"name": "count", "ref": "look/count"}]})

    async def main():
        async with ScriptedServer(lambda asked: Turn(text=text)) as server:
            environ = {"OPENAI_BASE_URL": server.base_url, "ASTERISM_MODEL": "scripted"}
            return await live(environ), len(server.asked)

    rows, asked = anyio.run(main)
    assert [row.request for row in rows] == list(REQUESTS)
    assert {(row.state, row.tasks, row.calls) for row in rows} == {("succeeded", 1, 1)}
    assert asked == len(REQUESTS)
    assert "succeeded" in live_table(rows)
