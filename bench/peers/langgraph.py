"""LangGraph in this one process, for it has no workers: no checkpoints here, its SQLite saver in langgraph_sqlite."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypedDict

from .peer import Action
from .shape import Shape, upstreams


class Sum(TypedDict):
    """Its state: each node adds one."""

    n: Annotated[int, operator.add]


class LangGraph:
    """See the module. `saver` makes the checkpointer of a graph."""

    def __init__(self, saver: Callable[[], Any]) -> None:
        self.version = version("langgraph")
        self._graph: Any = import_module("langgraph.graph")
        self._send: Any = import_module("langgraph.types").Send
        self._saver = saver
        self._threads = 0

    def prepare(self, shape: Shape, size: int) -> Action:
        start, end = self._graph.START, self._graph.END
        builder = self._graph.StateGraph(Sum)

        def one(state: Sum) -> Any:
            return {"n": 1}

        if shape == "fan_out":
            builder.add_node("w", one)
            builder.add_conditional_edges(start, lambda state: [self._send("w", {"n": 0}) for _ in range(size)], ["w"])
            builder.add_edge("w", end)
        elif shape == "chain":
            for at in range(size):
                builder.add_node(f"c{at}", one)
                builder.add_edge(f"c{at - 1}" if at else start, f"c{at}")
        else:
            for layer in range(size):
                for at in range(size):
                    builder.add_node(f"l{layer}_{at}", one)
                    above = [f"l{layer - 1}_{up}" for up in upstreams(at, size)]
                    builder.add_edge(above if layer else start, f"l{layer}_{at}")
        compiled = builder.compile(checkpointer=self._saver())
        self._threads += 1
        config = {"recursion_limit": 100_000, "configurable": {"thread_id": str(self._threads)}}
        return lambda: int(compiled.invoke({"n": 0}, config)["n"])


@contextmanager
def open_peer(workers: int, folder: Path) -> Iterator[LangGraph]:
    """See peer.Opener; `workers` means nothing to it."""
    peer = LangGraph(lambda: None)
    peer.prepare("fan_out", 20)()
    yield peer
