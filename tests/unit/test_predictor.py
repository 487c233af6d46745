"""What the predictor says of run times and transfers, from what it was told."""

import math
import random

import pytest

from orchestrator.placement.predictor import DEFAULT_S, Prediction, Predictor
from protocol.profile import LinkProfile

LINK = LinkProfile(bandwidth=1e6, latency_s=0.5)


def ran(predictor, *seconds, skill="x", device="cpu", worker=1, speed=1.0, size=0):
    for run_s in seconds:
        predictor.note(skill, device, worker, speed, size, run_s)
    predictor.refit()


def test_an_unknown_skill_has_a_prior_scaled_by_speed():
    predictor = Predictor()
    assert predictor.measured("x") is None
    found = predictor.predict("x", "gpu", 1, 4.0)
    assert (found.run_s, found.n, found.by) == (DEFAULT_S / 4, 0, "default")
    assert found.low_s < found.run_s < found.p95_s


def test_what_a_skill_declares_goes_before_a_guess_and_what_was_measured_before_that():
    predictor = Predictor()
    predictor.declare("x", 8.0)
    found = predictor.predict("x", "cpu", 1, 2.0)
    assert (found.run_s, found.by) == (4.0, "declared")
    ran(predictor, 5.0, device="gpu")
    assert predictor.predict("x", "cpu", 1, 2.0).by == "skill"


def test_a_measurement_serves_other_classes_by_their_speeds_with_a_wider_interval():
    predictor = Predictor()
    ran(predictor, 2.0, 2.0, 2.0)
    here, elsewhere = predictor.predict("x", "cpu", 1), predictor.predict("x", "gpu", 3, 2.0)
    assert (here.run_s, here.by, here.n) == (2.0, "measured", 3)
    assert (elsewhere.run_s, elsewhere.by) == (1.0, "skill")
    assert elsewhere.p95_s / elsewhere.run_s > here.p95_s / here.run_s
    assert predictor.predict("x", "cpu", 2).by == "class"


def test_what_is_noted_counts_from_the_next_fit_on_and_the_first_runs_at_once():
    predictor = Predictor()
    for n in range(20):
        predictor.note("x", "cpu", 1, 1.0, 0, 1.0)
        predictor.refit(float(n))
    for _ in range(50):
        predictor.note("x", "cpu", 1, 1.0, 0, 3.0)
    predictor.refit(19.01)
    assert predictor.predict("x", "cpu", 1).run_s == 1.0  # settled: not again within a tenth of a second
    assert [predictor.due(at) for at in (19.02, 19.09, 19.11)] == [False, False, True]
    predictor.note("new", "cpu", 1, 1.0, 0, 7.0)
    assert predictor.due(19.02)
    predictor.refit(19.02)
    assert predictor.measured("new") == 7.0
    predictor.refit(19.2)
    assert predictor.predict("x", "cpu", 1).run_s == pytest.approx(3.0)


def test_the_size_of_the_input_counts_where_it_explains_the_run_time():
    predictor, luck = Predictor(), random.Random(1)
    for _ in range(40):
        size = luck.randrange(1_000_000)
        ran(predictor, 0.5 + size * 1e-5 * luck.uniform(0.95, 1.05), size=size)
    assert predictor.predict("x", "cpu", 1, input_bytes=500_000).run_s == pytest.approx(5.5, rel=0.1)
    assert predictor.known()[0].form == "theil-sen"


def test_a_power_of_the_size_is_found_too():
    predictor, luck = Predictor(), random.Random(1)
    for _ in range(40):
        size = luck.randrange(1_000, 1_000_000)
        ran(predictor, (size / 1e4) ** 2 * luck.uniform(0.95, 1.05), size=size)
    assert predictor.predict("x", "cpu", 1, input_bytes=200_000).run_s == pytest.approx(400.0, rel=0.1)
    assert predictor.known()[0].form == "log-log"


def test_nineteen_of_twenty_runs_take_no_longer_than_the_95th_percentile():
    predictor, luck = Predictor(), random.Random(2)
    within = below = 0
    for n in range(1000):
        found = predictor.predict("x", "cpu", 1)
        run_s = luck.lognormvariate(0.0, 0.8)
        if n >= 20:
            within += run_s <= found.p95_s
            below += run_s < found.low_s
        ran(predictor, run_s)
    assert 0.93 <= within / 980 <= 0.97
    assert 0.07 <= below / 980 <= 0.14
    score = predictor.known()[0].score
    assert score.n == 200
    assert 0.9 <= score.covered <= 1.0


def test_a_change_empties_the_window_within_a_few_runs():
    predictor = Predictor()
    luck = random.Random(3)
    ran(predictor, *(1.0 * luck.uniform(0.9, 1.1) for _ in range(50)))
    before = predictor.drifts
    for _ in range(6):
        ran(predictor, 3.0 * luck.uniform(0.9, 1.1))
    assert predictor.predict("x", "cpu", 1).run_s == pytest.approx(3.0, rel=0.15)
    assert predictor.known()[0].changes == 1
    assert predictor.drifted(before)


