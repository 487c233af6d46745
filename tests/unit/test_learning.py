"""How well run times are predicted, as far as a recorded workflow tells."""

import pytest

from bench.placement.learning import learning
from bench.placement.workflow import Workflow


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
