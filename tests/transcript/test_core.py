"""Golden transcripts: a script of stimuli and everything the core made of it, printed. Review the diff of behaviour.

After a change that is meant, write them again: `ASTERISM_WRITE_GOLDEN=1 python -m pytest tests/transcript`.
"""

import os
from pathlib import Path

import msgspec
import pytest

from bench.fault import Faults
from bench.simulator import Simulator
from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from protocol.frame import Heartbeat, HeartbeatAck
from protocol.outcome import Failure

GOLDEN = Path(__file__).parent / "golden"


def work(ident, skill="sim.work", run_s=0.5, value=None, **more):
    return {"id": ident, "skill": skill, "args": {"value": value, "run_s": run_s}, **more}


def show(value):
    """One line; bytes that are no text become their length, times are left out."""
    if isinstance(value, msgspec.Struct):
        hidden = {"at", "profile", "spec", "until", "deadline", "skills", "hint", "detail"}
        fields = {}
        for name, default in zip(value.__struct_fields__, _defaults(value), strict=True):
            found = getattr(value, name)
            if name not in hidden and found != default:
                fields[name] = show(found)
        return f"{type(value).__name__}({', '.join(f'{name}={text}' for name, text in fields.items())})"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, bytes):
        return value.decode() if value.isascii() and len(value) < 100 else f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {show(one)}" for key, one in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _defaults(value):
    found = value.__struct_defaults__
    return (msgspec.NODEFAULT,) * (len(value.__struct_fields__) - len(found)) + found


def transcript(sim):
    lines = []
    for _, stimulus, decision in sim.log:
        items = getattr(stimulus, "items", ())
        dull = isinstance(stimulus, s.Tick | s.Flush | s.Lull) or (
            items and all(isinstance(one, Heartbeat) for one in items)
        )
        commands = [
            one for one in decision.commands if not (isinstance(one, c.Send) and isinstance(one.item, HeartbeatAck))
        ]
        if dull and not decision.events and not commands:
            continue
        lines.append(show(stimulus))
        lines += [f"  ! {show(event)}" for event in decision.events]
        lines += [f"  > {show(one)}" for one in commands]
    return "\n".join(lines) + "\n"


def check(name, sim):
    path, found = GOLDEN / f"{name}.txt", transcript(sim)
    if os.environ.get("ASTERISM_WRITE_GOLDEN"):
        path.write_text(found)
    assert found == path.read_text(), f"behaviour differs from {path.name}"


def map_with_a_failure():
    def odd(job):
        yield 0.1
        return Failure("Bad", "odd", "permanent") if job.args["value"] == 2 else {"value": job.args["value"]}

    sim = Simulator(workers=1, program={"m": odd})
    tasks = [
        {"id": "l", "skill": "flow.list", "args": {"items": [1, 2]}},
        work("m", value={"ref": "l/items[]"}, map={"on_error": "collect"}),
        work("all", value={"ref": "m"}),
        work("skipped", when=[{"ref": "all", "is": "failed"}]),
    ]
    sim.submit({"tasks": tasks, "outputs": [{"name": "o", "ref": "all/value"}]})
    sim.settle()
    return sim


def worker_dies_and_is_hedged():
    sim = Simulator(workers=2, faults=Faults(kills=((0.3, 0, 9.0, "boot"), (0.3, 1, 1.0, "stream"))))
    sim.submit({"tasks": [work("a", run_s=2.0), work("b", "sim.idem", run_s=2.0)]})
    sim.settle()
    return sim


def crash_before_the_commit():
    sim = Simulator(workers=1, fsync_s=0.05)
    sim.submit({"tasks": [work("a", run_s=0.06), work("b", run_s=2.0, value={"ref": "a/value"})]})
    while not any(attempt.task == 1 for attempt in sim.workers[0].live):
        sim.advance(0.001)
    sim.crash(0.1)
    sim.settle()
    return sim


@pytest.mark.parametrize("script", [map_with_a_failure, worker_dies_and_is_hedged, crash_before_the_commit])
def test_transcript(script):
    check(script.__name__, script())
