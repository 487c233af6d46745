"""Every decoder refuses what it can't read with its documented error: the corpus, then fixed seeds of damage to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.decoder import TARGETS
from tests.fuzz.target import CORPUS, Target, prove

ROOT = Path(__file__).resolve().parents[2]
EXECUTIONS = 400
"""Of a cheap target; all together take some seconds. `make fuzz` runs for as long as it is told to."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_the_corpus_is_read_or_refused(target: Target) -> None:
    decoded = [prove(target, data) for data in target.seeds()]
    assert any(decoded), "a corpus of which nothing is read finds nothing"


def test_every_folder_of_the_corpus_has_its_target() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(target.name for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_nothing_at_all_is_read_or_refused(target: Target) -> None:
    for data in (b"", b"\0", b"\xff" * 64, b"[" * 100_000, b"{" * 3000, b'"', b"\x91" * 100_000, b"\n"):
        prove(target, data)


def test_damage_is_read_or_refused_in_bounded_time_and_memory() -> None:
    """In a process of its own, which bounds itself: a decoder that eats memory must not eat that of the tests."""
    argv = [sys.executable, "-m", "tests.fuzz", "--executions", str(EXECUTIONS)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert done.stdout.count("executions") == len(TARGETS)
