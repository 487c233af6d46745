"""Which level a skill gets: the roomiest that will do, what somebody asked for, or none at all."""

from __future__ import annotations

import msgspec
import pytest

from bench.simulated_worker import profile_of
from bench.simulator import Simulator
from protocol.errors import UsageError
from protocol.skill import LEVELS, SkillSpec, holds
from workers.rule import SandboxRules, unheld

ALL = frozenset(LEVELS)
BARE = frozenset({"none", "process"})


def spec(sandbox: str = "", name: str = "render") -> SkillSpec:
    return SkillSpec(name, sandbox=sandbox)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "sandbox", "held", "level"),
    [
        (SandboxRules(), "", ALL, "cgroup"),
        (SandboxRules(), "", BARE, "process"),
        (SandboxRules(), "", frozenset({"none", "process", "bubblewrap"}), "process"),
        (SandboxRules(), "cgroup", frozenset({"none", "process", "bubblewrap"}), "bubblewrap"),
        (SandboxRules(), "bubblewrap", ALL, "bubblewrap"),
        (SandboxRules(), "bubblewrap", BARE, None),
        (SandboxRules(maximum="cgroup"), "bubblewrap", ALL, None),
        (SandboxRules(maximum="process"), "", ALL, "process"),
        (SandboxRules(maximum="none"), "", ALL, "none"),
        (SandboxRules(minimum="bubblewrap"), "", ALL, "bubblewrap"),
        (SandboxRules(skills=(("ren*", "bubblewrap"), ("*", "process"))), "", ALL, "bubblewrap"),
        (SandboxRules(skills=(("other", "bubblewrap"),)), "", ALL, "cgroup"),
    ],
)
def test_skill_gets_the_roomiest_level_that_nobody_finds_too_low(
    rules: SandboxRules, sandbox: str, held: frozenset[str], level: str | None
) -> None:
    assert rules.level(spec(sandbox), held) == level  # type: ignore[arg-type]


def test_worker_whose_settings_ask_for_more_than_holds_does_not_start() -> None:
    for rules in (SandboxRules(minimum="bubblewrap"), SandboxRules(skills=(("*", "cgroup"),))):
        with pytest.raises(UsageError, match="at most"):
            rules.check(BARE)  # type: ignore[arg-type]
        rules.check(ALL)
    with pytest.raises(UsageError):
        SandboxRules(minimum="cgroup", maximum="process").check(ALL)


def test_refusal_is_permanent_and_says_the_level() -> None:
    failure = unheld(spec("bubblewrap"))
    assert (failure.code, failure.klass) == ("NoSandbox", "permanent")
    assert "bubblewrap" in failure.message


def test_level_that_nobody_knows_holds_nothing() -> None:
    """An older worker says `process+parent-death`, a newer one may know levels that we don't."""
    assert holds("process+parent-death", "")
    assert not holds("process+parent-death", "bubblewrap")
    assert not holds("bubblewrap", "vault")


def test_skill_goes_only_where_its_level_holds_and_explain_says_so() -> None:
    held = SkillSpec("sim.held", effect="pure", sandbox="bubblewrap")
    low = profile_of(skills=(held,), sandbox="process")
    plan = {"tasks": [{"id": "a", "skill": "sim.held"}], "run": {"schedule_grace": "1h"}}
    sim = Simulator(workers=[low])
    sim.submit(plan)
    sim.advance(1.0)
    story = sim.machine.explain(1, "a")
    assert "sandbox level process" in msgspec.json.encode(story).decode()
    sim.settle(4000.0)
    assert "holds skills at sandbox level process; sim.held needs bubblewrap" in sim.task("a").state.message
    sim = Simulator(workers=[low, profile_of(skills=(held,), sandbox="bubblewrap")])
    sim.submit(plan)
    sim.settle()
    assert sim.task("a").winner().worker == 2