def test_noise_is_no_drift():
    predictor, luck = Predictor(), random.Random(4)
    ran(predictor, *(luck.lognormvariate(0.0, 0.05) for _ in range(60)))
    before = predictor.drifts
    ran(predictor, *(luck.lognormvariate(0.0, 0.05) for _ in range(200)))
    assert not predictor.drifted(before)
    assert predictor.known()[0].changes == 0


def test_one_run_that_takes_for_ever_moves_nothing():
    predictor = Predictor()
    ran(predictor, *[1.0] * 30, 1000.0, 1.0, 1.0)
    assert predictor.predict("x", "cpu", 1).run_s == pytest.approx(1.0, rel=0.05)


def test_a_slow_device_of_a_class_is_told_from_the_others_and_drawn_towards_them():
    predictor, luck = Predictor(), random.Random(5)
    for _ in range(30):
        for worker, factor in ((1, 1.0), (2, 1.0), (3, 2.0)):
            ran(predictor, factor * luck.uniform(0.95, 1.05), worker=worker)
    slow, quick = predictor.predict("x", "cpu", 3).run_s, predictor.predict("x", "cpu", 1).run_s
    assert slow == pytest.approx(2.0, rel=0.15)
    assert quick == pytest.approx(1.0, rel=0.15)
    assert quick < predictor.predict("x", "cpu", 9).run_s < slow  # a device of the class that nothing is known of


def test_a_device_is_known_from_other_skills():
    predictor, luck = Predictor(), random.Random(5)
    for _ in range(30):
        for worker, factor in ((1, 1.0), (2, 2.0)):
            ran(predictor, factor * luck.uniform(0.95, 1.05), worker=worker)
    ran(predictor, *[10.0] * 5, skill="y", worker=1)
    assert predictor.predict("y", "cpu", 2).run_s > 1.5 * predictor.predict("y", "cpu", 1).run_s


def test_a_class_of_one_device_drifts_as_a_whole():
    predictor = Predictor()
    ran(predictor, *[1.0] * 50, *[2.0] * 50)
    assert predictor.predict("x", "cpu", 1).run_s == pytest.approx(2.0)


def test_what_came_true_is_handed_out_once_with_what_was_said():
    predictor = Predictor(keep=True)
    said = Prediction(1.5, 1.0, 2.0, 4, "class")
    predictor.note("x", "cpu", 1, 1.0, 10, 1.0, said, (3, 2, 1))
    predictor.note("x", "cpu", 1, 1.0, 10, 2.0)
    predictor.refit()
    first, second = predictor.outcomes()
    assert (first.predicted, first.of, first.run_s) == (said, (3, 2, 1), 1.0)
    assert second.predicted is not None  # nobody had asked: it is what would have been said
    assert predictor.outcomes() == []


def test_runs_that_took_no_time_at_all_break_nothing():
    predictor = Predictor()
    ran(predictor, *[0.0] * 30, size=5)
    ran(predictor, *[0.0] * 30, size=0)
    found = predictor.predict("x", "cpu", 1)
    assert 0.0 < found.run_s < 1e-5
    assert math.isfinite(found.p95_s)


def test_a_transfer_goes_by_the_profile_until_one_was_measured():
    predictor = Predictor()
    assert predictor.transfer_s(1, LINK, 1_000_000) == 1.5
    predictor.note_transfer(1, LINK, 1_000_000, 3.0)
    assert predictor.transfer_s(1, LINK, 1_000_000) == pytest.approx(3.0)
    assert predictor.transfer_s(2, LINK, 1_000_000) == pytest.approx(3.0)  # a link like it
    assert predictor.transfer_s(2, LinkProfile(1e9, 0.0), 1_000_000) == 0.001


def test_latency_and_throughput_are_told_apart_by_transfers_of_unlike_size():
    predictor, luck = Predictor(), random.Random(6)
    for _ in range(60):
        size = luck.choice((1_000, 100_000, 5_000_000))
        predictor.note_transfer(1, LINK, size, (0.2 + size / 4e6) * luck.uniform(0.9, 1.1))
    assert predictor.transfer_s(1, LINK, 0) == pytest.approx(0.2, rel=0.2)
    assert predictor.transfer_s(1, LINK, 40_000_000) == pytest.approx(10.2, rel=0.1)


def test_a_worker_goes_by_its_own_link_once_it_has_moved_a_few_files():
    predictor = Predictor()
    for _ in range(20):
        predictor.note_transfer(1, LINK, 1_000_000, 1.5)
    for _ in range(4):
        predictor.note_transfer(2, LINK, 1_000_000, 9.0)
    assert predictor.transfer_s(2, LINK, 1_000_000) == pytest.approx(1.5, rel=0.01)
    predictor.note_transfer(2, LINK, 1_000_000, 9.0)
    assert predictor.transfer_s(2, LINK, 1_000_000) == pytest.approx(9.0, rel=0.01)


