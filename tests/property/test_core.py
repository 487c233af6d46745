"""Random graphs x failures x deaths x partitions x crashes: nothing is lost, doubled, stuck or unlike its replay.

The simulator checks the invariants after every decision, and after every restart that replay equals the live state.
The oracle is the graph itself: what succeeds, fails and is skipped follows from the plan and from which tasks are told
to fail, whatever else goes wrong.
"""

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.fault import Faults
from bench.simulator import Simulator
from orchestrator.core import stimulus as s
from orchestrator.core.event_codec import decode_events, encode_events
from orchestrator.core.lifecycle import Closed, Unknown
from orchestrator.core.setting import CoreSettings
from orchestrator.core.state import State
from protocol.outcome import Failure

SKILLS = ("sim.work", "sim.work", "sim.light", "sim.idem", "sim.once", "sim.parent")
CHECKED = settings(
    derandomize=True, deadline=None, max_examples=100, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """A plan of the notation: chains, joins, maps with limits, chunks and chains, skips, first-ofs."""
    tasks: list[dict[str, Any]] = [
        {"id": "l", "skill": "flow.list", "args": {"items": list(range(draw(st.integers(0, 4))))}}
    ]
    plain, maps = ["l"], []
    for number in range(draw(st.integers(1, 9))):
        task: dict[str, Any] = {"id": f"t{number}", "skill": draw(st.sampled_from(SKILLS))}
        run_s = draw(st.sampled_from([0.001, 0.05, 0.5, 3.0, 7.0]))
        if draw(st.integers(0, 3)) == 0:
            source = draw(st.sampled_from(["l/items[]", *(f"{name}[]" for name in maps)]))
            task["args"] = {"value": {"ref": source}, "run_s": min(run_s, 0.5)}
            task["map"] = {
                "limit": draw(st.integers(0, 2)),
                "on_error": draw(st.sampled_from(["fail", "collect"])),
                "chunk": draw(st.integers(1, 2)),
            }
            maps.append(task["id"])
        else:
            sources = draw(st.lists(st.sampled_from(plain + maps), max_size=3, unique=True))
            task["args"] = {"value": [{"ref": name} for name in sources], "run_s": run_s}
            if len(sources) > 1 and draw(st.booleans()):
                task["args"]["value"] = {"ref": sources}
            if draw(st.integers(0, 3)) == 0:
                task["after"] = [draw(st.sampled_from(plain))]
            if draw(st.integers(0, 4)) == 0:
                named = draw(st.sampled_from(plain))
                task["when"] = [{"ref": named, "is": draw(st.sampled_from(["succeeded", "failed", "finished"]))}]
            plain.append(task["id"])
        tasks.append(task)
    return {"tasks": tasks}


@st.composite
def faults(draw: st.DrawFn) -> Faults:
    times = st.floats(0.0, 6.0, allow_nan=False)
    worker = st.integers(0, 2)
    return Faults(
        loss=draw(st.sampled_from([0.0, 0.0, 0.02, 0.1])),
        delay_s=draw(st.sampled_from([(0.0002, 0.002), (0.001, 0.2)])),
        crashes=tuple(draw(st.lists(st.integers(1, 150), max_size=3))),
        kills=tuple(
            draw(
                st.lists(
                    st.tuples(times, worker, st.sampled_from([0.2, 1.0, 9.0]), st.sampled_from(["boot", "stream"])),
                    max_size=3,
                )
            )
        ),
        cuts=tuple(draw(st.lists(st.tuples(times, worker, st.sampled_from([0.5, 3.0, 9.0])), max_size=2))),
        until_s=20.0,
    )


def program(bad: frozenset[str]) -> Any:
    def run(job: Any) -> Any:
        rows = job.args if isinstance(job.args, list) else [job.args]
        if job.skill == "sim.parent":
            kids = []
            for k in range(2):
                kids.append((yield "spawn", {"skill": "sim.work", "args": {"value": k, "run_s": 0.2}})["id"])
            found = yield "join", {"ids": kids}
            assert [one["value"] for one in found] == [0, 1]
        yield float(rows[0].get("run_s", 0.01))
        if job.name.partition(".")[0] in bad and not (job.skill == "sim.work" and "run_s" not in rows[0]):
            return Failure("Bad", "as told")
        values = [{"value": row.get("value")} for row in rows]
        return values if isinstance(job.args, list) else values[0]

    return run


def world(seed: int, plan: dict[str, Any], found: Faults, bad: frozenset[str]) -> Simulator:
    programs = {skill: program(bad) for skill in {*SKILLS, "sim.other"}}
    sim = Simulator(
        seed=seed,
        workers=3,
        program=programs,
        faults=found,
        settings=CoreSettings(max_losses=100, poison_deaths=100),
        replay=True,
    )
    sim.submit(plan)
    return sim


def finish(sim: Simulator, bad: frozenset[str] = frozenset()) -> None:
    """Until it is settled; a person resolves every Unknown as what it would have become."""
    for _ in range(200):
        sim.advance(1.0)
        for run in sim.state.runs.values():
            for task in run.tasks:
                if sim.up and type(task.state) is Unknown:
                    name = run.name_of(task)
                    how = "fail" if name.partition(".")[0] in bad else "succeeded"
                    sim.handle(s.UnknownResolved(0, run.ix, name, "ann", how, b'{"value":null}'))  # type: ignore[arg-type]
        if sim.up and all(type(run.state) is Closed for run in sim.state.runs.values()):
            break
    sim.settle(1.0)  # and all of it on disk


def roots(sim: Simulator) -> dict[str, str]:
    return {name: state for name, state in sim.states().items() if "." not in name}


@CHECKED
@given(plans(), faults(), st.frozensets(st.sampled_from([f"t{n}" for n in range(9)]), max_size=2), st.integers(0, 999))
def test_chaos_changes_neither_results_nor_verdict(plan, found, bad, seed):
    calm = world(seed, plan, Faults(), bad)
    finish(calm, bad)
    calm.prove_replay()
    sim = world(seed, plan, found, bad)
    finish(sim, bad)
    sim.prove_replay()
    assert roots(sim) == roots(calm)
    run, other = sim.state.runs[1], calm.state.runs[1]
    assert (run.state.state, run.state.code) == (other.state.state, other.state.code)
    unknown = any(event.__class__.__name__ == "TaskUnknown" for r in sim.disk for event in decode_events(r))
    for task in run.roots():
        mate = other.tasks[run.names[task.spec.id]]
        if not unknown and task.value is not None:
            assert task.value == mate.value
        if task.spec.skill == "sim.once" and not unknown:
            assert sim.effects.get((1, task.ix), 0) <= 1
    sim.advance(30.0)
    assert all(not session.loads for session in sim.machine.fleet.sessions.values()), sim.story()


@CHECKED
@given(plans(), st.integers(0, 999))
def test_every_prefix_of_the_journal_is_a_state_that_snapshots_and_survives_its_encoding(plan, seed):
    sim = world(seed, plan, Faults(), frozenset({"t1"}))
    finish(sim)
    state = State()
    for record in sim.disk:
        assert encode_events(decode_events(record)) == record
        for event in decode_events(record):
            state.apply(event)
        parts = state.snapshot()
        assert State.restore(parts).snapshot() == parts
        state.check()
    assert msgspec.msgpack.decode(state.part(1)) == msgspec.msgpack.decode(sim.state.part(1))


@CHECKED
@given(plans(), st.integers(0, 999), st.integers(2, 60))
def test_a_snapshot_with_its_tail_is_the_whole_journal(plan, seed, cut):
    sim = world(seed, plan, Faults(kills=((0.3, 0, 0.5, "boot"),)), frozenset())
    finish(sim)
    head = State()
    for record in sim.disk[:cut]:
        for event in decode_events(record):
            head.apply(event)
    back = State.restore(head.snapshot())
    for record in sim.disk[cut:]:
        for event in decode_events(record):
            back.apply(event)
    assert back.snapshot() == sim.state.snapshot()
