"""What a plan means: conditions, first-of references, maps in all their forms, `all`."""

import msgspec
import pytest

from bench.simulated_worker import profile_of
from bench.simulator import Refused, Simulator
from protocol.artifact import ArtifactRef
from protocol.outcome import Failure, Success


def fails(job):
    yield 0.01
    return Failure("Bad", f"{job.name} failed as told")


def run(tasks, *, program=None, outputs=(), inputs=(), settings=None, limit_s=120.0, **more):
    sim = Simulator(program=program, **more)
    sim.submit({"tasks": tasks, "outputs": list(outputs), "inputs": list(inputs), "run": settings or {}})
    sim.settle(limit_s)
    sim.prove_replay()
    return sim


def echo(ident, value=1, **more):
    return {"id": ident, "skill": "flow.echo", "args": {"value": value}, **more}


def value(sim, name):
    return msgspec.json.decode(sim.task(name).value)["value"]


LIST = {"id": "l", "skill": "flow.list", "args": {"items": [3, 1, 2]}}


def test_values_flow_through_references():
    sim = run([echo("a", 5), echo("b", [{"ref": "a/value"}, {"literal": {"ref": "a"}}])])
    assert value(sim, "b") == [5, {"ref": "a"}]
    assert sim.state.runs[1].state.state == "succeeded"


@pytest.mark.parametrize(
    ("line", "held"),
    [
        ({"ref": "a/value", "op": ">", "value": 4}, True),
        ({"ref": "a/value", "op": "<=", "value": 4}, False),
        ({"ref": "a/value", "op": "==", "value": 5.0}, True),
        ({"ref": "a/value", "op": "!=", "value": 5}, False),
        ({"ref": "a/value", "op": "in", "value": [4, 5]}, True),
        ({"ref": "a/value", "op": "exists"}, True),
        ({"ref": "a/nothing", "op": "exists"}, False),
        ({"ref": "a/nothing", "op": ">", "value": 1}, False),
        ({"ref": "a", "is": "succeeded"}, True),
        ({"ref": "a", "is": "failed"}, False),
        ({"ref": "a", "is": "finished"}, True),
    ],
)
def test_when_decides_between_running_and_skipping(line, held):
    sim = run([echo("a", 5), echo("b", 1, when=[line])])
    assert sim.states()["b"] == ("succeeded" if held else "skipped")
    assert sim.state.runs[1].state.state == "succeeded"


def test_unlike_types_fail_the_task_with_when_type():
    sim = run([echo("a", "five"), echo("b", 1, when=[{"ref": "a/value", "op": ">", "value": 4}])])
    assert sim.task("b").state.code == "WhenType"


def test_when_on_a_failure_handles_it():
    tasks = [echo("a"), echo("b", 1, when=[{"ref": "a", "is": "failed"}])]
    sim = run(tasks, program={"a": fails})
    assert sim.states() == {"a": "failed", "b": "succeeded"}
    assert sim.state.runs[1].state.state == "succeeded"


def test_skipping_follows_data_references_and_not_after():
    tasks = [
        echo("a", 1),
        echo("b", 1, when=[{"ref": "a/value", "op": ">", "value": 4}]),
        echo("needs", {"ref": "b/value"}),
        echo("comes", 1, after=["b"]),
    ]
    assert run(tasks).states() == {"a": "succeeded", "b": "skipped", "needs": "skipped", "comes": "succeeded"}


def test_after_a_failed_task_nothing_runs():
    sim = run([echo("a"), echo("b", 1, after=["a"]), echo("c", 1)], program={"a": fails})
    assert sim.states() == {"a": "failed", "b": "skipped", "c": "succeeded"}
    assert sim.state.runs[1].state.state == "failed"


def test_first_of_takes_the_first_that_succeeded_and_waits_for_all():
    tasks = [echo("a", 1), echo("b", 2), echo("c", {"ref": ["a/value", "b/value"]})]
    assert value(run(tasks, program={"a": fails}), "c") == 2
    assert value(run(tasks), "c") == 1


def test_first_of_none_skips():
    tasks = [echo("a", 1), echo("b", 2), echo("c", {"ref": ["a/value", "b/value"]})]
    assert run(tasks, program={"a": fails, "b": fails}).states()["c"] == "skipped"


def test_a_run_whose_tasks_are_all_skipped_succeeds_without_outputs_and_fails_with_them():
    tasks = [echo("a", 1, when=[{"ref": "input/go", "op": "==", "value": True}])]
    inputs = [{"name": "go", "type": "boolean", "default": False}]
    assert run(tasks, inputs=inputs).state.runs[1].state.state == "succeeded"
    sim = run(tasks, inputs=inputs, outputs=[{"name": "o", "ref": "a/value"}])
    assert (sim.state.runs[1].state.state, sim.state.runs[1].state.message) == ("failed", "no output o")


