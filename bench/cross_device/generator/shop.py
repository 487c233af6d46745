"""The books of a shop: customers, products and orders, as CSV files, JSON lines or one SQLite file."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from orchestrator.placement.dice import Dice
from protocol.errors import UsageError

from .draw import Generator, between, pick, some

Row = dict[str, Any]

_REGIONS: Final = ("east", "north", "south", "west")
_FIRST: Final = ("Ada", "Ben", "Cleo", "Dag", "Eva", "Finn", "Gro", "Hal", "Ida", "Jon", "Kim", "Lea")
_LAST: Final = ("Ahlers", "Brandt", "Cordes", "Dircks", "Eggers", "Franke", "Gerken", "Harms")
_GOODS: Final = ("anvil", "bellows", "chisel", "drill", "easel", "file", "gauge", "hammer", "iron", "jack")


def shop(
    folder: Path,
    dice: Dice,
    *,
    customers: int = 12,
    products: int = 6,
    orders: int = 200,
    months: int = 4,
    form: str = "csv",
    split: bool = False,
    broken: int = 0,
    torn: int = 0,
    least: int = 0,
) -> Any:
    """`form`: csv, jsonl or sqlite (shop.sqlite). `split`: the orders of each month in a file of their own.

    `broken`: in so many of these files (csv) amounts are written as `45 EUR`. `torn`: so many lines of the orders
    (jsonl) end in the middle; `whole` is the truth about the others, `above` about orders of at least `least`.

    Prices are whole, so that sums are exact whoever adds them up. What a customer has bought is `amount`.
    """
    people = [
        {"customer": at, "name": f"{_FIRST[at % len(_FIRST)]} {pick(dice, _LAST)}", "region": pick(dice, _REGIONS)}
        for at in range(1, customers + 1)
    ]
    goods = [
        {"product": at, "title": _GOODS[(at - 1) % len(_GOODS)] + ("" if at <= len(_GOODS) else f" {at}"),
         "price": between(dice, 2, 90)}
        for at in range(1, products + 1)
    ]  # fmt: skip
    sold = [_order(dice, at, people, goods, f"2026-{at * months // orders + 1:02d}") for at in range(orders)]
    books: dict[str, list[Row]] = {"customers": people, "products": goods}
    parts = _by_month(sold)
    wrong = some(dice, sorted(parts), broken)
    for name in wrong:
        parts[name] = [{**one, "amount": f"{one['amount']} EUR"} for one in parts[name]]
    books |= parts if split else {"orders": sold}
    if form not in _WRITERS:
        raise UsageError(f"a shop has no form {form!r}", hint=f"there are {', '.join(_WRITERS)}")
    _WRITERS[form](folder, books)
    lost = some(dice, range(orders), torn)
    for number in lost if form == "jsonl" else ():
        _tear(folder / "orders.jsonl", number)
    whole = [one for at, one in enumerate(sold) if at not in lost]
    above = [one for one in sold if one["amount"] >= least]
    return {
        **_truth(people, goods, sold),
        "broken": [f"{name}.csv" for name in wrong],
        "whole": {"count": len(whole), "revenue": sum(one["amount"] for one in whole), "orders": whole},
        "above": {"count": len(above), "by_month": _months(above)},
    }


def _tear(path: Path, number: int) -> None:
    lines = path.read_text().splitlines()
    lines[number] = lines[number][: len(lines[number]) // 2]
    path.write_text("\n".join(lines) + "\n")


def _order(dice: Dice, at: int, people: Sequence[Row], goods: Sequence[Row], month: str) -> Row:
    who, what, quantity = pick(dice, people), pick(dice, goods), between(dice, 1, 9)
    return {
        "id": at + 1,
        "day": f"{month}-{between(dice, 1, 28):02d}",
        "customer": who["customer"],
        "product": what["product"],
        "quantity": quantity,
        "amount": quantity * what["price"],
    }


def _by_month(sold: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for one in sold:
        found.setdefault(f"orders-{one['day'][:7]}", []).append(one)
    return found


def _truth(people: Sequence[Row], goods: Sequence[Row], sold: Sequence[Row]) -> Any:
    region = {one["customer"]: one["region"] for one in people}
    name = {one["customer"]: one["name"] for one in people}
    title = {one["product"]: one["title"] for one in goods}
    spent = _sums((one["customer"], one["amount"]) for one in sold)
    best = [{"customer": who, "name": name[who], "amount": spent[who]}
            for who in sorted(spent, key=lambda who: (-spent[who], who))]  # fmt: skip
    return {
        "customers": people,
        "products": goods,
        "orders": sold,
        "count": len(sold),
        "revenue": sum(one["amount"] for one in sold),
        "by_region": _table("region", _sums((region[one["customer"]], one["amount"]) for one in sold)),
        "by_product": _table("title", _sums((title[one["product"]], one["amount"]) for one in sold)),
        "by_month": _months(sold),
        "by_customer": _table("customer", spent),
        "best": best[0],
        "best_five": best[:5],
        "largest": max(one["amount"] for one in sold),
        "largest_per_month": [max(row["amount"] for row in rows) for _, rows in sorted(_by_month(sold).items())],
        "orders_per_month": [len(rows) for _, rows in sorted(_by_month(sold).items())],
    }


def _months(sold: Iterable[Row]) -> list[Row]:
    return _table("month", _sums((one["day"][:7], one["amount"]) for one in sold))


def _sums(pairs: Iterable[tuple[Any, int]]) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for key, amount in pairs:
        found[key] = found.get(key, 0) + amount
    return found


def _table(key: str, sums: dict[Any, int]) -> list[Row]:
    return [{key: one, "amount": sums[one]} for one in sorted(sums)]


def _csv(folder: Path, books: dict[str, list[Row]]) -> None:
    for name, rows in books.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _jsonl(folder: Path, books: dict[str, list[Row]]) -> None:
    for name, rows in books.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _sqlite(folder: Path, books: dict[str, list[Row]]) -> None:
    with sqlite3.connect(folder / "shop.sqlite") as base:
        for name, rows in books.items():
            columns = list(rows[0])
            base.execute(f'CREATE TABLE "{name}" ({", ".join(columns)})')
            marks = ", ".join("?" * len(columns))
            base.executemany(f'INSERT INTO "{name}" VALUES ({marks})', [tuple(row.values()) for row in rows])
    base.close()


_WRITERS: Final = {"csv": _csv, "jsonl": _jsonl, "sqlite": _sqlite}


GENERATORS: Final[dict[str, Generator]] = {"shop": shop}
