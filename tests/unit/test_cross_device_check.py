"""Claims judged by outcomes, and outcomes falsified: what holds, what doesn't, and what can't fail."""

import io
import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bench.cross_device.case import Case, Claim
from bench.cross_device.check import Outcome, check, judge
from bench.cross_device.content import Content, content_of, digest
from bench.cross_device.figure import is_wrong
from bench.cross_device.play import Play
from bench.cross_device.tamper import unfailing

ROWS = [{"city": "Ulm", "n": 3}, {"city": "Bonn", "n": 4}]
TRUTH = {"logs": {"rows": ROWS, "sum": 7, "sha": digest(b"seven\n"), "words": ["even", "seve"]}}


def table(tmp_path: Path) -> bytes:
    path = tmp_path / "t.db"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE t (city TEXT, n INTEGER)")
        base.executemany("INSERT INTO t VALUES (:city, :n)", ROWS)
    base.close()
    return path.read_bytes()


def packed(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def files(tmp_path: Path) -> dict[str, Content | None]:
    return {
        "m:csv": b"city,n\nUlm,3\nBonn,4\n", "m:json": json.dumps({"rows": ROWS}).encode(), "m:text": b"seven\n",
        "m:db": table(tmp_path), "m:tgz": packed(a=b"seven\n"), "m:folder": {"a": b"seven\n"}, "m:none": None,
    }  # fmt: skip


def of(**given: Any) -> Claim:
    place = {
        key: given.pop(key) for key in ("id", "output", "file", "form", "query", "value", "within") if key in given
    }
    return Claim(given, **place)


HOLDING = [
    of(id="count", value="[]/n", equals=[3, 4]),
    of(id="count", rows=[ROWS[1], {"truth": "logs/rows/0"}]),
    of(id="count", value="[]/city", same_set=["Bonn", "Ulm"]),
    of(id="count", count=2),
    of(output="total", near=7.1, within=0.02),
    of(output="total", equals={"truth": "logs/sum"}),
    of(output="flag", equals=False),
    of(output="file", form="text", contains={"truth": "logs/words"}),
    of(file="m:csv", form="csv", rows={"truth": "logs/rows"}),
    of(file="m:json", form="json", value="rows/1", contains={"n": 4}),
    of(file="m:text", contains="even"),
    of(file="m:text", form="lines", equals=["seven"]),
    of(file="m:text", sha256={"truth": "logs/sha"}, exists=True),
    of(file="m:db", form="sqlite", query="SELECT city, n FROM t", rows={"truth": "logs/rows"}),
    of(file="m:tgz", form="archive", equals={"a": {"truth": "logs/sha"}}),
    of(file="m:folder", form="archive", equals={"a": {"truth": "logs/sha"}}),
    of(file="m:folder", exists=True),
    of(file="m:none", exists=False),
]


def outcome(tmp_path: Path) -> Outcome:
    found = {**files(tmp_path), "output file": b"seven\n"}
    return Outcome("succeeded", {"count": ROWS}, {"total": 7, "flag": False, "file": "sha256:..."}, found)


@pytest.mark.parametrize("claim", HOLDING, ids=lambda one: f"{one.name}-{'-'.join(one.expects)}")
def test_what_is_so_holds_and_falsified_fails(tmp_path: Path, claim: Claim) -> None:
    there = outcome(tmp_path)
    assert judge(claim, there, TRUTH).why == ""
    assert unfailing(case(claim), there, TRUTH) == []


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (of(id="other", equals=1), "it is not there"),
        (of(id="count", value="0/m", equals=1), "there is no m"),
        (of(output="total", value="[]/x", equals=1), "is no list"),
        (of(output="flag", equals=0), "false does not satisfy equals 0"),
        (of(output="total", near="7", within=1.0), "is not within"),
        (of(output="total", contains=7), "does not satisfy contains"),
        (of(file="m:csv", form="json", equals=1), "it is not json"),
        (of(file="m:text", form="sqlite", query="SELECT 1", equals=1), "it is not sqlite"),
        (of(file="m:text", form="archive", equals=1), "it is not archive"),
        (of(file="m:folder", form="text", equals=1), "it is a folder"),
        (of(file="m:none", equals=1), "it is not there"),
        (of(file="m:text", exists=False), "it is there"),
    ],
)
def test_what_is_not_so_says_why(tmp_path: Path, claim: Claim, why: str) -> None:
    found = judge(claim, outcome(tmp_path), TRUTH)
    assert (found.ok, found.broken) == (False, False)
    assert why in found.why


def test_a_claim_that_cannot_fail_is_found(tmp_path: Path) -> None:
    weak = [of(output="total", near=7, within=9.0), of(file="m:text", contains=""), of(output="total", exists=True)]
    found = unfailing(case(*weak), outcome(tmp_path), TRUTH)
    assert {one.split(":")[0] for one in found} == {"total", "m"}


def case(*claims: Claim, state: str = "succeeded") -> Case:
    subtasks = tuple(one for one in claims if one.id)
    return Case("c", "content", "t", "r", {}, subtasks, tuple(one for one in claims if not one.id), state=state)


def test_a_claim_that_breaks_costs_no_other() -> None:
    broken = (of(output="total", near=7, within="wide"), of(output="total", equals={"truth": "logs/sums"}))
    found = check(case(*broken, of(output="total", equals=7)), Outcome("succeeded", outputs={"total": 7}), TRUTH)
    assert [one.ok for one in found] == [True, False, False, True]
    assert "the check itself broke: TypeError" in found[1].why
    assert "the check itself broke: there is no sums" in found[2].why
    play = Play(case="c", category="content", state="succeeded", findings=tuple(found))
    assert not is_wrong(play)
    assert len(play.unjudged) == 2


def test_how_the_run_ended_is_checked() -> None:
    for wanted, state, ok in (
        ("succeeded", "partial", False), ("partial", "partial", True), ("partial", "failed", False),
        ("failed", "partial", True), ("succeeded", "succeeded", True), ("partial", "succeeded", False),
    ):  # fmt: skip
        assert check(case(state=wanted), Outcome(state), {})[0].ok is ok


def test_of_another_graph_a_value_may_stand_anywhere_but_must_be_there() -> None:
    there = Outcome(
        "succeeded", {"t3": {"rows": [{"n": 7}]}}, {"answer": {"rows": [{"n": 7}]}},
        {"output a": b"seven\n", "output b": packed(x=b"seven\n")},
    )  # fmt: skip
    right = case(
        of(id="sum", value="n", equals=7), of(output="n", equals=7), of(output="f", form="text", contains="sev"),
        of(output="g", form="archive", equals={"x": digest(b"seven\n")}),
    )  # fmt: skip
    assert all(one.ok for one in check(right, there, {}, loose=True))
    right = case(of(output="n", value="[]/n", equals=[7]), of(output="n", value="0/n", equals=7))
    assert all(one.ok for one in check(right, there, {}, loose=True))
    wrong = case(
        of(id="sum", equals=8), of(output="n", count=7), of(output="f", form="text", contains="six"),
        of(output="n", value="[]/n", equals=[8]), of(output="g", form="archive", equals={"x": digest(b"six\n")}),
    )  # fmt: skip
    assert [one.ok for one in check(wrong, there, {}, loose=True)] == [True, *5 * [False]]


def test_content_is_read_from_the_disk(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("x")
    assert content_of(tmp_path / "a") == {"b/c": b"x"}
    assert content_of(tmp_path / "a" / "b" / "c") == b"x"
    assert content_of(tmp_path / "d") is None
