"""Two users and one worker, real processes: who waits for whom, what makes room, and what people are told."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_command import Shell, address, end, worker

SKILLS = """
    import time
    from asterism import SkillContext, skill

    @skill(name="share.busy", effect="pure")
    def busy(n: int) -> int:
        time.sleep(0.15)
        return n

    @skill(name="share.train", effect="pure", checkpoints=True)
    def train(steps: int, ctx: SkillContext) -> list[int]:
        \"\"\"Keeps every step.\"\"\"
        first = step = ctx.restored() or 0
        while step < steps:
            time.sleep(0.1)
            step += 1
            ctx.checkpoint(step)
        return [first, step]
"""
SETTINGS = """
    [fair]
    shares = {ben = 2}
    preempt_after = "300ms"
"""
ITEMS = {"id": "l", "skill": "flow.list", "args": {"items": list(range(200))}}
LARGE = {"tasks": [ITEMS, {"id": "m", "skill": "share.busy", "args": {"n": {"ref": "l/items[]"}}, "on": ["any"]}]}
SMALL = {"tasks": [{"id": f"s{n}", "skill": "share.busy", "args": {"n": n}, "on": ["any"]} for n in range(4)]}
TRAIN = {"tasks": [{"id": f"t{n}", "skill": "share.train", "args": {"steps": 60}, "on": ["any"]} for n in range(2)]}


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A server with one worker of two slots."""
    folder = tmp_path_factory.mktemp("shared")
    shell = Shell(folder, folder / "home")
    skills = folder / "share.py"
    skills.write_text(textwrap.dedent(SKILLS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "asterism.toml").write_text(textwrap.dedent(SETTINGS))
        assert shell.run("server", "start", "--detach").returncode == 0
        (folder / "asterism.toml").unlink()
        one = worker(shell, "w1", "--skills", str(skills))
        yield shell
        end(one)
        shell.run("server", "stop")


@pytest.fixture(scope="module")
def ben(ann: Shell) -> Shell:
    """Another user, with a home of his own."""
    home = ann.folder / "ben"
    join = ann.run("token", "create", "--role", "submitter").stdout
    assert ann.run("connect", address(ann.home), "--name", "ben", stdin=join, home=home).returncode == 0
    return Shell(ann.folder, home)


def settled(shell: Shell, run: str, *options: str) -> float:
    """When the run was over."""
    found = shell.json("status", run, *options)
    assert found["state"] == "succeeded"
    return float(found["submitted_at"] + found["makespan_s"])


def test_a_small_run_of_another_user_goes_between_and_both_are_told(ann: Shell, ben: Shell) -> None:
    to = ("--server", address(ann.home))
    large = ann.json("run", "-f", ann.write("large.json", LARGE), "--detach")["run"]
    small = ben.json("run", "-f", ann.write("small.json", SMALL), *to)
    assert small["state"] == "succeeded"
    still = ann.json("status", large)
    assert still["state"] == "open"
    assert (still["share"]["sla"], still["share"]["weight"], still["share"]["resource"]) == ("standard", 1.0, "cpu")
    assert still["share"]["ready"] > 0
    assert "of its tasks wait for room" in ann.run("status", large).stdout
    mine = ben.json("status", small["run"], *to)["share"]
    assert (mine["user"], mine["weight"]) == ("ben", 2.0)
    assert ann.run("cancel", large).returncode == 0
    ann.run("wait", large)


def test_long_tasks_make_room_for_a_higher_class_and_lose_nothing(ann: Shell, ben: Shell) -> None:
    long = ann.json("run", "-f", ann.write("train.json", TRAIN), "--detach", "--sla", "batch")["run"]
    to = ("--server", address(ann.home))
    urgent = ben.json("run", "-f", ann.write("small.json", SMALL), *to, "--sla", "interactive")
    assert urgent["state"] == "succeeded"
    assert ann.run("wait", long).returncode == 0
    assert settled(ben, urgent["run"], *to) < settled(ann, long)
    rows = ann.json("tasks", long)["tasks"]
    stopped = [name for name in ("t0", "t1") if rows[name]["attempts"] == 2]
    assert stopped
    for name in stopped:
        first, last = ann.json("get", f"{long}/{name}")["value"]
        told = ann.json("explain", f"{long}/{name}")
        assert 0 < first < last == 60
        assert f"make room for {urgent['run']}, which is interactive" in "\n".join(told["history"])


def test_a_weight_that_is_none_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path, tmp_path / "home")
    for weight in ("0", "-1", "nan", '"much"'):
        (tmp_path / "asterism.toml").write_text(f"[fair]\nshares = {{ben = {weight}}}\n")
        done = shell.run("server", "start", "--detach")
        assert done.returncode == 2
        assert "fair.shares" in done.stderr


def test_a_class_that_is_none_is_refused(ann: Shell) -> None:
    plan = {**SMALL, "run": {"sla": "urgent"}}
    assert "run/sla" in ann.run("run", "-f", ann.write("odd.json", plan)).stderr
    assert ann.run("run", "-f", ann.write("small.json", SMALL), "--sla", "urgent").returncode == 2