def test_what_was_learned_of_skills_and_links_is_learned_again_from_what_was_kept():
    first, second = Predictor(keep=True), Predictor(keep=True)
    ran(first, *[2.0] * 5, *[4.0] * 40, worker=7, size=100)
    for _ in range(6):
        first.note_transfer(7, LINK, 1_000_000, 3.0)
    second.recall(first.outcomes())
    assert second.predict("x", "cpu", 7, input_bytes=100) == first.predict("x", "cpu", 7, input_bytes=100)
    assert second.transfer_s(7, LINK, 5_000_000) == first.transfer_s(7, LINK, 5_000_000)
    assert second.outcomes() == []


def crowded(predictor, runs, seconds, beside, seed=8):
    luck = random.Random(seed)
    for n in range(runs):
        beside_now = beside[n % len(beside)]
        took = seconds(beside_now) * luck.lognormvariate(0.0, 0.1)
        predictor.note("x", "cpu", 1, 1.0, 0, took, beside=beside_now)
        predictor.refit()


def test_what_runs_beside_a_task_counts_once_it_is_seen_to_slow_it():
    predictor = Predictor()
    crowded(predictor, 60, lambda others: 1.5**others, (0, 3, 1, 2, 0, 2))
    alone, among = (predictor.predict("x", "cpu", 1, beside=others).run_s for others in (0, 3))
    assert alone == pytest.approx(1.0, rel=0.2)
    assert among == pytest.approx(1.5**3, rel=0.2)
    assert alone < predictor.predict("x", "cpu", 1).run_s < among  # nobody says how many: as usual
    assert predictor.crowded
    assert predictor.known()[0].slows == pytest.approx(1.5, rel=0.1)


def test_what_runs_beside_a_task_does_not_count_where_it_does_not_help():
    predictor = Predictor()
    crowded(predictor, 60, lambda others: 1.0, (0, 3, 1, 2, 0, 2))
    assert predictor.predict("x", "cpu", 1, beside=0) == predictor.predict("x", "cpu", 1, beside=3)
    assert not predictor.crowded


def test_it_counts_no_longer_when_the_errors_with_it_have_become_worse():
    predictor = Predictor()
    crowded(predictor, 60, lambda others: 1.5**others, (0, 3, 1, 2, 0, 2))
    crowded(predictor, 200, lambda others: 2.0, (0, 3, 1, 2, 0, 2))
    assert predictor.predict("x", "cpu", 1, beside=0).run_s == pytest.approx(2.0, rel=0.1)
    assert predictor.known()[0].slows == 1.0


def test_a_model_is_known_by_its_tokens_and_each_endpoint_by_its_rates():
    predictor, luck = Predictor(), random.Random(7)
    pace = predictor.token_pace
    assert pace.tokens("llm.ask") is None
    assert pace.rates(1) is None
    for _ in range(50):
        read, written = luck.randrange(200, 4_000), luck.randrange(20, 400)
        pace.note("llm.ask", 1, read, written, 0.3 + read / 2_000 + written / 40)
    rates = pace.rates(1)
    assert 1 / rates.decode_s == pytest.approx(40, rel=0.1)
    assert 1 / rates.prefill_s == pytest.approx(2_000, rel=0.2)
    assert rates.latency_s == pytest.approx(0.3, abs=0.3)
    pace.note("llm.classify", 2, 500, 8, 0.75)
    found = predictor.predict("llm.classify", "cpu", 1)  # it never ran there, but others have asked that model
    assert found.run_s == pytest.approx(0.3 + 500 / 2_000 + 8 / 40, abs=0.3)
    assert found.by == "skill"
    assert predictor.predict("llm.classify", "cpu", 3).by == "default"  # nothing is known of that worker's model


def asked(predictor, worker, runs, tokens_s, skill="llm.ask", seed=9):
    luck = random.Random(seed)
    for _ in range(runs):
        read, written = luck.randrange(200, 4_000), luck.randrange(150, 250)
        took = read / 2_000 + written / tokens_s
        predictor.note(skill, "cpu", worker, 1.0, 0, took, tokens_in=read, tokens_out=written)
    predictor.refit()


def test_the_pace_of_a_model_survives_in_what_is_kept():
    first, second = Predictor(keep=True), Predictor(keep=True)
    asked(first, 1, 40, 40.0)
    second.recall(first.outcomes())
    assert second.token_pace.rates(1) == first.token_pace.rates(1)
    asked(second, 2, 5, 200.0, skill="llm.classify")
    assert second.predict("llm.classify", "cpu", 1).run_s == pytest.approx(2_000 / 2_000 + 200 / 40, rel=0.3)


def test_one_skill_at_two_models_takes_what_each_of_them_takes_and_slows_nothing_else_there():
    predictor = Predictor()
    for _ in range(12):
        for worker, tokens_s in ((1, 20.0), (2, 200.0)):
            asked(predictor, worker, 3, tokens_s, seed=worker)
            ran(predictor, 1.0, 1.0, skill="y", worker=worker)
    slow, fast = (predictor.predict("llm.ask", "cpu", worker).run_s for worker in (1, 2))
    assert slow - fast == pytest.approx(200 / 20 - 200 / 200, rel=0.3)
    plain = [predictor.predict("y", "cpu", worker).run_s for worker in (1, 2)]
    assert plain == pytest.approx([1.0, 1.0], rel=0.01)