def test_map_runs_once_an_element_and_its_result_is_the_list_in_order():
    sim = run([LIST, echo("m", {"ref": "l/items[]"}), echo("whole", {"ref": "m"})])
    assert value(sim, "whole") == [{"value": 3}, {"value": 1}, {"value": 2}]
    assert sim.state.runs[1].name_of(sim.task("m.1")) == "m.1"


def test_chained_map_starts_an_element_when_its_upstream_element_is_done():
    def slow(job):
        yield 5.0 if job.args["value"] == 1 else 0.01
        return {"value": job.args["value"]}

    sim = run([LIST, echo("m", {"ref": "l/items[]"}), echo("n", {"ref": "m[]/value"})], program={"m": slow})
    assert [value(sim, f"n.{k}") for k in range(3)] == [3, 1, 2]
    done = {name: sim.task(name).state.at for name in ("m.1", "n.0", "n.2")}
    assert done["n.0"] < done["m.1"]
    assert done["n.2"] < done["m.1"]


def test_two_lists_are_zipped_and_unlike_lengths_are_a_type_error():
    both = [echo("z", [{"ref": "l/items[]"}, {"ref": "input/more[]"}])]
    inputs = [{"name": "more", "type": "array", "default": [7, 8, 9]}]
    sim = run([LIST, *both], inputs=inputs)
    assert [value(sim, f"z.{k}") for k in range(3)] == [[3, 7], [1, 8], [2, 9]]
    inputs[0]["default"] = [7]
    assert run([LIST, *both], inputs=inputs).task("z").state.code == "MapType"


@pytest.mark.parametrize("chunk", [2, "auto"])
def test_chunks_hold_several_items_and_flatten(chunk):
    tasks = [
        {"id": "l", "skill": "flow.list", "args": {"items": [1, 2, 3, 4, 5]}},
        echo("m", {"ref": "l/items[]"}, map={"chunk": chunk}),
        echo("n", {"ref": "m[]/value"}),
        echo("whole", {"ref": "m"}),
        echo("one", {"ref": "m/3/value"}),
    ]
    sim = run(tasks, workers=1, slots=1)
    assert value(sim, "whole") == [{"value": k} for k in range(1, 6)]
    assert [value(sim, f"n.{k}") for k in range(5)] == [1, 2, 3, 4, 5]
    assert value(sim, "one") == 4
    assert len(sim.state.runs[1].children(sim.task("m"))) == (3 if chunk == 2 else 5)


@pytest.mark.parametrize(("takes_s", "chunk"), [(0.3, 1), (0.02, 5), (0.0001, 10)])
def test_an_automatic_chunk_is_sized_by_what_was_measured(takes_s, chunk):
    sim = Simulator(workers=1, slots=1)
    predictor = sim.machine.predictor
    for _ in range(5):
        predictor.note("flow.echo", "cpu", 1, 1.0, 0, takes_s)
    predictor.refit()
    items = {"id": "l", "skill": "flow.list", "args": {"items": list(range(40))}}
    sim.submit({"tasks": [items, echo("m", {"ref": "l/items[]"}, map={"chunk": "auto"})]})
    sim.settle(120.0)
    assert sim.task("m").spread.chunk == chunk


@pytest.mark.parametrize("limit", [1, 2])
def test_limit_bounds_how_many_run_at_once_and_does_not_stall(limit):
    running, most = set(), []

    def watch(job):
        running.add(job.name)
        most.append(len(running))
        yield 0.1
        running.discard(job.name)
        return Failure("Bad", "odd") if job.name.endswith("3") else {"value": 1}

    items = {"id": "l", "skill": "flow.list", "args": {"items": list(range(8))}}
    tasks = [items, echo("m", {"ref": "l/items[]"}, map={"limit": limit, "on_error": "collect"})]
    sim = run(tasks, program={"m": watch})
    assert max(most) == limit
    assert sim.states()["m"] == "succeeded"


def test_limit_goes_on_when_a_child_fails_before_it_is_dispatched():
    tasks = [LIST, echo("m", {"ref": "l/items[]/nope"}, map={"limit": 1, "on_error": "collect"})]
    sim = run(tasks)
    assert {sim.task(f"m.{k}").state.code for k in range(3)} == {"RefMissing"}


def test_empty_list_succeeds_with_an_empty_result():
    tasks = [{"id": "l", "skill": "flow.list", "args": {"items": []}}, echo("m", {"ref": "l/items[]"})]
    sim = run([*tasks, echo("whole", {"ref": "m"}), echo("n", {"ref": "m[]/value"})])
    assert value(sim, "whole") == []
    assert sim.states()["n"] == "succeeded"


