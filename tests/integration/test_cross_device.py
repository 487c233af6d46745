"""`asterism bench cross-device` on its five machines: what is not reached, and what can't be played, is named."""

import json
from pathlib import Path

from click.testing import CliRunner

from bench.cli import bench
from bench.cross_device.store import Store
from bench.cross_device.suite import Order

GOOD = """
schema = "asterism/case/v1"
title = "Errors on two machines, brought together"
category = "log-analysis"
request = "Count ERROR in {dir}/logs of log-server and db-server and keep the sum on the workstation"
needs = ["log-server", "db-server"]

[[fixture]]
make = "logs"
on = ["log-server", "db-server"]
path = "logs"
as = "logs"
args = {files = 2, lines = 20}

[plan]
outputs = [{name = "sums", ref = "sums/rows"}]
[[plan.tasks]]
id = "here"
on = ["log-server"]
skill = "fs.find"
args = {path = "{dir}/logs", glob = "*.log"}
[[plan.tasks]]
id = "there"
on = ["db-server"]
skill = "fs.find"
args = {path = "{dir}/logs", glob = "*.log"}
[[plan.tasks]]
id = "ours"
skill = "text.count"
args = {file = {ref = "here/files[]/file"}, pattern = " ERROR "}
[[plan.tasks]]
id = "theirs"
skill = "text.count"
args = {file = {ref = "there/files[]/file"}, pattern = " ERROR "}
[[plan.tasks]]
id = "sums"
skill = "data.sql"
[plan.tasks.args]
tables = [{name = "a", rows = {ref = "ours"}}, {name = "b", rows = {ref = "theirs"}}]
sql = "select sum(matches) as n from a union all select sum(matches) from b"
[[plan.tasks]]
id = "keep"
on = ["workstation"]
approve = true
skill = "fs.write"
args = {path = "{dir@workstation}/sums.json", data = {ref = "sums/rows"}}

[[answer]]
task = "keep"
do = "approve"

[[subtask]]
id = "ours"
count = 2

[[check]]
output = "sums"
rows = SUMS
[[check]]
file = "workstation:{dir@workstation}/sums.json"
as = "json"
equals = SUMS
"""
CHANGED = """
schema = "asterism/case/v1"
title = "What fails for good is replaced"
category = "recovery"
request = "Read {dir}/gone.txt on db-server, or else say that it is gone"
tags = ["changes"]

[plan]
tasks = [{id = "read", on = ["db-server"], skill = "fs.read", args = {file = "{dir}/gone.txt"}}]
outputs = [{name = "text", ref = "read/text"}]

[[replan]]
[replan.reply]
tasks = [{id = "say", skill = "flow.echo", args = {value = "gone"}}]
edits = [{op = "give_up", id = "read"}]
outputs = [{name = "text", ref = "say/value"}]

[[subtask]]
id = "say"
value = "value"
equals = "gone"

[[check]]
output = "text"
equals = "gone"
"""


SUMS = '[{n = {truth = "logs/log-server/errors"}}, {n = {truth = "logs/db-server/errors"}}]'
WEAK = """
[[check]]
output = "sums"
value = "[]/n"
near = [1, 1]
within = 1e9
"""


def test_a_suite_goes_on_whatever_is_wrong_with_a_case(tmp_path: Path) -> None:
    tasks, out = tmp_path / "tasks", tmp_path / "out"
    files = {
        "log-analysis/loose": GOOD.replace("SUMS", SUMS) + WEAK,
        "log-analysis/unmade": GOOD.replace('make = "logs"', 'make = "nothing"').replace("SUMS", SUMS),
        "log-analysis/wrong": GOOD.replace("SUMS", "[{n = -1}]"),
        "recovery/broken": CHANGED.replace("[plan]", "[plan"),
        "recovery/changed": CHANGED,
    }
    for name, text in files.items():
        (tasks / name).parent.mkdir(parents=True, exist_ok=True)
        (tasks / f"{name}.toml").write_text(text)
    ran = CliRunner().invoke(bench, ["cross-device", "--tasks", str(tasks), "--out", str(out), "-o", "json"])
    assert ran.exit_code == 3, ran.output
    found = json.loads(ran.stdout)
    reached = {"changed": 1, "loose": 1, "unmade": 0, "wrong": 0}
    assert {row["case"]: row["succeeded"] for row in found["cases"]} == reached
    assert found["replans"] == 1
    assert set(found["wrong"]) == {"wrong", "wrong (sequential)"}
    for words in (
        "recovery/broken.toml: can't be read: Expected ']'",
        "log-analysis/unmade: no generator is called 'nothing'",
        "log-analysis/loose: sums/[]/n: holds also when",
    ):
        assert any(words in problem for problem in found["problems"]), found["problems"]
    kept = Store(out, Order().settings()).plays
    twins = {(name, True) for name in reached if name != "changed"}  # in which nothing runs beside anything
    assert {(one.case, one.sequential) for one in kept} == {(name, False) for name in reached} | twins
    assert {one.case for one in kept if one.succeeded} == {"changed", "loose"}
