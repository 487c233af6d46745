"""The `compute.*` skills: exact arithmetic whose results can be checked to the last digit, in simulated time.

What they compute is real. `seconds` is slept on top of it, for a device with more to do than two cores can bear: that
part is simulated and keeps no core busy. `by` tells who multiplied: torch or cupy on a card, plain Python otherwise.
They must not know the suite, its cases or their truths.
"""

from __future__ import annotations

import json
import math
import random
import time
from operator import mul
from typing import Annotated, Any, Final, TypedDict

from devices.kernel import card
from protocol.errors import SkillFailed, Unavailable
from protocol.resource import Resources
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

_LARGEST_EXACT: Final = 1 << 52
"""Beyond this a float's square root may be off by one."""
_MERSENNE: Final = (1 << 31) - 1
_FEW: Final = 8
"""Numbers that are not worth a child of their own."""
Slept = Annotated[float, "simulated time of the device, slept on top of the arithmetic"]


class Span(TypedDict):
    first: int
    last: int


class Primes(TypedDict):
    first: int
    last: int
    primes: int
    total: int


@skill(
    name="compute.primes",
    effect="pure",
    takes="seconds",
    examples=("count the primes of {span}",),
    tags=("number", "prime"),
)
def primes(span: Annotated[Span, "both ends included"], seconds: Slept = 0.02) -> Primes:
    """Counts the primes of a range and adds them up, by trial division."""
    time.sleep(seconds)
    found = [n for n in range(max(2, span["first"]), span["last"] + 1) if _is_prime(n)]
    return Primes(first=span["first"], last=span["last"], primes=len(found), total=sum(found))


class Piece(TypedDict):
    seed: int
    darts: int


class Hits(TypedDict):
    seed: int
    darts: int
    hits: int


@skill(
    name="compute.darts",
    effect="pure",
    takes="seconds",
    examples=("throw the darts of {piece}",),
    tags=("monte", "carlo", "pi", "random"),
)
def darts(piece: Annotated[Piece, "a seed, and how many darts"], seconds: Slept = 0.01) -> Hits:
    """Throws seeded darts at a square of 2^16 steps a side and counts those inside the quarter circle."""
    time.sleep(seconds)
    source, hits = random.Random(piece["seed"]), 0
    for _ in range(piece["darts"]):
        x, y = source.getrandbits(16), source.getrandbits(16)
        hits += x * x + y * y < 1 << 32
    return Hits(seed=piece["seed"], darts=piece["darts"], hits=hits)


class Point(TypedDict):
    x: int
    y: int
    low_x: int
    low_y: int


class Height(TypedDict):
    x: int
    y: int
    height: int


@skill(
    name="compute.height",
    effect="pure",
    takes="seconds",
    examples=("measure the height of {point}",),
    tags=("grid", "parameter", "evaluate"),
)
def height(point: Annotated[Point, "where, and where it is lowest"], seconds: Slept = 0.03) -> Height:
    """The height of a point in a long valley; it takes both coordinates together to go down."""
    time.sleep(seconds)
    across, along = point["x"] - point["low_x"], point["y"] - point["low_y"]
    return Height(x=point["x"], y=point["y"], height=3 * across * across + 2 * across * along + along * along)


class Advanced(TypedDict):
    value: int
    rounds: int


@skill(name="compute.start", effect="pure", examples=("take the start value of {file}",), tags=("value", "begin"))
def start(file: Annotated[File, "JSON with a value"], seconds: Slept = 0.03) -> Advanced:
    """The value that a chain begins with."""
    time.sleep(seconds)
    return Advanced(value=int(json.loads(file.read_text())["value"]), rounds=0)


@skill(
    name="compute.advance",
    effect="pure",
    takes="seconds",
    examples=("advance {value} by {rounds} rounds",),
    tags=("chain", "step"),
)
def advance(
    value: Annotated[Any, "a whole number: what the step before came to"], rounds: int, seconds: Slept = 0.03
) -> Advanced:
    """Squares the value modulo 2^31 - 1 so many times: a chain that nobody can cut."""
    time.sleep(seconds)
    reached = int(value)
    for _ in range(rounds):
        reached = reached * reached % _MERSENNE
    return Advanced(value=reached, rounds=rounds)


class Product(TypedDict):
    file: File
    rows: int
    total: int
    by: str


