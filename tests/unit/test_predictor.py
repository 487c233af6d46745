"""What the predictor says of run times and transfers, from what it was told."""

from orchestrator.placement.predictor import DEFAULT_S, Predictor
from protocol.profile import LinkProfile


def test_an_unknown_skill_has_a_prior_scaled_by_speed():
    predictor = Predictor()
    assert predictor.measured("x") is None
    found = predictor.predict("x", "gpu", 1, 4.0)
    assert (found.run_s, found.n, found.by) == (DEFAULT_S / 4, 0, "default")
    assert found.low_s < found.run_s < found.p95_s


def test_measurements_move_the_estimate_and_serve_other_devices():
    predictor = Predictor()
    for run_s in (2.0, 4.0):
        predictor.note("x", "cpu", 1, 1.0, 0, run_s)
    on_cpu = predictor.predict("x", "cpu", 2)
    assert 2.0 < on_cpu.run_s < 4.0
    elsewhere = predictor.predict("x", "gpu", 3, 2.0)
    assert elsewhere.run_s == on_cpu.run_s / 2
    assert elsewhere.by == "skill"


def test_a_prediction_that_moves_by_more_than_a_tenth_is_a_drift():
    predictor = Predictor()
    for _ in range(10):
        predictor.note("x", "cpu", 1, 1.0, 0, 2.0)
    mark = predictor.drifts
    assert not predictor.drifted(mark)
    predictor.note("x", "cpu", 1, 1.0, 0, 4.0)
    assert predictor.drifted(mark)


def test_a_transfer_goes_by_the_profile_until_one_was_measured():
    predictor, link = Predictor(), LinkProfile(bandwidth=1e6, latency_s=0.5)
    assert predictor.transfer_s(1, link, 1_000_000) == 1.5
    predictor.note_transfer(1, link, 1_000_000, 2.5)
    assert predictor.transfer_s(1, link, 1_000_000) == 2.5
    assert predictor.transfer_s(2, link, 1_000_000) == 1.5
