"""What the compute skills find is what the makers of their numbers knew in another way."""

import json
from pathlib import Path
from typing import cast

import pytest

from bench.cross_device import compute
from bench.cross_device.fixture import dice_of, make
from protocol.errors import SkillFailed
from workers.builtin.fs import read_csv
from workers.context import SkillContext
from workers.file import File

SEEDS = (1, 2, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_primes_darts_and_heights_are_what_was_known_of_them(tmp_path: Path, seed: int) -> None:
    spans = make("spans", tmp_path, {"parts": 4, "upto": 500}, dice_of(seed))
    found = [compute.primes(row, seconds=0) for row in read_csv((tmp_path / "spans.csv").read_text())]
    assert [one["primes"] for one in found] == [row["primes"] for row in spans["spans"]]
    assert sum(one["total"] for one in found) == spans["total"]
    darts = make("darts", tmp_path, {"pieces": 2, "darts": 50}, dice_of(seed))
    pieces = read_csv((tmp_path / "pieces.csv").read_text())
    assert [compute.darts(row, seconds=0)["hits"] for row in pieces] == darts["hits_per_piece"]
    valley = make("valley", tmp_path, {"points": 12}, dice_of(seed))
    heights = [compute.height(row, seconds=0) for row in read_csv((tmp_path / "grid.csv").read_text())]
    assert [one["height"] for one in heights] == valley["heights"]
    assert min(heights, key=lambda one: one["height"]) == valley["best"]


@pytest.mark.parametrize("seed", SEEDS)
def test_chains_roots_walks_and_products_are_what_was_known_of_them(tmp_path: Path, seed: int) -> None:
    chain = make("chain", tmp_path, {"values": 1, "rounds": [3, 5]}, dice_of(seed))
    value = compute.start(File(tmp_path / "start.json"), seconds=0)["value"]
    first = compute.advance(value, 3, seconds=0)["value"]
    assert [value, first, compute.advance(first, 5, seconds=0)["value"]] == [chain["start"], *chain["steps"]]
    squares = make("squares", tmp_path, {}, dice_of(seed))
    for number, root, how in zip(squares["numbers"], squares["roots"], squares["hows"], strict=True):
        assert compute.long_root(number, seconds=0)["root"] == root
        if how == "float":
            assert compute.root(number, seconds=0)["root"] == root
        else:
            with pytest.raises(SkillFailed, match="more than a float holds"):
                compute.root(number, seconds=0)
    walks = make("walkers", tmp_path, {"numbers": 8}, dice_of(seed))
    assert compute.collatz(cast(SkillContext, None), walks["numbers"], seconds=0)["steps"] == walks["steps"]
    matrix = make("matrix", tmp_path, {"side": 6, "blocks": 2}, dice_of(seed))
    factors = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("left-00", "left-01", "right")]
    assert [sum(map(sum, compute.product(left, factors[-1]))) for left in factors[:-1]] == matrix["totals"]