@skill(
    name="compute.multiply",
    effect="pure",
    takes="seconds",
    examples=("multiply {left} by {right}",),
    tags=("matrix", "product", "block"),
)
def multiply(
    ctx: SkillContext,
    left: Annotated[File, "JSON rows of integers"],
    right: Annotated[File, "JSON rows of integers"],
    seconds: Slept = 0.03,
) -> Product:
    """Multiplies two integer matrices and writes the product beside the sum of its elements."""
    rows = product(json.loads(left.read_text()), json.loads(right.read_text()))
    return _written(ctx, left, rows, "python", seconds)


@multiply.on("gpu", needs=Resources(cpu=1, gpu=0.25))
def _(ctx: SkillContext, left: File, right: File, seconds: float = 0.03) -> Product:
    try:
        engine = card()
    except Unavailable:  # a simulated card: the processor stands for it, and `by` says so
        return multiply(ctx, left, right, seconds)
    factors = [json.loads(file.read_text()) for file in (left, right)]
    made = _on_card(engine.library, engine.by, factors, engine.card)
    return _written(ctx, left, made, engine.by, seconds)


class Root(TypedDict):
    number: int
    root: int
    how: str


@skill(name="compute.root", effect="pure", takes="seconds", examples=("take the root of {number}",), tags=("square",))
def root(number: int, seconds: Slept = 0.03) -> Root:
    """The whole square root in floating point; refuses what that can't hold."""
    time.sleep(seconds)
    if number > _LARGEST_EXACT:
        raise SkillFailed(f"{number} is more than a float holds", hint="compute.long_root takes any number")
    return Root(number=number, root=int(math.sqrt(number)), how="float")


@skill(
    name="compute.long_root",
    effect="pure",
    takes="seconds",
    examples=("take the long root of {number}",),
    tags=("square",),
)
def long_root(number: int, seconds: Slept = 0.03) -> Root:
    """The whole square root of any number, digit by digit."""
    time.sleep(seconds)
    return Root(number=number, root=math.isqrt(number), how="long")


class Steps(TypedDict):
    numbers: int
    steps: int
    leaves: int


@skill(
    name="compute.collatz",
    effect="pure",
    spawns=True,
    examples=("add up the collatz steps of {numbers}",),
    tags=("tree", "spawn", "halves"),
)
def collatz(ctx: SkillContext, numbers: Annotated[list[Any], "whole numbers"], seconds: Slept = 0.03) -> Steps:
    """Adds up how many Collatz steps each number takes to 1; a long list is halved, each half a task of its own."""
    if len(numbers) > _FEW:
        middle = len(numbers) // 2
        halves = [ctx.spawn(collatz, numbers=part, seconds=seconds) for part in (numbers[:middle], numbers[middle:])]
        left, right = ctx.join(*halves)
        return Steps(
            numbers=len(numbers), steps=left["steps"] + right["steps"], leaves=left["leaves"] + right["leaves"]
        )
    time.sleep(seconds)
    return Steps(numbers=len(numbers), steps=sum(map(_collatz, numbers)), leaves=1)


def product(left: list[list[int]], right: list[list[int]]) -> list[list[int]]:
    columns = list(zip(*right, strict=True))
    return [[sum(map(mul, row, column)) for column in columns] for row in left]


def _is_prime(number: int) -> bool:
    return all(number % factor for factor in range(2, math.isqrt(number) + 1))


def _collatz(number: int) -> int:
    steps = 0
    while number > 1:
        number, steps = (3 * number + 1 if number % 2 else number // 2), steps + 1
    return steps


def _on_card(library: Any, by: str, factors: list[Any], card_number: int) -> list[list[int]]:
    """Exact, as all of it stays far below 2^53."""
    if by == "torch":
        left, right = (library.tensor(one, dtype=library.float64, device=f"cuda:{card_number}") for one in factors)
    else:
        left, right = (library.asarray(one, dtype=library.float64) for one in factors)
    return [[int(cell) for cell in row] for row in (left @ right).tolist()]


def _written(ctx: SkillContext, left: File, rows: list[list[int]], by: str, seconds: float) -> Product:
    time.sleep(seconds)
    made = ctx.file(f"product-of-{left.name}")
    made.path.write_text(json.dumps(rows))
    return Product(file=made, rows=len(rows), total=sum(map(sum, rows)), by=by)
