"""Everyday plans of others, written by a simulated model, run by the real core: no time is lost between the tasks."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bench.planner.asynchow import bound_s, document, read_cases
from bench.planner.makespan import makespan, ratio
from bench.planner.simulated_model import SimulatedModel
from protocol.errors import UsageError

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
ALLOWED = 1.03


@pytest.mark.skipif(not (DATA / "asynchow").is_dir(), reason="the public cases are not on this machine")
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_every_plan_takes_hardly_longer_than_the_longest_way_through_it(streamed):
    world, ratios = SimulatedModel(), []
    for case in read_cases(DATA):
        scale = 1.0 / bound_s(case)
        played = world.play(document(case, scale), streamed=streamed)
        assert played.succeeded, case.id
        ratios.append(ratio(case, scale, played, streamed=streamed))
    found = makespan(ratios)
    assert found.plans > 1000
    assert found.max <= ALLOWED, found.worst
    assert min(one.to_gold for one in ratios) >= 1.0  # gold is a bound: who beats it was measured wrongly


def test_a_file_that_is_none_is_refused_by_row(tmp_path):
    with pytest.raises(UsageError, match="there is no"):
        read_cases(tmp_path)
    plan = b'{"id": "x", "kind": "seq", "tasks": {"a": 1}, "edges": [["a", "%b"]], "gold_seconds": 1}'
    for row in (b"{", plan % b"b", plan % b"a"):
        (tmp_path / "plans.jsonl.gz").write_bytes(gzip.compress(row))
        with pytest.raises(UsageError, match="row 1"):
            read_cases(tmp_path)
