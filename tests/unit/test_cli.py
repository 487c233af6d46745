"""The command line without a server: help, exit codes, what goes to which stream, and the JSON of errors."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import asterism
from orchestrator.cli import show


def commands() -> dict[str, str]:
    """Every command by its words, with where it is."""
    found: dict[str, str] = {}
    for section in asterism.SECTIONS.values():
        for name, (where, _) in section.items():
            module, _, attribute = where.partition(":")
            if module == "asterism":
                table = getattr(asterism, attribute)
                found |= {f"{name} {sub}": target for sub, (target, _) in table.items()}
            else:
                found[name] = where
    return found


def run(*args: str, home: Path, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ASTERISM_", "OPENAI_")) and key not in ("CI", "NO_COLOR")
    }
    env |= {"ASTERISM_HOME": str(home / "home"), **environ}
    argv = [sys.executable, "-P", "-m", "asterism", *args]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, env=env, cwd=home, timeout=60)


@pytest.mark.parametrize("words", sorted(commands()))
def test_every_command_loads_and_explains_itself(words: str) -> None:
    module, _, attribute = commands()[words].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    with click.Context(command, info_name=words) as ctx:
        text = command.get_help(ctx)
    assert "Usage:" in text
    assert command.help, f"{words} has no help"
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            assert param.help or param.is_eager, f"{words} {param.opts} is not explained"


def test_help_lists_every_section_and_imports_nothing_of_ours() -> None:
    code = "import sys, asterism; asterism.main(['--help'])"
    probe = (
        "import sys, asterism\n"
        "try: asterism.main(['--help'])\n"
        "except SystemExit as end: code = end.code\n"
        "ours = [m for m in sys.modules if m.split('.')[0] in "
        "('orchestrator', 'workers', 'protocol', 'grpc', 'pydantic', 'rich', 'msgspec')]\n"
        "print(code, ours, file=sys.stderr)\n"
    )
    assert code
    done = subprocess.run([sys.executable, "-P", "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "0 []"
    for title in asterism.SECTIONS:
        assert f"{title}:" in done.stdout


def test_importing_the_front_door_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import asterism; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert "click" not in done.stdout
    assert "orchestrator" not in done.stdout


def test_every_public_name_is_there() -> None:
    for name in asterism.__all__:
        assert getattr(asterism, name) is not None
    with pytest.raises(AttributeError):
        _ = asterism.nothing


def test_an_unknown_command_is_a_usage_error_with_the_nearest(tmp_path: Path) -> None:
    done = run("doctr", home=tmp_path)
    assert done.returncode == 2
    assert "doctor" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "args",
    [
        ("run",),
        ("run", ""),
        ("run", "x", "--input", "novalue"),
        ("run", "x", "--budget", "gold=3"),
        ("run", "x", "--deadline"),
        ("run", "x", "--confirm"),
        ("tasks", "not a run"),
        ("explain", "r7"),
        ("undo", "x"),
        ("diff", "1"),
        ("retry", "r7"),
        ("exec", "--"),
    ],
)
def test_bad_words_are_usage_errors(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = run(*args, home=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_with_json_an_error_is_one_value_on_standard_output(tmp_path: Path) -> None:
    for args in (("tasks", "not a run", "-o", "json"), ("run", "-f", "none.json", "-ojson"), ("ps", "--output=json")):
        done = run(*args, home=tmp_path)
        shown = json.loads(done.stdout)
        assert shown["schema"] == "asterism/v1"
        assert {"code", "ref", "message", "hint"} <= set(shown["error"])
        assert done.returncode in (2, 3, 5)
        assert done.stderr == ""


def test_a_missing_plan_file_is_not_found(tmp_path: Path) -> None:
    done = run("run", "-f", "none.json", "--dry-run", home=tmp_path)
    assert done.returncode == 3
    assert "none.json" in done.stderr


def test_a_dry_run_of_a_plan_file_names_every_problem_and_needs_no_server(tmp_path: Path) -> None:
    plan = {"tasks": [{"id": "A b", "skill": "x.y"}, {"id": "b", "skill": "x.y", "args": {"v": {"ref": "nowhere"}}}]}
    (tmp_path / "bad.json").write_text(json.dumps(plan))
    done = run("run", "-f", "bad.json", "--dry-run", home=tmp_path)
    assert done.returncode == 2
    assert "BadId" in done.stderr
    assert "UnknownReference" in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_dry_run_shows_a_toml_plan(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[[tasks]]\nid = "a"\nskill = "flow.echo"\nargs = {value = 1}\n')
    done = run("run", "-f", "p.toml", "--dry-run", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a: flow.echo")
    shown = json.loads(run("run", "-f", "p.toml", "--dry-run", "-o", "json", home=tmp_path).stdout)
    assert shown["tasks"][0]["id"] == "a"


def test_looking_back_without_a_journal_starts_no_server(tmp_path: Path) -> None:
    done = run("ps", home=tmp_path)
    assert done.returncode == 5
    assert not (tmp_path / "home" / "server.json").exists()


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = run("ps", "--server", "127.0.0.1:9", "-o", "json", home=tmp_path)
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"]["code"] == "ServerUnreachable"
    assert time.monotonic() - begun < 50


def test_doctor_checks_without_a_server(tmp_path: Path) -> None:
    done = run("doctor", "-o", "json", home=tmp_path)
    shown = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert {"python", "home", "disk", "clock", "sandbox", "server"} <= {check["name"] for check in shown["checks"]}
    assert all(check["fix"] for check in shown["checks"] if check["level"] != "ok")


def test_config_view_says_where_each_value_comes_from(tmp_path: Path) -> None:
    (tmp_path / "asterism.toml").write_text("[run]\npriority = 3\n")
    done = run("config", "view", "--sources", "-o", "json", home=tmp_path, ASTERISM_MODEL="m")
    rows = json.loads(done.stdout)["settings"]
    assert rows["run.priority"] == {"value": 3, "source": "asterism.toml"}
    assert rows["llm.model"] == {"value": "m", "source": "ASTERISM_MODEL"}
    assert "run.priority\t3\tasterism.toml" in run("config", "view", "--sources", home=tmp_path).stdout


def test_a_bad_config_file_is_exit_2_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "asterism.toml").write_text("[run]\nprioritty = 3\n")
    done = run("config", "view", home=tmp_path)
    assert done.returncode == 2
    assert "asterism.toml" in done.stderr
    assert "priority" in done.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    script = f'"{sys.executable}" -P -m asterism config view -o json | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.strip() in ("0", "141")
    assert "Traceback" not in done.stderr


def test_an_unexpected_error_is_one_line_and_a_traceback_only_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> click.Group:
        raise RuntimeError("the unthinkable")

    monkeypatch.setattr(asterism, "command", broken)
    monkeypatch.delenv("ASTERISM_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        asterism.main(["ps"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert "the unthinkable" in said.err
    assert "report" in said.err
    assert "Traceback" not in said.err
    monkeypatch.setenv("ASTERISM_DEBUG", "1")
    with pytest.raises(SystemExit):
        asterism.main(["ps"])
    assert "Traceback" in capsys.readouterr().err


def test_a_module_that_runs_something_when_it_is_loaded_is_refused(tmp_path: Path) -> None:
    from workers.registry import Registry

    (tmp_path / "eager_skills.py").write_text("import asterism\nasterism.run('anything')\n")
    with pytest.raises(asterism.CalledWhileLoading) as caught:
        Registry().load(str(tmp_path / "eager_skills.py"))
    assert "eager_skills" in caught.value.message
    assert "__main__" in caught.value.hint


def test_no_text_of_others_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]0;title\x07b\x1b[2Jc\u202e\r\x9b1mtab\tline\n"
    show.say(evil)
    assert capsys.readouterr().err == "a]0;titleb[2Jc1mtab\tline\n\n"
    assert show.short(evil) == "a]0;titleb[2Jc 1mtab line"
    show.table((("X", lambda row: row["x"]),), [{"x": evil}])
    assert not set(capsys.readouterr().out) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}
