"""Curves through points that a known curve made, and points that carry none."""

from __future__ import annotations

from random import Random

import pytest

from bench.curve import Saturation, fit, saturation

PLACES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def test_a_fit_finds_the_line_and_the_exponent_that_points_were_made_with() -> None:
    found = fit([(x, 0.5 + 2.0 * x) for x in (1.0, 2.0, 5.0, 9.0)])
    assert (found.slope, found.base, found.r2) == pytest.approx((2.0, 0.5, 1.0))
    assert fit([(x, 3.0 * x**1.5) for x in (1.0, 10.0, 100.0)]).exponent == pytest.approx(1.5)
    assert fit([(x, 7.0) for x in (2.0, 10.0, 100.0)]).exponent == pytest.approx(0.0)


def test_growth_that_bends_upwards_shows_in_the_exponent() -> None:
    assert fit([(x, 1e-5 * x + 1e-9 * x * x) for x in (1e3, 1e4, 1e5)]).exponent > 1.3


def test_a_fit_of_one_place_is_refused() -> None:
    with pytest.raises(ValueError, match="two different places"):
        fit([(1.0, 1.0), (1.0, 2.0)])


@pytest.mark.parametrize(("start", "end"), [(1.0, 9.0), (20.0, 2.0)])
def test_a_saturating_curve_is_found_with_its_end_and_next_to_no_error(start: float, end: float) -> None:
    true = Saturation(start, end, middle=6.0, steepness=1.5, error=0.0, r2=1.0)
    found = saturation([(x, true.at(x)) for x in PLACES])
    assert (found.start, found.end, found.middle, found.steepness) == pytest.approx((start, end, 6.0, 1.5), rel=1e-2)
    assert found.error < 1e-3
    assert found.level
    assert found.ahead is not None
    assert found.ahead < 1e-2


def test_the_error_is_what_was_drawn_and_the_end_within_its_own() -> None:
    true, luck = Saturation(1.0, 9.0, 6.0, 1.5, 0.0, 1.0), Random(3)
    found = saturation([(x, true.at(x) + luck.gauss(0.0, 0.1)) for x in PLACES for _ in range(20)])
    assert found.error == pytest.approx(0.1, rel=0.2)
    assert found.end_error is not None
    assert abs(found.end - 9.0) < 4 * found.end_error < 0.5


def test_what_has_not_begun_to_level_off_claims_no_end() -> None:
    assert not saturation([(x, 3.0 * x) for x in PLACES]).level


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ([(x, x) for x in (1.0, 2.0, 4.0, 8.0)] * 5, "4 places; 4 unknowns need 5"),
        ([(x, 7.0) for x in PLACES], "same everywhere"),
        ([(x - 2.0, x) for x in PLACES], "below zero"),
    ],
)
def test_points_that_carry_no_curve_are_refused_with_the_reason(points: list[tuple[float, float]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        saturation(points)
