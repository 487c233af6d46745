"""Several runs wait: whose turn it is, by class, share, priority and deadline, and that nobody starves."""

from bench.simulator import Simulator
from orchestrator.core import event as e
from orchestrator.core import stimulus as s
from orchestrator.core.lifecycle import Closed
from orchestrator.core.setting import CoreSettings


def work(ident, run_s=0.5, skill="sim.work", **more):
    return {"id": ident, "skill": skill, "args": {"value": ident, "run_s": run_s}, **more}


def many(count, **more):
    return [work(f"t{n}", **more) for n in range(count)]


def submit(sim, tasks, author="ann", **settings):
    return sim.submit({"tasks": tasks, "run": settings}, author=author)


def dispatched(sim):
    """The run of every attempt, in the order of their dispatch."""
    return [
        event.run for _, _, one in sim.log for event in one.events if isinstance(event, e.AttemptDispatched)
    ]  # fmt: skip


def settled_s(sim, run):
    record = sim.state.runs[run]
    return record.settled_at - record.submitted_at


def small_after_big(**more):
    """How long 4 tasks of half a second take on 4 slots that a run of 200 came to first."""
    sim = Simulator(**more)
    submit(sim, many(200))
    sim.advance(3.0)
    small = submit(sim, many(4), author="ben")
    sim.settle(200.0)
    sim.prove_replay()
    return settled_s(sim, small)


def test_a_small_run_does_not_wait_for_a_large_one_of_somebody_else():
    assert small_after_big() < 2.5


def test_nor_for_a_large_one_of_the_same_user():
    sim = Simulator()
    submit(sim, many(200))
    sim.advance(3.0)
    small = submit(sim, many(4))
    sim.settle(200.0)
    assert settled_s(sim, small) < 2.5


def test_users_get_equal_parts_however_many_runs_they_have():
    sim = Simulator()
    first = {submit(sim, many(60), author="ann") for _ in range(3)}
    submit(sim, many(60), author="ben")
    sim.advance(12.0)
    order = dispatched(sim)[8:]
    assert abs(sum(run in first for run in order) - len(order) / 2) <= 0.15 * len(order)


def test_a_weight_of_three_gets_three_quarters():
    sim = Simulator(settings=CoreSettings(shares=(("ben", 3.0),)))
    submit(sim, many(200), author="ann")
    ben = submit(sim, many(200), author="ben")
    sim.advance(15.0)
    order = dispatched(sim)[8:]
    assert abs(order.count(ben) - len(order) * 0.75) <= 0.12 * len(order)


def test_what_nobody_else_wanted_is_not_charged():
    sim = Simulator()
    submit(sim, many(40), author="ann")
    sim.settle()
    ann, ben = submit(sim, many(40), author="ann"), submit(sim, many(40), author="ben")
    sim.advance(4.0)
    order = dispatched(sim)[40:]
    assert abs(order.count(ann) - order.count(ben)) <= 4


def test_priority_decides_among_the_runs_of_one_user():
    sim = Simulator(workers=1, slots=1)
    submit(sim, many(10))
    urgent = submit(sim, many(5), priority=1)
    sim.settle(100.0)
    assert dispatched(sim)[1:6] == [urgent] * 5


def test_priority_does_not_take_from_others():
    sim = Simulator(workers=1, slots=1)
    ann, ben = submit(sim, many(30), priority=9), submit(sim, many(30), author="ben")
    sim.advance(10.0)
    order = dispatched(sim)
    assert abs(order.count(ann) - order.count(ben)) <= 3


def test_of_equal_shares_the_one_with_the_nearer_deadline_goes_first():
    sim = Simulator(workers=1, slots=1)
    submit(sim, [work("busy", run_s=2.0)], author="cy")
    late, soon = submit(sim, many(1), author="ann"), submit(sim, many(1), author="ben", deadline=60)
    sim.settle()
    assert dispatched(sim)[1:] == [soon, late]


def test_work_that_needs_no_core_is_shared_too():
    sim = Simulator(workers=1, slots=1, check=False)
    submit(sim, many(2500, skill="sim.light", run_s=0.5))
    small = submit(sim, many(50, skill="sim.light", run_s=0.5), author="ben")
    sim.run_until(sim.now + 1.4, lambda: False)
    assert type(sim.state.runs[small].state) is Closed


def test_shares_are_counted_again_when_the_fleet_changes():
    sim = Simulator(workers=3)
    submit(sim, many(120))
    submit(sim, many(120), author="ben")
    sim.advance(2.0)
    sim.workers[2].kill(1000.0)
    sim.advance(20.0)
    ledger = sim.machine._turn.ledger
    assert ledger.counts
    assert ledger.fairness.capacity[0] == 4.0
    sim.settle(200.0)
    for account in ledger.fairness.users.values():
        assert abs(account.held[0]) < 1e-9


def test_counting_ends_when_nobody_has_waited_for_a_while():
    sim = Simulator()
    submit(sim, many(12))
    submit(sim, many(12), author="ben")
    sim.settle()
    submit(sim, many(100, run_s=4.0))
    sim.settle(200.0)
    assert not sim.machine._turn.ledger.counts
    assert all(session.tell is None for session in sim.machine.fleet.sessions.values())


