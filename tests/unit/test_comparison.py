"""Beside other runtimes: who goes first changes, and a peer that breaks or hangs is named and costs no more."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from bench.comparison import Candidate, Field, Patience, compare
from bench.peers.shape import SHAPES

pytestmark = pytest.mark.anyio
SIZES = dict.fromkeys(SHAPES, 10)
PLAYER = """
import json, os, signal, sys, time
def answer(**found): print(json.dumps(found), flush=True)
name, path = sys.argv[1], os.environ["TURNS"]
print("the last word of", name, file=sys.stderr, flush=True)
if name == "never-up": time.sleep(60)
if name == "dead": sys.exit(3)
answer(version="1", start_s=0.1)
for line in sys.stdin:
    if name == "hangs": time.sleep(60)
    if name == "babbles": print("hello", flush=True)
    open(path, "a").write("it ")
    answer(seconds=0.5)
open(path, "a").write(str(os.getpid()))
if name == "never-ends": time.sleep(60)
"""


class Ours:
    """Our side, of whose runs only the order counts here."""

    name, run = "r1", 1

    def __init__(self, turns: Path) -> None:
        self._turns = turns

    async def submit(self, plan: Any) -> Ours:
        with self._turns.open("a") as file:
            file.write("we ")
        return self

    async def wait(self) -> str:
        return "succeeded"

    async def ask(self, *words: Any) -> None:
        pass


@pytest.fixture
def turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TURNS", str(tmp_path / "turns"))
    (tmp_path / "player.py").write_text(PLAYER)
    return tmp_path / "turns"


async def beside(name: str, turns: Path, said: list[str], repeats: int = 1) -> Field:
    client: Any = Ours(turns)
    candidate = Candidate(name, name.title(), "", SIZES)
    start_s, graph_s = (0.3 if name == slow else 20.0 for slow in ("never-up", "hangs"))
    patience = Patience(start_s, graph_s, end_s=0.3)
    until = time.perf_counter() + 60
    return await compare(client, repeats, 1.0, until, said.append, [candidate], patience, turns.with_name("player.py"))


@pytest.mark.parametrize(
    ("name", "why"), [("never-up", "hung"), ("hangs", "hung"), ("dead", "failed"), ("babbles", "failed")]
)
async def test_a_peer_that_breaks_or_hangs_is_named_with_its_last_word(name: str, why: str, turns: Path) -> None:
    said: list[str] = []
    field = await beside(name, turns, said)
    assert (field.peers, field.missing) == ({}, {name: why})
    assert said[-1].endswith(f"{why}: the last word of {name}")


async def test_who_goes_first_changes_and_a_peer_that_does_not_end_is_killed(turns: Path) -> None:
    field = await beside("never-ends", turns, [], repeats=3)
    *order, pid = turns.read_text().split()
    assert order == len(SHAPES) * ["we", "it", "it", "we", "we", "it"]
    assert field.peers["never-ends"].peer.chain_ms_per_hop.median == 50.0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
