"""Built-in skill data.sql: what it answers, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import SkillFailed, UsageError
from workers.builtin import data
from workers.builtin.data import Table, sql


def _table(rows: list[Any], name: str = "t", field: str = "") -> Table:
    return {"name": name, "rows": rows, "field": field} if field else {"name": name, "rows": rows}


def test_tables_of_records_join_and_sort() -> None:
    files = _table([{"file": "a", "n": 3}, {"file": "b", "n": 5}], "files")
    sizes = _table([{"file": "a", "bytes": 10}, {"file": "b", "bytes": 20, "more": True}], "sizes")
    got = sql([files, sizes], "select file, n, bytes, more from files join sizes using (file) order by n desc")
    assert got == {
        "rows": [{"file": "b", "n": 5, "bytes": 20, "more": 1}, {"file": "a", "n": 3, "bytes": 10, "more": None}],
        "count": 2,
    }


def test_lists_of_lists_are_flattened_once_and_nested_cells_are_json() -> None:
    rows = [[{"a": 1, "l": [{"x": 1}, {"x": 2}]}], {"a": 2, "l": []}, [{"a": 3, "l": {"k": "é"}}]]
    assert sql([_table(rows)], "select a, l from t order by a")["rows"] == [
        {"a": 1, "l": '[{"x": 1}, {"x": 2}]'},
        {"a": 2, "l": "[]"},
        {"a": 3, "l": '{"k": "é"}'},
    ]
    each = "select t.a, j.value->>'x' as x from t, json_each(t.l) j where t.a = 1"
    assert sql([_table(rows)], each)["rows"] == [{"a": 1, "x": 1}, {"a": 1, "x": 2}]
    assert sql([_table([{"l": [{"x": 1}]}, {"l": [{"x": 5}]}], field="l")], "select sum(x) s from t")["rows"] == [
        {"s": 6}
    ]


def test_scalars_and_odd_names_are_columns_too() -> None:
    assert sql([_table(["x", 2, None])], "select value from t")["rows"] == [
        {"value": "x"},
        {"value": 2},
        {"value": None},
    ]
    odd = _table([{'a "b"': 1, "A": 2, "a": 3, "big": 2**70}], "my table")
    assert sql([odd], 'select * from "my table"')["rows"] == [{'a "b"': 1, "A": 2, "a_2": 3, "big": str(2**70)}]
    assert sql([_table([])], "select count(*) n from t")["rows"] == [{"n": 0}]
    assert sql([_table([{"a": 1}])], "select a, a from t")["rows"] == [{"a": 1, "a_2": 1}]
    assert sql([], "select 1e999 x, x'41' y")["rows"] == [{"x": None, "y": "A"}]


@pytest.mark.parametrize(
    "statement",
    [
        "attach database '/tmp/x.db' as y",
        "pragma table_info(t)",
        "select load_extension('x')",
        "insert into t values (1)",
        "drop table t",
        "create table u (a)",
        "delete from t",
        "vacuum into '/tmp/x.db'",
        "begin",
        "select * from pragma_database_list",
        "select * from sqlite_dbpage",
    ],
)
def test_anything_but_a_select_is_not_allowed(statement: str) -> None:
    with pytest.raises(UsageError):
        sql([_table([{"a": 1}])], statement)


@pytest.mark.parametrize("statement", ["", "select 1; select 2", "select nope from t", "selec"])
def test_a_bad_statement_names_the_tables(statement: str) -> None:
    with pytest.raises(UsageError) as error:
        sql([_table([{"a": 1}], "known")], statement)
    assert error.value.hint


def test_work_memory_and_results_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MAX_STEPS", 1_000_000)
    endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n"
    with pytest.raises(SkillFailed, match="steps"):
        sql([], endless)
    with pytest.raises(UsageError, match="too big"):
        sql([], "select length(zeroblob(100000000))")
    monkeypatch.setattr(data, "MAX_RESULT_ROWS", 3)
    with pytest.raises(SkillFailed, match="more than 3 rows"):
        sql([_table([1, 2, 3, 4])], "select value from t")
    assert sql([_table([1, 2, 3])], "select value from t")["count"] == 3


def test_two_tables_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two tables"):
        sql([_table([1]), _table([2], "T")], "select 1")
    with pytest.raises(UsageError, match="no table name"):
        sql([_table([1], "sqlite_master")], "select 1")