def test_not_a_list_is_map_type():
    assert run([echo("a", 5), echo("m", {"ref": "a/value[]"})]).task("m").state.code == "MapType"
    assert run([echo("a", 5), echo("m", {"ref": "a/nope[]"})]).task("m").state.code == "MapType"


def test_too_many_elements_are_refused_by_name():
    assert run([LIST, echo("m", {"ref": "l/items[]"}, map={"max": 2})]).task("m").state.code == "MapTooLarge"


def test_first_failed_child_cancels_the_others_and_the_map_fails_after_they_ended():
    def slow(job):
        if job.args["value"] == 1:
            yield 0.1
            return Failure("Bad", "one")
        yield 50.0
        return {"value": 0}

    sim = run([LIST, echo("m", {"ref": "l/items[]"}), echo("n", {"ref": "m"})], program={"m": slow})
    states = sim.states()
    assert [states[f"m.{k}"] for k in range(3)] == ["cancelled", "failed", "cancelled"]
    assert (states["m"], sim.task("m").state.code, states["n"]) == ("failed", "Bad", "skipped")
    assert sim.task("m").state.at >= max(sim.task(f"m.{k}").state.at for k in range(3))


def test_collect_keeps_errors_in_their_place():
    def odd(job):
        yield 0.01
        return Failure("Bad", "one") if job.args["value"] == 1 else {"value": job.args["value"]}

    tasks = [LIST, echo("m", {"ref": "l/items[]"}, map={"on_error": "collect"}), echo("whole", {"ref": "m"})]
    sim = run(tasks, program={"m": odd})
    assert value(sim, "whole") == [{"value": 3}, {"error": {"code": "Bad", "message": "one"}}, {"value": 2}]


def test_a_map_both_chained_and_needed_as_a_whole_waits_for_the_whole():
    tasks = [LIST, echo("m", {"ref": "l/items[]"}), echo("n", [{"ref": "m[]/value"}, {"ref": "m"}])]
    sim = run(tasks)
    assert value(sim, "n.0") == [3, [{"value": 3}, {"value": 1}, {"value": 2}]]


def test_when_on_a_chained_map_waits_until_it_is_final():
    tasks = [
        LIST,
        echo("m", {"ref": "l/items[]"}),
        echo("n", {"ref": "m[]/value"}, when=[{"ref": "m", "is": "succeeded"}]),
    ]
    assert run(tasks).states()["n"] == "succeeded"


def test_all_runs_once_on_every_connected_worker():
    sim = run([echo("a", 1, on=["all"]), echo("b", {"ref": "a"})], workers=3)
    workers = {sim.task(f"a.{k}").winner().worker for k in range(3)}
    assert workers == {1, 2, 3}
    assert len(value(sim, "b")) == 3


def test_on_another_task_runs_where_that_ran():
    sim = run([echo("a", 1, on=["w2"]), echo("b", 1, on=[{"ref": "a"}])], workers=3)
    assert sim.task("b").winner().worker == sim.task("a").winner().worker == 2


def test_local_skills_run_here():
    sim = Simulator(workers=3, program={"fs.find": fails})
    sim.submit({"tasks": [{"id": "a", "skill": "fs.find", "args": {"path": "."}}]}, home="w3")
    sim.settle()
    assert [attempt.worker for attempt in sim.task("a").attempts] == [3]


def test_fallback_takes_any_when_there_is_no_gpu_and_the_gpu_when_there_is():
    tasks = [{"id": "a", "skill": "sim.work", "args": {}, "on": ["gpu", "any"]}]
    assert run(tasks).task("a").winner().worker in (1, 2)
    assert run(tasks, workers=[profile_of(), profile_of(gpu=1)]).task("a").winner().worker == 2


def test_artifacts_are_read_by_the_engine_for_maps_and_conditions():
    ref = ArtifactRef("sha256:" + "a" * 64, "application/json", 100_000)

    def large(job):
        yield 0.01
        return Success(ref)

    tasks = [
        echo("a"),
        echo("m", {"ref": "a/rows[]/n"}),
        echo("w", 1, when=[{"ref": "a/rows/0/n", "op": "==", "value": 7}]),
        echo("x", 1, when=[{"ref": "a/rows/9", "op": "exists"}]),
        echo("t", 1, when=[{"ref": "a/rows", "op": ">", "value": 7}]),
    ]
    sim = Simulator(program={"a": large})
    sim.artifacts[ref.digest] = {"rows": [{"n": 7}, {"n": 8}]}
    sim.submit({"tasks": tasks})
    sim.settle()
    sim.prove_replay()
    assert [value(sim, f"m.{k}") for k in range(2)] == [7, 8]
    states = sim.states()
    assert (states["w"], states["x"], sim.task("t").state.code) == ("succeeded", "skipped", "WhenType")


