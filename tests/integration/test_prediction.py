"""Predictions and what came true of them, from a worker's reports to what people ask: a real server, a hand worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.setting import CoreSettings
from protocol.frame import Heartbeat
from tests.integration.hand_worker import ask, client, events, submit
from tests.integration.test_server import chain, server, worker

KEEPS = CoreSettings(keep_predictions=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ran(channel: Any, length: int) -> int:
    run = await submit(channel, chain(*range(length)), key=str(length))
    await events(channel, run)
    return run


@pytest.mark.anyio
async def test_what_runs_took_is_known_told_and_survives_the_server(tmp_path: Path) -> None:
    async with server(tmp_path, core=KEEPS) as (_, file), worker(file) as pi, client(file) as channel:
        pi.run_s = 0.5
        run = await ran(channel, 5)
        (known,) = (await ask(channel, "predictor"))["skills"]
        assert (known["skill"], known["device_class"], known["runs"], known["run_s"]) == ("flow.echo", "cpu", 5, 0.5)
        first, last = [(await ask(channel, "explain", run=run, task=name))["attempts"][0] for name in ("t0", "t4")]
        assert (first["predicted"]["by"], first["predicted"]["n"]) == ("default", 0)
        assert (last["predicted"]["by"], last["predicted"]["run_s"]) == ("measured", 0.5)
        told = (await ask(channel, "result", run=run))["predictions"]
        assert (told["n"], told["error"], told["covered"]) == (4, 0.0, 1.0)
    async with server(tmp_path, core=KEEPS) as (_, file), client(file) as channel:
        assert (await ask(channel, "predictor"))["skills"] == [known]
        assert (await ask(channel, "explain", run=run, task="t4"))["attempts"][0]["predicted"] == last["predicted"]
        await ask(channel, "rm", run=run)
    async with server(tmp_path, core=KEEPS) as (_, file), client(file) as channel:
        assert (await ask(channel, "predictor"))["skills"] == []


@pytest.mark.anyio
async def test_transfers_that_workers_tell_of_are_what_is_known_of_their_links(tmp_path: Path) -> None:
    async def links(channel: Any) -> Any:
        return (await ask(channel, "predictor"))["links"]

    async with server(tmp_path, core=KEEPS) as (_, file), worker(file) as pi, client(file) as channel:
        told = [(1e6, 1.5), (4e6, 4.5), (2e6, 2.5), (float("nan"), 1.0), (1e6, -1.0)] * 4
        await pi.say(Heartbeat(1.0, moved=tuple(n for pair in told for n in pair)))
        run = await ran(channel, 1)
        (known,) = await links(channel)
        assert (known["worker"], known["transfers"]) == ("pi-1", 12)
        assert known["latency_s"] == pytest.approx(0.5)
        assert known["bytes_s"] == pytest.approx(1e6)
        await ask(channel, "result", run=run)  # what was kept is on disk
    async with server(tmp_path, core=KEEPS) as (_, file), client(file) as channel:
        assert await links(channel) == [known]


@pytest.mark.anyio
async def test_a_server_that_keeps_none_still_predicts_while_it_lives(tmp_path: Path) -> None:
    async with server(tmp_path) as (_, file), worker(file) as pi, client(file) as channel:
        pi.run_s = 0.5
        run = await ran(channel, 3)
        assert (await ask(channel, "predictor"))["skills"][0]["runs"] == 3
        assert (await ask(channel, "result", run=run))["predictions"]["n"] == 0
    async with server(tmp_path) as (_, file), client(file) as channel:
        assert (await ask(channel, "predictor"))["skills"] == []
