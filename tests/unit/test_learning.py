"""How well run times are predicted, as far as a recorded workflow tells."""

import msgspec
import pytest

from bench.placement.learning import learning
from bench.placement.sharing import TASKS, held_against, tasks_of
from bench.placement.workflow import Workflow
from orchestrator.placement.dice import Dice
from orchestrator.placement.predictor import Outcome
from protocol.plan import parse_plan


def recorded(took, kinds, reads=None):
    count = len(took)
    return Workflow(
        "w", took, [0.0] * count, [[] for _ in took], [[] for _ in took], kinds=kinds, reads=reads or [0.0] * count
    )


def test_what_takes_as_long_as_its_input_is_large_is_predicted_and_a_moving_mean_is_not():
    took = [float(1 + n * 37 % 100) for n in range(200)]
    found = learning([recorded(took, ["grep"] * 200, [one * 1e6 for one in took])])
    assert found.predictions == 199
    assert found.error < 0.01
    assert found.ema_error > 0.3
    assert found.covered > 0.9


def test_the_first_of_a_kind_is_not_judged():
    assert learning([recorded([1.0, 5.0, 9.0], ["a", "b", "c"])]) is None
    found = learning([recorded([1.0, 5.0, 1.0], ["a", "b", "a"])])
    assert (found.predictions, found.error) == (1, pytest.approx(0.0))


def test_runs_that_share_cores_are_held_against_predictions_that_count_it_and_that_do_not():
    dice = Dice(3)
    kept = [
        Outcome("share.copy", "cpu", 1, 1.0, 0, 0.1 * 1.6**beside * (0.9 + 0.2 * dice.uniform()), beside=beside)
        for _ in range(30)
        for beside in (0, 2, 1, 3)
    ]
    found = held_against(kept)
    assert found.runs == 119  # nobody could know the first
    assert found.error < 0.5 * found.alone_error
    assert 1.4 < found.slows["share.copy"] < 1.8
    alone = held_against(msgspec.structs.replace(one, run_s=0.1) for one in kept)
    assert (alone.error, alone.slows) == (alone.alone_error, {"share.copy": 1.0})


def test_loads_that_share_a_machine_are_a_plan_of_tasks_that_come_at_drawn_times():
    plan = parse_plan({"tasks": tasks_of(1, 14.0)})
    assert tasks_of(1, 14.0) == tasks_of(1, 14.0)
    assert len(plan.tasks) == 2 * TASKS