def test_other_skills_compete_for_the_same_slots():
    sim = Simulator()
    submit(sim, many(200))
    sim.advance(3.0)
    small = submit(sim, many(4, skill="sim.other"), author="ben")
    sim.settle(200.0)
    assert settled_s(sim, small) < 2.5


def test_long_tasks_under_way_count_before_they_end():
    sim = Simulator()
    ann = submit(sim, many(8, run_s=30.0), author="ann")
    sim.advance(1.0)
    ben = submit(sim, many(8, run_s=30.0), author="ben")
    sim.advance(40.0)
    assert dispatched(sim) == [ann] * 4 + [ben] * 4
    sim.advance(30.0)
    assert set(dispatched(sim)[8:]) == {ann, ben}


def test_a_class_goes_before_all_of_the_next():
    sim = Simulator(workers=1, slots=1)
    submit(sim, many(20), sla="batch")
    sim.advance(1.2)
    standard = submit(sim, many(3), author="ben")
    interactive = submit(sim, many(3), author="cy", sla="interactive")
    sim.settle(100.0)
    order = dispatched(sim)
    assert order[order.index(interactive) :][:3] == [interactive] * 3
    assert [run for run in order if run != interactive][3:6] == [standard] * 3 or order.index(standard) <= 3


# What people are told


def test_explain_says_whose_turn_it_is():
    sim = Simulator(workers=1, slots=1)
    batch = submit(sim, many(6), sla="batch")
    sim.advance(0.7)
    ann = submit(sim, many(6), author="ann")
    ben = submit(sim, many(6), author="ben")
    sim.advance(0.9)
    last = sim.machine.explain(batch, "t5")["why"]
    assert last.startswith("waiting for a free slot on w1; ")
    assert last.endswith(" go first")
    assert {f"r{ann} (standard)", f"r{ben} (standard)"} == set(
        last.partition("; ")[2].removesuffix(" go first").split(", ")
    )
    whys = sim.machine.explain(ann, "t5")["why"], sim.machine.explain(ben, "t5")["why"]
    assert sum("has had less) goes first" in why for why in whys) == 1


def test_the_standing_of_a_run_is_what_its_user_holds():
    sim = Simulator(settings=CoreSettings(shares=(("ann", 2.0),)))
    ann = submit(sim, many(3, run_s=5.0), author="ann")
    sim.advance(1.0)
    row = sim.machine.standing(sim.state.runs[ann])
    assert (row.user, row.weight, row.sla, row.resource, row.holds) == ("ann", 2.0, "standard", "cpu", 0.75)
    assert (row.lately, row.ready, row.first) == (None, 0, "")
    ben = submit(sim, many(9, run_s=5.0), author="ben", sla="batch")
    again = submit(sim, many(9, run_s=5.0), author="ann")
    sim.advance(1.0)
    row = sim.machine.standing(sim.state.runs[ben])
    assert row.ready == 8
    assert 0.0 < row.lately < 0.25
    assert row.first == f"r{again} (standard) goes first"


# Large tasks


def wide(**more):
    return work("wide", needs={"cpu": 2}, **more)


def test_a_large_task_is_not_passed_by_small_ones_for_ever():
    sim = Simulator(workers=1, slots=2)
    submit(sim, [work(f"t{n}", run_s=1.0 + 0.3 * (n % 3)) for n in range(80)])
    sim.advance(1.5)
    large = submit(sim, [wide()], author="ben")
    sim.settle(200.0)
    assert settled_s(sim, large) < 9.0
    assert not sim.machine._turn.room.kept
    assert all(session.kept_for is None for session in sim.machine.fleet.sessions.values())


def test_one_of_the_same_run_neither():
    sim = Simulator(workers=1, slots=2)
    run = submit(sim, [wide(priority=1), *(work(f"t{n}", run_s=1.0 + 0.3 * (n % 3)) for n in range(40))])
    sim.settle(200.0)
    assert sim.task("wide", run).attempts[0].at - sim.started_at < 9.0


def test_a_worker_is_let_go_when_nobody_waits_for_it_any_more():
    sim = Simulator(workers=1, slots=2)
    submit(sim, [work(f"t{n}", run_s=3.0 + (n % 2)) for n in range(20)])
    sim.advance(1.0)
    large = submit(sim, [wide()], author="ben")
    sim.run_until(sim.now + 30.0, lambda: bool(sim.machine._turn.room.kept))
    assert sim.machine._turn.room.kept
    sim.ask(lambda reply: s.CancelRequested(reply, large, "", "ben"))
    sim.advance(0.5)
    assert not sim.machine._turn.room.kept
    sim.settle(200.0)


def test_nobody_is_kept_from_a_user_whose_turn_it_is():
    sim = Simulator(workers=1, slots=2)
    submit(sim, [work(f"w{n}", needs={"cpu": 2}, run_s=2.0) for n in range(20)], sla="batch")
    sim.advance(1.0)
    small = submit(sim, many(60), author="ben")
    sim.settle(300.0)
    assert settled_s(sim, small) < 20.0


def test_a_worker_that_has_something_long_to_do_is_not_kept_for_ever():
    sim = Simulator(workers=1, slots=2)
    submit(sim, [work("long", run_s=300.0), *(work(f"t{n}") for n in range(300))])
    sim.advance(1.0)
    submit(sim, [wide()], author="ben")
    sim.advance(120.0)
    done = sum(task.succeeded for task in sim.state.runs[1].tasks)
    assert done > 100
    sim.settle(400.0)