def test_every_problem_of_a_plan_is_named_and_nothing_is_made():
    sim = Simulator()
    unknown, wrong = {"id": "a", "skill": "flow.ecko", "args": {}}, {"id": "c", "skill": "flow.echo", "args": {}}
    with pytest.raises(Refused) as found:
        sim.submit({"tasks": [unknown, echo("b", 1, on=["mars"]), wrong]})
    assert {"UnknownSkill", "UnknownPlace"} <= set(found.value.codes)
    assert len(found.value.codes) >= 3
    assert not sim.state.runs


def test_ten_thousand_in_a_row_neither_recurse_nor_stall():
    tasks = [echo("t0", 0), *(echo(f"t{k}", {"ref": f"t{k - 1}/value"}) for k in range(1, 3000))]
    tasks[0]["when"] = [{"ref": "input/go", "op": "==", "value": True}]
    sim = run(tasks, inputs=[{"name": "go", "type": "boolean", "default": False}], check=False)
    assert set(sim.states().values()) == {"skipped"}


def test_a_run_time_goes_by_what_the_argument_of_the_task_says():
    def sleeps(job):
        yield job.args["seconds"]
        return {"value": None}

    program = {f"s{n}": sleeps for n in range(12)}
    tasks = [{"id": name, "skill": "flow.sleep", "args": {"seconds": 1 + n % 5}} for n, name in enumerate(program)]
    sim = run(tasks, program=program, workers=1, slots=1)
    predictor = sim.machine.predictor
    predictor.refit()
    (known,) = predictor.known()
    for seconds in (2, 20):
        found = predictor.predict("flow.sleep", known.device_class, 1, 1.0, seconds * 1_000_000)
        assert found.run_s == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize("chunk", [1, 2])
def test_one_field_of_every_element_is_gathered_into_a_list(chunk):
    tasks = [
        LIST,
        echo("m", {"ref": "l/items[]"}, map={"chunk": chunk}),
        echo("all", {"ref": "m/*/value"}),
        echo("again", {"ref": "m/*/value[]"}),
        echo("held", 1, when=[{"ref": "m/*/value", "op": "==", "value": [3, 1, 2]}]),
        echo("bare", 1, when=[{"ref": "m", "op": "==", "value": [{"value": n} for n in (3, 1, 2)]}]),
        echo("star", {"*": 1}),
        echo("name", {"ref": "star/value/*"}),
    ]
    sim = run(tasks, outputs=[{"name": "o", "ref": "m/*/value"}], workers=1, slots=1)
    assert value(sim, "all") == [3, 1, 2]
    assert [value(sim, f"again.{k}") for k in range(3)] == [3, 1, 2]
    assert value(sim, "name") == 1
    assert set(sim.states().values()) == {"succeeded"}


def test_what_one_element_lacks_is_not_gathered_and_the_element_is_named():
    def odd(job):
        yield 0.01
        return Failure("Bad", "one") if job.args["value"] == 1 else {"value": job.args["value"]}

    tasks = [
        LIST,
        echo("m", {"ref": "l/items[]"}, map={"on_error": "collect"}),
        echo("n", {"ref": "m/*/value"}),
        echo("there", 1, when=[{"ref": "m/*/value", "op": "exists"}]),
    ]
    sim = run(tasks, program={"m": odd})
    assert sim.task("n").state.code == "RefMissing"
    assert "no /value in element 1" in sim.task("n").state.message
    assert sim.states()["there"] == "skipped"


def test_nothing_is_gathered_from_an_empty_map_and_nothing_at_all_from_a_skipped_one():
    empty = {"id": "l", "skill": "flow.list", "args": {"items": []}}
    gathered = echo("n", {"ref": "m/*/value"})
    assert value(run([empty, echo("m", {"ref": "l/items[]"}), gathered]), "n") == []
    skipped = echo("m", {"ref": "l/items[]"}, when=[{"ref": "l/items/0", "op": "==", "value": 9}])
    assert run([LIST, skipped, gathered]).states()["n"] == "skipped"


def test_large_elements_are_gathered_where_they_are_read():
    ref = ArtifactRef("sha256:" + "a" * 64, "application/json", 100_000)

    def large(job):
        yield 0.01
        return Success(ref) if job.args["value"] == 1 else {"value": job.args["value"]}

    sim = Simulator(program={"m": large})
    sim.artifacts[ref.digest] = {"value": 1, "much": "more"}
    sim.submit({"tasks": [LIST, echo("m", {"ref": "l/items[]"}), echo("n", {"ref": "m/*/value"})]})
    sim.settle()
    assert value(sim, "n") == [3, 1, 2]
