"""Fixtures of `asterism bench cross-device`: equal seeds write equal data, and each truth is what lies in the files."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.cross_device.fixture import GENERATORS, dice_of, gathered, make
from protocol.errors import UsageError


def read(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


@pytest.mark.parametrize("kind", sorted(GENERATORS))
def test_equal_seeds_make_equal_data_and_others_do_not(tmp_path: Path, kind: str) -> None:
    truths = [make(kind, tmp_path / name, {}, dice_of(seed, kind)) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert read(tmp_path / "a") == read(tmp_path / "b") != read(tmp_path / "c")
    assert truths[0] == truths[1] != truths[2]
    assert json.loads(json.dumps(truths[0])) == truths[0]


def test_logs_say_what_is_in_them(tmp_path: Path) -> None:
    truth = make("logs", tmp_path, {"files": 3, "lines": 50}, dice_of(5))
    texts = {name: data.decode() for name, data in read(tmp_path).items()}
    assert truth["names"] == list(texts)
    assert truth["errors_per_file"] == [text.count("ERROR") for text in texts.values()]
    assert truth["lines"] == sum(text.count("\n") for text in texts.values()) == 150
    assert truth["bytes"] == sum(len(text) for text in texts.values())
    for one in truth["reasons"]:
        assert one["n"] == sum(text.count(f"reason={one['reason']}") for text in texts.values())


@pytest.mark.parametrize("form", ["csv", "jsonl", "sqlite"])
def test_a_shop_has_the_same_books_in_every_form(tmp_path: Path, form: str) -> None:
    truth = make("shop", tmp_path, {"form": form}, dice_of(5))
    orders: list[dict[str, Any]]
    if form == "csv":
        orders = list(csv.DictReader((tmp_path / "orders.csv").open()))
    elif form == "jsonl":
        orders = [json.loads(line) for line in (tmp_path / "orders.jsonl").read_text().splitlines()]
    else:
        base = sqlite3.connect(tmp_path / "shop.sqlite")
        base.row_factory = sqlite3.Row
        orders = [dict(row) for row in base.execute("SELECT * FROM orders")]
        base.close()
    assert (
        truth["revenue"]
        == sum(int(one["amount"]) for one in orders)
        == sum(row["amount"] for row in truth["by_region"])
    )
    assert make("shop", tmp_path / "again", {"form": "csv"}, dice_of(5)) == truth


def test_what_is_asked_for_wrongly_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no generator is called 'lodgers'"):
        make("lodgers", tmp_path, {}, dice_of(1))
    with pytest.raises(UsageError, match="logs takes no 'rows'"):
        make("logs", tmp_path, {"rows": 3}, dice_of(1))
    with pytest.raises(UsageError, match="files of logs is 'six'"):
        make("logs", tmp_path, {"files": "six"}, dice_of(1))


def test_two_generators_of_one_name_are_refused_by_name() -> None:
    one, two = ModuleType("one"), ModuleType("two")
    one.GENERATORS, two.GENERATORS = {"logs": make}, {"rows": make, "logs": make}  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="one and two both have a generator 'logs'"):
        gathered([one, two])
