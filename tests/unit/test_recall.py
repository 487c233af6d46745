"""Work ahead of its turn: inputs travel while a device is busy, and what waits in vain is taken back."""

from bench.simulated_skill import profile_of
from bench.simulator import Simulator
from orchestrator.core import event as e
from orchestrator.core.setting import CoreSettings, HedgeSettings
from protocol.artifact import ArtifactRef
from protocol.outcome import Success
from protocol.profile import LinkProfile

BIG = ArtifactRef("sha256:" + "a" * 64, "application/json", 5_000_000)


def work(ident, run_s=0.05, value=None, **more):
    return {"id": ident, "skill": "sim.work", "args": {"value": value, "run_s": run_s}, **more}


def play(tasks, workers, program=None, prefetch_s=0.05, warm=8):
    """The tasks, after a run of short ones from which the skill's time is learned."""
    settings = CoreSettings(prefetch_target_s=prefetch_s, hedge=HedgeSettings(on=False))
    sim = Simulator(workers=workers, settings=settings, program=program or {})
    sim.artifacts[BIG.digest] = "big"
    sim.submit({"tasks": [work(f"warm{n}") for n in range(warm)]})
    sim.settle()
    began = sim.now
    sim.submit({"tasks": tasks})
    sim.settle(200.0)
    sim.advance(1.0)
    sim.prove_replay()
    return sim, sim.state.runs[2].settled_at - began


def events(sim, kind):
    return [event for _, _, made in sim.log for event in made.events if type(event) is kind and event.run == 2]


def stuck(job):
    yield 5.0 if job.number == 1 else 0.05
    return {"value": None}


def test_what_waits_behind_a_straggler_is_taken_back_by_who_idles():
    tasks = [work("slow"), *(work(f"t{n}") for n in range(20))]
    sim, took_s = play(tasks, [profile_of(1), profile_of(1)], {"slow": stuck}, prefetch_s=1.0)
    back = [event for event in events(sim, e.TaskRequeued) if event.why.startswith("taken back from w")]
    assert back
    assert not any(event.counted or event.lost for event in back)
    assert took_s < 5.5
    last = max(sim.task(f"t{n}", 2).state.at for n in range(20))
    assert last - sim.task("slow", 2).attempts[0].at < 2.0
    assert sim.state.runs[2].spend.losses == 0


def test_nothing_is_taken_back_where_nobody_would_be_sooner():
    sim, _ = play([work(f"t{n}") for n in range(30)], [profile_of(1), profile_of(1)], prefetch_s=1.0)
    assert not events(sim, e.TaskRequeued)


def test_a_large_input_travels_while_the_device_is_busy_and_not_when_it_is_small():
    found = {}
    for name, made in (("large", Success(BIG)), ("small", Success(b'{"value": 1}'))):

        def maker(job, made=made):
            yield 0.01
            return made

        workers = [profile_of(1, link=LinkProfile(1e6, 0.001)), profile_of(1)]
        tasks = [work("make", on=["w2"])]
        tasks += [work(f"use{n}", 2.0, {"ref": "make"}, on=["w1"]) for n in range(2)]
        sim, _ = play(tasks, workers, {"make": maker}, prefetch_s=0.0)
        first, second = sorted((sim.task(f"use{n}", 2).attempts[0] for n in range(2)), key=lambda one: one.at)
        found[name] = second.at - first.at
    assert found["large"] < 0.1
    assert found["small"] > 1.9
