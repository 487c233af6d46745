"""The `picture.*` skills: real arithmetic on grey images (binary PGM), in plain Python.

Invariant: what they give is a function of the pixels. Workers load this module by name; it must not know who runs it.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, TypedDict

import msgspec

from protocol.errors import SkillFailed, UsageError
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

_HEAD: Final = re.compile(rb"P5\s+(\d+)\s+(\d+)\s+255\s")


class Picture(msgspec.Struct, frozen=True):
    width: int
    height: int
    pixels: bytes


class Measured(TypedDict):
    file: File
    name: str
    width: int
    height: int
    sum: int
    brightest: int


class Drawn(TypedDict):
    file: File
    name: str
    width: int
    height: int


@skill(
    name="picture.measure",
    effect="pure",
    timeout="1m",
    examples=("measure {file}", "measure the brightness of {file}"),
    tags=("image", "brightness", "pgm"),
)
def measure(file: Annotated[File, "a grey image"]) -> Measured:
    """Measures an image: its size, the sum of its pixels, the brightest of them."""
    one = _read(file)
    brightest = max(one.pixels, default=0)
    return Measured(
        file=file, name=file.name, width=one.width, height=one.height, sum=sum(one.pixels), brightest=brightest
    )


@skill(
    name="picture.shrink",
    effect="pure",
    timeout="1m",
    examples=("shrink {file}", "make a thumbnail of {file}"),
    tags=("image", "thumbnail", "small"),
)
def shrink(
    ctx: SkillContext,
    file: Annotated[File, "a grey image"],
    by: Annotated[int, "one pixel for so many times so many"] = 4,
) -> Drawn:
    """Makes an image smaller: each pixel is the brightest of those that it stands for."""
    one = _read(file)
    if not 0 < by <= min(one.width, one.height):
        raise UsageError(f"can't shrink {one.width}x{one.height} by {by}", hint="1 to the shorter side")
    width, height = one.width // by, one.height // by
    pixels = bytearray()
    for y in range(height):
        rows = [one.pixels[row * one.width : (row + 1) * one.width] for row in range(y * by, (y + 1) * by)]
        pixels += bytes(max(max(row[x * by : (x + 1) * by]) for row in rows) for x in range(width))
    return _written(ctx, f"small-{file.name}", Picture(width, height, bytes(pixels)))


@skill(
    name="picture.sheet",
    effect="pure",
    timeout="1m",
    examples=("make a contact sheet of {pictures}", "make a contact sheet called {name} of {pictures}"),
    tags=("image", "contact", "sheet", "tile"),
)
def sheet(
    ctx: SkillContext,
    pictures: Annotated[list[Drawn], "images of equal size"],
    name: Annotated[str, "the sheet's name"] = "sheet.pgm",
    columns: Annotated[int, "so many beside each other"] = 4,
) -> Drawn:
    """Puts images of equal size beside and below each other on one sheet."""
    found = [_read(one["file"]) for one in pictures]
    if not found or len({(one.width, one.height) for one in found}) > 1:
        raise SkillFailed("a sheet takes images of one size, and at least one of them")
    width, height = found[0].width, found[0].height
    pixels = bytearray()
    for top in range(0, len(found), columns):
        row = found[top : top + columns]
        for y in range(height):
            line = b"".join(one.pixels[y * width : (y + 1) * width] for one in row)
            pixels += line.ljust(columns * width, b"\0")
    down = -(-len(found) // columns) * height
    return _written(ctx, name, Picture(columns * width, down, bytes(pixels)))


def _read(file: File) -> Picture:
    with file.open("rb") as source:
        data = source.read()
    head = _HEAD.match(data)
    if head is None or len(data) - head.end() != int(head[1]) * int(head[2]):
        raise SkillFailed(f"{file.name} is no grey image", hint="binary PGM (P5) of 8 bits")
    return Picture(int(head[1]), int(head[2]), data[head.end() :])


def _written(ctx: SkillContext, name: str, one: Picture) -> Drawn:
    made = ctx.file(name)
    with made.open("wb") as out:
        out.write(f"P5\n{one.width} {one.height}\n255\n".encode() + one.pixels)
    return Drawn(file=made, name=made.name, width=one.width, height=one.height)
