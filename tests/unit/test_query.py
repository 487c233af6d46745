"""What a SELECT says of itself, and that a doubtful one says nothing."""

import pytest

from planner.query import columns_of, gives_one_row, tables_of


@pytest.mark.parametrize(
    ("sql", "tables", "columns", "one"),
    [
        ("select n from t", ("t",), ("n",), False),
        ('SELECT a.n, "m" AS "k" FROM "t" a, u JOIN v USING (n)', ("t", "u", "v"), ("n", "k"), False),
        ("select sum(n) as n, count(*) as k from t where x in (select x from u)", ("t", "u"), ("n", "k"), True),
        ("with w as (select n from t) select n from w limit 1", ("t",), ("n",), True),
        ("with recursive w(n) as (values(1) union all select n + 1 from w) select n from w, b", ("b",), ("n",), False),
        ("select max(n) as n from t union all select 2 from u", ("t", "u"), ("n",), False),
        ("select max(n) as n from t group by k", ("t",), ("n",), False),
        ("select * from t, json_each(t.x) -- from u", ("t",), (), False),
        ("select n + 1, 'from z' as k from t order by n, k", ("t",), (), False),
        ("select case when n then 1 end as k from (select n from t) where 'a, b' <> n", ("t",), ("k",), False),
        ("delete from", (), (), False),
        ("", (), (), False),
    ],
)
def test_tables_columns_and_whether_it_gives_one_row(
    sql: str, tables: tuple[str, ...], columns: tuple[str, ...], one: bool
) -> None:
    assert (tables_of(sql), columns_of(sql), gives_one_row(sql)) == (tables, columns, one)
