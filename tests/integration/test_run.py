"""The command and the client against a real server and real workers, each in its own home."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import asterism
from asterism import AsyncClient, Client, Graph, NotFound, PlanRefused, RunFailed, TimedOut, UsageError, run
from orchestrator import local

SKILLS = """
    from asterism import SkillContext, skill

    @skill(effect="pure")
    def double(n: int, ctx: SkillContext) -> int:
        \"\"\"Twice as much.\"\"\"
        ctx.log(f"doubling {n}")
        ctx.emit("doubled", n=n)
        return n * 2
"""
COUNT = {
    "inputs": [{"name": "dir", "type": "string", "default": "logs"}],
    "tasks": [
        {"id": "scan", "skill": "fs.find", "args": {"path": {"ref": "input/dir"}, "glob": "*.log"}},
        {"id": "count", "skill": "text.count", "args": {"file": {"ref": "scan/files[]/file"}, "pattern": "ERROR"}},
        {
            "id": "table",
            "skill": "data.sql",
            "args": {
                "tables": [{"name": "c", "rows": {"ref": "count"}}],
                "sql": "select sum(matches) as errors from c",
            },
        },
    ],
    "outputs": [{"name": "errors", "ref": "table/rows/0/errors"}],
}
SLEEP = {"tasks": [{"id": "nap", "skill": "flow.sleep", "args": {"seconds": 60}}]}


class Place:
    """A folder to work in, with an ASTERISM_HOME of its own, and the command run in it."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("ASTERISM_", "OPENAI_"))},
            "ASTERISM_HOME": str(home),
        }

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-P", "-m", "asterism", *args]

    def run(self, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The command in this very process, which is in the folder and the environment already: it saves a start."""
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        before = sys.stdin
        sys.stdin = io.StringIO(stdin)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
                asterism.main([*args])
        finally:
            sys.stdin = before
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(args, int(ended.value.code or 0), *texts)

    def json(self, *args: str, code: int = 0) -> Any:
        done = self.run(*args, "-o", "json")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ,
            cwd=self.folder,
        )

    def write(self, name: str, content: object) -> str:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.folder / name).write_text(text)
        return name


def stop_server(home: Path) -> None:
    argv = [sys.executable, "-P", "-m", "asterism", "server", "stop"]
    environ = {**os.environ, "ASTERISM_HOME": str(home)}
    subprocess.run(argv, env=environ, timeout=60, check=False, capture_output=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One server for the module: started by the first command, as people do it."""
    folder = tmp_path_factory.mktemp("home")
    yield folder
    stop_server(folder)


@pytest.fixture
def place(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_text("ERROR one\nfine\nERROR two\n")
    (tmp_path / "logs" / "b.log").write_text("fine\n")
    monkeypatch.setenv("ASTERISM_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, home)


def test_a_plan_file_runs_and_its_report_is_the_contract(place: Place) -> None:
    report = place.json("run", "-f", place.write("plan.json", COUNT))
    assert report["schema"] == "asterism/v1"
    assert report["state"] == "succeeded"
    assert report["outputs"] == {"errors": 2}
    assert report["tasks"]["scan"]["worker"] == "here"
    assert report["tasks"]["count"]["children"] == {"succeeded": 2}
    assert report["makespan_s"] > 0


def test_an_input_replaces_the_default(place: Place) -> None:
    (place.folder / "7").mkdir()
    (place.folder / "7" / "c.log").write_text("ERROR\n")
    report = place.json("run", "-f", place.write("plan.json", COUNT), "--input", "dir=7")
    assert report["outputs"] == {"errors": 1}


def test_a_request_in_notation_is_planned_without_a_model(place: Place) -> None:
    report = place.json("run", "find(logs, *.log) -> count(ERROR) each")
    assert report["planner"]["kind"] == "catalog"
    assert [row["matches"] for row in report["outputs"]["count"]] == [2, 0]


def test_what_plan_prints_runs_as_a_plan_file_with_the_request_beside_it(place: Place) -> None:
    document = place.json("plan", "count the errors in logs/")
    assert document["planner"]["kind"] == "template:errors"
    report = place.json("run", "my usual errors", "-f", place.write("plan.json", document))
    assert report["state"] == "succeeded"
    assert "my usual errors" in [row["request"] for row in place.json("ps")["runs"]]


def test_a_saved_request_serves_the_like_without_a_planner_until_it_is_removed(place: Place) -> None:
    request = "find *.log in logs, then count ERROR in each"
    saved = place.json("plan", request, "--save", "weekly", "--param", "word=ERROR", "--doc", "Mine.")
    assert saved["requests"] == ["find *.log in logs, then count {word} in each"]
    assert place.json("plan", request, "--save", "weekly", code=2)["error"]["code"] == "Conflict"
    place.json("plan", request, "--save", "weekly", "--force", "--param", "dir=logs")
    report = place.json("run", "find *.log in logs, then count ERROR in each")
    assert report["planner"]["kind"] == "template:weekly"
    assert [row["matches"] for row in report["outputs"]["count"]] == [2, 0]
    rows = {row["name"]: row for row in place.json("template", "list")["templates"]}
    assert (rows["weekly"]["where"], rows["errors"]["where"]) == ("saved", "shipped")
    assert json.loads(place.run("template", "show", "weekly").stdout)["parameters"][0]["name"] == "dir"
    place.json("template", "remove", "weekly")
    assert place.json("plan", request)["planner"]["kind"] == "catalog"
    assert place.json("template", "remove", "weekly", code=3)["error"]["code"] == "NotFound"


def test_the_report_names_the_template_that_planned(place: Place) -> None:
    assert place.json("run", "count the errors in logs/")["planner"]["kind"] == "template:errors"


def test_a_request_that_no_skill_serves_is_abstained_from(place: Place) -> None:
    done = place.run("run", "make me a sandwich")
    assert done.returncode == 2
    assert "PlannerAbstained" in done.stderr


def test_a_failed_run_prints_its_report_and_exits_1(place: Place) -> None:
    plan = {"tasks": [{"id": "bad", "skill": "flow.fail", "args": {"times": 9, "how": "error"}, "retry": {"max": 0}}]}
    report = place.json("run", "-f", place.write("bad.json", plan), code=1)
    assert report["state"] == "failed"
    assert report["tasks"]["bad"]["error"]["code"]
    done = place.run("result")
    assert done.returncode == 1
    assert "bad failed" in done.stderr


def test_a_refused_plan_is_exit_2_with_every_problem_and_makes_no_run(place: Place) -> None:
    before = len(place.json("ps")["runs"])
    plan = {"tasks": [{"id": "a", "skill": "no.such"}, {"id": "b", "skill": "text.count", "args": {"fiel": 1}}]}
    refused = place.json("run", "-f", place.write("wrong.json", plan), code=2)
    assert refused["error"]["code"] == "PlanRefused"
    assert len(refused["error"]["problems"]) >= 2
    assert len(place.json("ps")["runs"]) == before


def test_the_same_id_is_the_same_run(place: Place) -> None:
    name = place.write("plan.json", COUNT)
    first = place.json("run", "-f", name, "--id", f"key-{place.folder.name}")
    again = place.json("run", "-f", name, "--id", f"key-{place.folder.name}")
    assert first["run"] == again["run"]


def test_json_lines_are_the_events_and_then_the_report(place: Place) -> None:
    done = place.run("run", "-f", place.write("plan.json", COUNT), "-o", "jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["kind"] for row in rows[:2]] == ["run_submitted", "patch_accepted"]
    assert rows[-2]["kind"] == "run_settled"
    assert rows[-1]["outputs"] == {"errors": 2}
    numbers = [row["seq"] for row in rows[:-1]]
    assert numbers == sorted(set(numbers))
    run_id = rows[-1]["run"]
    tail = place.run("events", run_id, "--after", str(numbers[3]), "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in tail] == numbers[4:]


def test_looking_back_agrees_with_the_report(place: Place) -> None:
    report = place.json("run", "-f", place.write("plan.json", COUNT))
    name = report["run"]
    assert place.json("result", name)["outputs"] == report["outputs"]
    assert place.json("tasks", name)["tasks"] == report["tasks"]
    assert set(place.json("tasks", name, "--children")["tasks"]) > {"count.0", "count.1"}
    assert place.json("status", name)["tasks"] == {"succeeded": 3}
    assert place.json("explain", f"{name}/scan")["attempts"][0]["worker"] == "here"
    assert place.json("graph", name)["edges"] == [["scan", "count", "data"], ["count", "table", "data"]]
    assert place.json("get", f"{name}/count/0/matches")["value"] == 2
    assert place.json("wait", name)["state"] == "succeeded"
    assert name in place.run("ps").stdout
    assert place.run("graph", name, "-o", "mermaid").stdout.startswith("flowchart")
    assert place.run("graph", name, "-o", "dot").stdout.startswith("digraph")
    assert place.run("graph", name, "-o", "svg").stdout.startswith("<svg")
    assert place.run("get", f"{name}/nothing").returncode == 3


def test_out_saves_the_report_the_values_and_the_files_made(place: Place) -> None:
    plan = {
        "tasks": [{"id": "page", "skill": "report.markdown", "args": {"title": "Hi", "parts": []}}],
        "outputs": [{"name": "page", "ref": "page/file"}, {"name": "text", "ref": "page/text"}],
    }
    place.json("run", "-f", place.write("page.json", plan), "--out", "out")
    saved = {path.name: path.read_text() for path in (place.folder / "out").iterdir()}
    assert {"report.json", "text.txt"} < set(saved)
    assert any("# Hi" in text for name, text in saved.items() if name.endswith(".md"))


def test_exec_brings_both_streams_and_the_exit_code(place: Place) -> None:
    done = place.run("exec", "-q", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.returncode, done.stdout) == (0, "out\n")
    assert "err" in done.stderr
    assert place.run("exec", "-q", "--", "false").returncode == 1
    mapped = place.run("exec", "-q", "--each", "-", "--", "echo", "x", "{}", stdin="a\nb\n")
    assert mapped.stdout == "x a\nx b\n"
    failing = place.run("exec", "-q", "--each", "-", "--", "ls", stdin="logs\nnowhere\n")
    assert failing.returncode == 1
    assert "a.log" in failing.stdout


def test_call_runs_one_skill_and_keeps_text_as_text(place: Place) -> None:
    done = place.run("call", "text.count", "file=logs/a.log", "pattern=ERROR", "-q")
    assert json.loads(done.stdout)["matches"] == 2
    assert place.run("call", "no.such").returncode == 3


def test_ctrl_c_cancels_with_grace_and_exits_130(place: Place) -> None:
    running = place.start("run", "-f", place.write("nap.json", SLEEP), "-o", "jsonl")
    assert running.stdout is not None
    for line in running.stdout:
        if json.loads(line)["kind"] == "attempt_dispatched":
            break
    running.send_signal(signal.SIGINT)
    last = json.loads(running.stdout.read().splitlines()[-1])
    assert running.wait(30) == 130
    assert last["state"] == "cancelled"
    running.stdout.close()
    assert running.stderr is not None
    assert "cancelling" in running.stderr.read()
    running.stderr.close()


def test_without_a_terminal_an_approval_is_left_open_and_exits_8(place: Place) -> None:
    plan = {"tasks": [{"id": "apply", "skill": "flow.echo", "args": {"value": 1}, "approve": True}]}
    report = place.json("run", "-f", place.write("ask.json", plan), code=8)
    assert report["error"]["code"] == "AwaitingApproval"
    assert report["tasks"]["apply"]["state"] == "awaiting_approval"
    assert place.run("approve", f"{report['run']}/apply", "-m", "go").returncode == 0
    assert place.run("wait", report["run"]).returncode == 0


def test_a_detached_run_goes_on_and_its_worker_stays_until_then(place: Place) -> None:
    plan = {"tasks": [{"id": "nap", "skill": "flow.sleep", "args": {"seconds": 0.5, "value": 3}}]}
    name = place.json("run", "-f", place.write("short.json", plan), "--detach")["run"]
    assert place.run("wait", name, "--timeout", "30s").returncode == 0
    assert place.json("result", name)["tasks"]["nap"]["worker"].startswith("here")


def test_wait_gives_up_after_its_timeout_and_the_run_goes_on(place: Place) -> None:
    name = place.json("run", "-f", place.write("nap.json", SLEEP), "--detach")["run"]
    assert place.run("wait", name, "--timeout", "200ms").returncode == 124
    assert place.json("status", name)["state"] == "open"
    assert place.run("cancel", name).returncode == 0
    assert place.run("wait", name).returncode == 1


def test_an_edit_makes_a_version_that_diff_shows(place: Place) -> None:
    plan = {
        "tasks": [
            {"id": "nap", "skill": "flow.sleep", "args": {"seconds": 60}},
            {"id": "last", "skill": "flow.echo", "args": {"value": {"ref": "nap"}}},
        ]
    }
    name = place.json("run", "-f", place.write("two.json", plan), "--detach")["run"]
    patch = {"tasks": [{"id": "more", "skill": "flow.echo", "args": {"value": {"ref": "last"}}}]}
    assert place.json("edit", name, "-f", place.write("patch.json", patch))["version"] == 2
    assert place.json("diff", name, "1", "2")["added"] == ["more"]
    assert place.run("undo", name, "2").returncode == 0
    assert place.run("cancel", name).returncode == 0
    assert place.run("wait", name).returncode == 1


@pytest.fixture
def own(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A place with a server of its own."""
    monkeypatch.setenv("ASTERISM_HOME", str(tmp_path / "own"))
    yield Place(place.folder, tmp_path / "own")
    stop_server(tmp_path / "own")


def test_the_server_killed_in_the_middle_costs_nothing(own: Place) -> None:
    plan = {
        "tasks": [
            {"id": "nap", "skill": "flow.sleep", "args": {"seconds": 1.5, "value": 4}},
            {"id": "last", "skill": "flow.echo", "args": {"value": {"ref": "nap/value"}}},
        ]
    }
    running = own.start("run", "-f", own.write("nap2.json", plan), "-o", "jsonl")
    assert running.stdout is not None
    seen = []
    for line in running.stdout:
        seen.append(json.loads(line))
        if seen[-1]["kind"] == "attempt_dispatched":
            break
    endpoint = local.read_endpoint(own.environ)
    assert endpoint is not None
    os.kill(endpoint.pid, signal.SIGKILL)
    seen += [json.loads(line) for line in running.stdout.read().splitlines()]
    running.stdout.close()
    assert running.stderr is not None
    running.stderr.close()
    assert running.wait(60) == 0
    assert seen[-1]["outputs"] == {"last": {"value": 4}}
    assert seen[-1]["tasks"]["nap"]["attempts"] == 1
    numbers = [row["seq"] for row in seen[:-1]]
    assert numbers == sorted(set(numbers))


def test_two_commands_at_once_share_one_server(own: Place) -> None:
    name = own.write("plan.json", COUNT)
    both = [own.start("run", "-f", name, "-o", "json") for _ in range(2)]
    reports = [json.loads(one.communicate(timeout=90)[0]) for one in both]
    assert {report["run"] for report in reports} == {"r1", "r2"}
    assert all(report["outputs"] == {"errors": 2} for report in reports)


# The Python API


def test_run_takes_a_graph_with_functions_and_returns_its_result(place: Place) -> None:
    """In a process of its own, as a person's script is: its skills are loaded by file, never as __main__."""
    script = (
        SKILLS
        + """
    if __name__ == "__main__":
        import json
        from asterism import Graph, run

        graph = Graph()
        one = graph.add(double, id="one", n=4)
        graph.output("end", graph.add(double, n=one))
        found = run(graph)
        print(json.dumps([found["end"], found.tasks["one"].value, found.tasks["one"].worker]))
    """
    )
    place.write("mine.py", textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, "mine.py"], capture_output=True, text=True, env=place.environ, cwd=place.folder, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [16, 8, "here"]


def test_a_client_submits_maps_calls_and_follows(place: Place) -> None:
    skills = place.folder / "more_skills.py"
    skills.write_text(textwrap.dedent(SKILLS))
    with Client(skills=[skills]) as client:
        assert client.map("double", [1, 2, 3], limit=2) == [2, 4, 6]
        assert client.call("double", n=21) == 42
        live = client.submit({"tasks": [{"id": "a", "skill": "double", "args": {"n": 5}}]})
        kinds = [event["kind"] for event in live.events()]
        assert "doubled" in kinds
        assert kinds[-1] == "run_settled"
        result = live.result(timeout=30)
        assert dict(result) == {"a": 10}
    assert result.tasks["a"].value == 10, "a result stays usable after its client is closed"
    with pytest.raises(NotFound):
        _ = result["b"]
    with pytest.raises(UsageError):
        client.call("double", n=1)


def test_errors_are_typed_and_carry_what_was_reached(place: Place) -> None:
    with Client() as client:
        with pytest.raises(PlanRefused) as refused:
            client.run({"tasks": [{"id": "a", "skill": "no.such"}]})
        assert refused.value.problems
        bad = {"id": "bad", "skill": "flow.fail", "args": {"times": 9, "how": "error"}, "retry": {"max": 0}}
        with pytest.raises(RunFailed) as failed:
            client.run({"tasks": [bad]})
        assert failed.value.partial is not None
        assert failed.value.partial["tasks"]["bad"]["state"] == "failed"
        live = client.submit(SLEEP)
        with pytest.raises(TimedOut) as late:
            live.result(timeout=0.2)
        assert late.value.partial is not None
        live.cancel()
        assert live.wait(30) == "cancelled"


def test_a_live_run_is_patched_and_approved_from_python(place: Place) -> None:
    with Client() as client:
        live = client.submit(
            {
                "tasks": [
                    {"id": "gate", "skill": "flow.echo", "args": {"value": 1}, "approve": True},
                    {"id": "last", "skill": "flow.echo", "args": {"value": {"ref": "gate"}}},
                ]
            }
        )
        change = Graph()
        change.update("last", args={"value": "changed"})
        change.add("flow.echo", id="more", value=change.task("last")["value"])
        assert live.patch(change, why="testing") == 2
        for event in live.events():
            if event["kind"] == "approval_asked":
                live.approve("gate")
        assert live.result(timeout=30)["more"] == {"value": "changed"}


def test_a_function_from_the_prompt_is_refused_with_the_fix(place: Place) -> None:
    code = "from asterism import Client, skill\n@skill\ndef f(n: int) -> int:\n    return n\nClient(skills=[f])\n"
    argv = [sys.executable, "-"]
    done = subprocess.run(argv, input=code, capture_output=True, text=True, env=place.environ, timeout=60)
    assert "file" in done.stderr
    assert "UsageError" in done.stderr


def test_the_awaited_client_has_the_same_names(place: Place) -> None:
    async def main() -> list[Any]:
        async with AsyncClient() as client:
            live = await client.submit(COUNT)
            kinds = [event["kind"] async for event in live.events()]
            result = await live.result(timeout=30)
            return [kinds[-1], result["errors"], await client.value(live.run, "count", "/0/matches")]

    assert anyio.run(main) == ["run_settled", 2, 2]


def test_run_is_one_call(place: Place) -> None:
    assert run(COUNT)["errors"] == 2
