"""The story of a simulation in lines that a person can read: what was decided when, and what stands at the end."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from protocol.frame import Heartbeat, HeartbeatAck

from .simulator import Simulator

LINES: Final = 60
_HIDDEN: Final = frozenset(("at", "profile", "spec", "pin", "hint", "detail", "usage", "device", "skills", "inputs"))


def tale(simulator: Simulator, lines: int = LINES) -> str:
    """The last decisions that mattered, and everything that is still open."""
    told: list[str] = []
    for at, stimulus, decision in simulator.log:
        commands = [one for one in decision.commands if not _dull(one)]
        if not decision.events and not commands and _is_beat(stimulus):
            continue
        told.append(f"{at - simulator.started_at:8.3f} {brief(stimulus)}")
        told += [f"           ! {brief(event)}" for event in decision.events]
        told += [f"           > {brief(one.item if isinstance(one, c.Send) else one)}" for one in commands]
    told = ["  ..."] * (len(told) > lines) + told[-lines:]
    return "\n".join([*told, simulator.story() if simulator.up else "the orchestrator is down"])


def _dull(command: Any) -> bool:
    return isinstance(command, c.Send) and isinstance(command.item, HeartbeatAck)


def _is_beat(stimulus: Any) -> bool:
    items = getattr(stimulus, "items", ())
    return isinstance(stimulus, s.Flush | s.Lull | s.Tick) or bool(
        items and all(isinstance(one, Heartbeat) for one in items)
    )


def brief(value: Any) -> str:
    """One line: the fields that differ from their defaults."""
    if isinstance(value, msgspec.Struct):
        defaults = value.__struct_defaults__
        blanks = (msgspec.NODEFAULT,) * (len(value.__struct_fields__) - len(defaults)) + defaults
        fields = [
            f"{name}={brief(getattr(value, name))}"
            for name, blank in zip(value.__struct_fields__, blanks, strict=True)
            if name not in _HIDDEN and getattr(value, name) != blank
        ]
        if type(value).__name__ in ("AttemptId", "Fence"):
            return "/".join(str(getattr(value, name)) for name in value.__struct_fields__)
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(brief, value)) + "]"
    if isinstance(value, bytes):
        return value.decode() if value.isascii() and len(value) < 60 else f"<{len(value)} bytes>"
    return f"{value:g}" if isinstance(value, float) else str(value)[:200]
