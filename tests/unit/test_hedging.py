"""The figure of hedging: what copies win and cost, by the real core on the virtual clock."""

from bench.placement.hedging import compare, tasks_of


def test_one_attempt_in_twenty_that_hangs_does_not_make_a_run_of_stages_late():
    found = compare("stages", 0)
    assert found.hedged_s < 0.65 * found.alone_s
    assert 0.0 < found.extra <= 0.1


def test_the_same_seed_gives_the_same_figure():
    assert compare("bag", 1) == compare("bag", 1)


def test_stages_wait_for_the_whole_of_the_one_before():
    tasks = tasks_of(2, 3)
    assert [task["after"] for task in tasks[:3]] == [[]] * 3
    assert tasks[3]["after"] == ["s0x0", "s0x1", "s0x2"]
    assert [task["after"] for task in tasks[4:]] == [["gate0"]] * 3
