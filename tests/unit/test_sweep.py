"""`asterism bench sweep`: the grid, the seeds, what fails, what is claimed, and what each suite refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner

from bench.cli import bench
from bench.sweep import Param, Suite, Sweep, Value, read_grid, sweep
from bench.sweep_page import table, write_sweep
from bench.sweep_suite import SUITES, suite_named
from protocol.errors import ConfigInvalid, NotFound, RunFailed, UsageError


class Levelling:
    """y = seed + 10 x / (x + 4), and no fewer than one."""

    name = "levelling"
    figures = ("y",)
    configured = False
    params = (Param("x", 1), Param("way", "up", choices=("up", "broken")))

    async def play(self, point: Mapping[str, Value], environ: Mapping[str, str], seed: int) -> dict[str, float]:
        if point["way"] == "broken" and seed == 8:
            raise RunFailed("it broke")
        x = float(point["x"])
        return {"y": seed + 10 * x / (x + 4)}


def swept(suite: Suite, *params: str, seed: int = 7, repeat: int = 2, until_s: float = 0.0) -> Sweep:
    grid = read_grid(suite, params)
    return anyio.run(
        lambda: sweep(suite, grid, seed=seed, repeat=repeat, say=lambda text: None, until_s=until_s),
    )


def test_every_point_is_played_with_the_same_seeds_and_its_row_is_fitted() -> None:
    found = swept(Levelling(), "x=1,2,4,8,16,32")
    assert [point.values["y"] for point in found.points[:2]] == [(9.0, 10.0), (7 + 20 / 6, 8 + 20 / 6)]
    (row,) = found.rows
    assert row.curve is not None
    assert row.curve.end == pytest.approx(17.5, rel=0.05)
    assert row.curve.error == pytest.approx(0.5, rel=0.3)
    assert "levels off at 17" in table(found)
    assert found.whole


def test_too_few_places_claim_no_curve_and_say_so() -> None:
    found = swept(Levelling(), "x=1,2,4")
    assert found.rows[0].curve is None
    assert "no curve claimed: 3 places" in table(found)


def test_a_play_that_fails_is_named_and_the_rest_goes_on() -> None:
    found = swept(Levelling(), "way=up,broken", "x=1,2")
    assert [len(point.values["y"]) for point in found.points] == [2, 2, 1, 1]
    assert found.points[2].problems == ("seed 8: it broke",)
    assert "way=broken, x=1: seed 8: it broke" in table(found)
    assert not found.whole


def test_what_there_was_no_time_for_is_counted() -> None:
    found = swept(Levelling(), "x=1,2,4", until_s=1e-9)
    assert found.left_out == 6
    assert "6 plays were left out" in table(found)


@pytest.mark.parametrize(
    ("suite", "param", "why"),
    [
        ("schedule", "colour=red", "knows no param colour"),
        ("schedule", "placement.policy=eft", "knows no param placement.policy"),
        ("overhead", "placement.colour=red", "knows no param placement.colour"),
        ("schedule", "policy=lucky", "policy=lucky is none of its values"),
        ("schedule", "slots=many", "slots=many is no number"),
        ("schedule", "slots=0", "out of range"),
        ("schedule", "noise=nan", "out of range"),
        ("schedule", "slots=", "has no values"),
        ("schedule", "slots", "has no values"),
        ("cross-device", "speed=0", "out of range"),
        ("cross-device", "policy=lucky", "none of its values"),
    ],
)
def test_a_param_that_can_t_be_is_refused_by_name(suite: str, param: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        read_grid(suite_named(suite, True), [param])
    if "knows no" in why:
        assert "it knows tasks (a number)" in str(refused.value.hint)


def test_any_setting_may_be_swept_where_a_server_reads_it_and_is_checked_before() -> None:
    suite = suite_named("overhead", True)
    assert read_grid(suite, ["hedge.factor=1.5,2", "daemon.dispatch=ahead,durable"]) == {
        "hedge.factor": (1.5, 2.0),
        "daemon.dispatch": ("ahead", "durable"),
    }
    with pytest.raises(ConfigInvalid, match=r"hedge\.factor"):
        read_grid(suite, ["hedge.factor=0.5"])


def test_only_a_suite_that_has_tasks_lets_choose_them() -> None:
    suite = suite_named("cross-device", True, ("category:backup",))
    assert read_grid(suite, ["slots=0,2", "hedge.factor=1.5"]) == {"slots": (0, 2), "hedge.factor": (1.5,)}
    with pytest.raises(UsageError, match="schedule has no tasks to choose from"):
        suite_named("schedule", True, names=["twelve-months"])
    with pytest.raises(NotFound, match="no task is called twelve-month"):
        suite_named("cross-device", True, names=["twelve-month"])
    with pytest.raises(UsageError, match="no task is chosen"):
        suite_named("cross-device", True, ("tag:none-has-it",))


def test_the_same_seed_draws_the_same_graphs_and_more_slots_end_no_later() -> None:
    found = swept(SUITES["schedule"](True), "slots=1,4", "policy=eft,heft", seed=3)
    again = swept(SUITES["schedule"](True), "slots=1,4", "policy=eft,heft", seed=3)
    assert found.points == again.points
    one, _, four, _ = (point.values["speedup"] for point in found.points)
    assert all(a < b for a, b in zip(one, four))
    assert all(value > 0.999 for point in found.points for value in point.values["makespan_over_bound"])


def test_the_command_prints_json_and_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "sweep.html"
    args = ["sweep", "--suite", "schedule", "--param", "tasks=50,100", "--out", str(page), "-o", "json"]
    result = CliRunner().invoke(bench, args)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [point["settings"] for point in found["points"]] == [{"tasks": 50}, {"tasks": 100}]
    assert found["points"][0]["figures"]["speedup"]["runs"] == 1
    assert "<svg" in page.read_text()


def test_a_page_of_words_is_of_bars(tmp_path: Path) -> None:
    write_sweep(swept(Levelling(), "way=up"), tmp_path / "page.html")
    assert "way=up" in (tmp_path / "page.html").read_text()
