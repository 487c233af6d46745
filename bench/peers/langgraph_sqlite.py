"""LangGraph with a checkpoint after every step in SQLite: the nearest that it has to a journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path

from .langgraph import LangGraph


@contextmanager
def open_peer(workers: int, folder: Path) -> Iterator[LangGraph]:
    """See peer.Opener; `workers` means nothing to it."""
    saver = import_module("langgraph.checkpoint.sqlite").SqliteSaver
    with closing(sqlite3.connect(folder / "checkpoints.db", check_same_thread=False)) as database:
        peer = LangGraph(lambda: saver(database))
        peer.prepare("fan_out", 20)()
        yield peer
