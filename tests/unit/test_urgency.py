"""Of what is ready goes first what most work hangs on, in seconds, of whichever skill it is."""

from bench.simulated_skill import profile_of
from bench.simulator import Simulator
from orchestrator.core import stimulus as s
from orchestrator.core.setting import CoreSettings, HedgeSettings
from protocol.plan import parse_patch

SHORT, LONG = "sim.work", "sim.other"


def takes(job):
    yield job.args["run_s"]
    return {"value": None}


def work(ident, skill, *ups):
    return {
        "id": ident,
        "skill": skill,
        "args": {"run_s": 40.0 if skill == LONG else 8.0, "value": list(map(ref, ups))},
    }


def ref(name):
    return {"ref": name}


def fleet(slots, *, measured=True):
    settings = CoreSettings(placement="eft", prefetch_target_s=0.0, hedge=HedgeSettings(on=False))
    sim = Simulator(workers=[profile_of(slots)], settings=settings, program={"*": takes}, check=False)
    if measured:
        sim.submit({"tasks": [work(f"w{n}", (SHORT, LONG)[n % 2]) for n in range(8)]})
        sim.settle(2000.0)
    return sim


def order(sim, tasks):
    """Their names as they were dispatched."""
    sim.submit({"tasks": tasks})
    sim.settle(2000.0)
    run = sim.state.runs[max(sim.state.runs)]
    return [name for _, name in sorted((task.attempts[0].at, run.name_of(task)) for task in run.tasks)]


def test_a_long_task_goes_before_two_short_ones_in_a_row():
    assert order(fleet(1), [work("a", SHORT), work("b", SHORT, "a"), work("c", LONG)]) == ["c", "a", "b"]


def test_what_nobody_has_measured_goes_by_hops():
    unknown = fleet(1, measured=False)
    assert order(unknown, [work("c", LONG), work("a", SHORT), work("b", SHORT, "a")])[0] == "a"


def test_what_is_less_urgent_does_not_go_with_an_urgent_one_of_its_kind():
    tasks = [work("x", SHORT), work("z", LONG, "x"), work("y", SHORT), work("c", LONG)]
    assert set(order(fleet(2), tasks)[:2]) == {"x", "c"}


def test_a_plan_that_grows_task_by_task_keeps_its_order():
    sim = fleet(1)
    run = sim.submit({"tasks": [work("t0", SHORT)]})
    for n in range(1, 20):
        patch = parse_patch({"tasks": [work(f"t{n}", LONG if n == 19 else SHORT)]}, author="person:ann")
        sim.ask(lambda reply, patch=patch: s.PatchProposed(reply, run, patch, call=0))
    sim.advance(9.0)
    begun = [sim.state.runs[run].name_of(task) for task in sim.state.runs[run].tasks if task.attempts]
    assert begun == ["t0", "t19"]
