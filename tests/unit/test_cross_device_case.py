"""Case files: what is read, what is named when it is broken, what a selection chooses."""

from pathlib import Path

import pytest

from bench.cross_device.case import load_cases, read_case
from protocol.errors import NotFound, UsageError

GOOD = """
schema = "asterism/case/v1"
title = "Errors of every log"
category = "log-analysis"
request = "Count ERROR in {dir}/*.log on log-server"
tags = ["map"]
needs = "log-server"

[[fixture]]
make = "logs"
on = "log-server"
path = "logs"
as = "logs"
args = {files = 3}

[plan]
tasks = [
  {id = "scan", on = ["log-server"], skill = "fs.find", args = {path = "{dir}/logs", glob = "*.log"}},
  {id = "count", skill = "text.count", args = {file = {ref = "scan/files[]/file"}, pattern = "ERROR"}},
]
outputs = [{name = "counts", ref = "count"}]

[[answer]]
task = "count"
do = "approve"

[[subtask]]
id = "count"
value = "[]/matches"
equals = {truth = "logs/errors"}

[[check]]
file = "log-server:{dir@log-server}/out.csv"
as = "csv"
rows = [["a", {truth = "logs/a"}]]

[[check]]
output = "counts"
count = 3
"""


def write(folder: Path, text: str = GOOD, name: str = "errors", category: str = "log-analysis") -> Path:
    path = folder / category / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_case_names_the_machines_whose_model_it_asks(tmp_path: Path) -> None:
    asking = GOOD.replace('skill = "text.count", args = {file', 'skill = "llm.ask", on = ["gpu-box"], args = {data')
    assert read_case(write(tmp_path, asking.replace("pattern", "prompt"))).thinking == {"gpu-box"}
    assert not read_case(write(tmp_path, name="other")).thinking


def test_a_case_is_read_and_placed(tmp_path: Path) -> None:
    case = read_case(write(tmp_path))
    assert (case.name, case.category, case.needs) == ("errors", "log-analysis", ("log-server",))
    assert [claim.name for claim in case.subtasks] == ["count/[]/matches"]
    placed = case.placed({"log-server": Path("/srv")})
    assert placed.request == "Count ERROR in errors/*.log on log-server"
    assert placed.plan["tasks"][0]["args"]["path"] == "errors/logs"
    assert placed.checks[0].file == "log-server:/srv/errors/out.csv"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('title = "Errors of every log"\n', "", "MissingKey at title"),
        ('tags = ["map"]', 'tag = ["map"]', "UnknownKey at tag"),
        ('needs = "log-server"', 'needs = "attic"', "BadValue at needs.0"),
        ('category = "log-analysis"', 'category = "content"', "Category at category"),
        ('ref = "scan/files', 'ref = "scam/files', "at plan.tasks"),
        ('{truth = "logs/errors"}', '{truth = "log/errors"}', "no fixture is called log (fix: did you mean logs?)"),
        ('id = "count"\nvalue', 'id = "cuont"\nvalue', "no plan of the case has cuont (fix: did you mean count?)"),
        ('output = "counts"\n', "", "BadCheck at check.1"),
        ('output = "counts"', 'output = "sums"', "no plan of the case has sums"),
        ("count = 3\n", "", "NoPredicate at check.1"),
        ('file = "log-server:', 'file = "attic:', "BadFile at check.0.file"),
        ('as = "csv"', 'as = "xml"', "BadValue at check.0.as"),
        ('do = "approve"', 'do = "shrug"', "BadValue at answer.0.do"),
        ("[plan]", "[plan", "can't be read: Expected"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        read_case(write(tmp_path, GOOD.replace(old, new, 1)))
    assert named in str(caught.value)


def test_a_broken_file_leaves_the_others(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "nonsense", "broken")
    write(tmp_path, GOOD.replace("log-analysis", "recovery"), "errors", "recovery")
    found = load_cases(tmp_path)
    assert [case.name for case in found.cases] == ["errors"]
    assert ["log-analysis/broken.toml" in found.problems[0], "recovery/errors.toml" in found.problems[1]] == [True] * 2


def test_a_selection_chooses(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, GOOD.replace("log-analysis", "recovery").replace('"map"', '"fault"'), "other", "recovery")

    def names(*select: str, only: tuple[str, ...] = ()) -> list[str]:
        return [case.name for case in load_cases(tmp_path, select, only).cases]

    assert names("category:recovery") == names("tag:fault") == names(only=("other",)) == ["other"]
    assert names("category:recovery", "tag:map") == names("machine:log-server") == ["errors", "other"]
    for wrong in ("recovery", "category:recovring", "colour:red", "tag:"):
        with pytest.raises(UsageError):
            names(wrong)
    with pytest.raises(NotFound, match="no task is called othr"):
        names(only=("othr",))
