"""Graphs of known shape, as plan documents of inline `flow.echo` tasks: what is measured is the fabric, not the work.

Invariant: pure; the same arguments give the same document. It must not know who runs it.
"""

from __future__ import annotations

from typing import Any

from protocol.plan_form import SCHEMA

from .peers.shape import upstreams

SKILL = "flow.echo"


def fan_out(tasks: int) -> dict[str, Any]:
    """So many tasks that need nothing of each other."""
    return _plan([{"id": f"t{at}", "skill": SKILL, "args": {"value": at}} for at in range(tasks)], f"t{tasks - 1}")


def layered(layers: int, width: int) -> dict[str, Any]:
    """`layers` of `width` tasks; each reads three of the layer before."""
    rows: list[dict[str, Any]] = []
    for layer in range(layers):
        for at in range(width):
            value: Any = at
            if layer:
                before = [f"t{layer - 1}-{up}" for up in upstreams(at, width)]
                value = [{"ref": f"{name}/value/0" if layer > 1 else f"{name}/value"} for name in before]
            rows.append({"id": f"t{layer}-{at}", "skill": SKILL, "args": {"value": value}})
    return _plan(rows, f"t{layers - 1}-0")


def chain(length: int) -> dict[str, Any]:
    """Each task reads the one before: the latency of a hop, `length` times."""
    rows: list[dict[str, Any]] = [{"id": "t0", "skill": SKILL, "args": {"value": 0}}]
    rows += [
        {"id": f"t{at}", "skill": SKILL, "args": {"value": {"ref": f"t{at - 1}/value"}}} for at in range(1, length)
    ]
    return _plan(rows, f"t{length - 1}")


def _plan(tasks: list[dict[str, Any]], last: str) -> dict[str, Any]:
    """One output only: the report would otherwise carry every value that nobody reads."""
    return {"schema": SCHEMA, "tasks": tasks, "outputs": [{"name": "last", "ref": f"{last}/value"}]}
