"""The `bench.*` skills: real arithmetic, real copying, and loads that only take time and write bytes.

`asterism run --skills bench.kernels ...` loads them. `bench.matmul` and `bench.stream` have variants for cpu and gpu;
`by` in their results says who computed: numpy, torch, cupy, or plain python where there is none of them. `bench.load`
stands for a task of a recorded workflow: what it computes is nothing, and it says so.
"""

from __future__ import annotations

import os
import random
import time
from typing import Annotated, Final, TypedDict

from devices.kernel import Engine, Kernel, card, matmul, processor, triad
from protocol.errors import Unavailable, UsageError
from protocol.resource import Resources
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

_CHUNK: Final = 1 << 20
_MOST_SIDE: Final = 65_536
_MOST_MIB: Final = 1 << 20


class Product(TypedDict):
    gflops: float
    seconds: float
    by: str
    device: str
    side: int


class Stream(TypedDict):
    gb_s: float
    seconds: float
    by: str
    device: str
    mib: int


class Loaded(TypedDict):
    files: list[File]
    read_bytes: int


@skill(name="bench.matmul", effect="pure", cached=False, timeout="10m", tags=("gemm", "matrix", "flops", "benchmark"))
def multiply(
    side: Annotated[int, "rows and columns of the float32 squares"] = 256,
    rounds: Annotated[int, "how often; the fastest counts"] = 3,
) -> Product:
    """Multiplies two square matrices, checks the product and says how many GFLOP/s that were."""
    return _multiply(processor(), side, rounds)


@multiply.on("gpu", needs=Resources(cpu=1, gpu=1))
def _(side: int = 256, rounds: int = 3) -> Product:
    return _multiply(_card(), side, rounds)


@skill(name="bench.stream", effect="pure", cached=False, timeout="10m", tags=("stream", "triad", "memory", "benchmark"))
def stream(
    mib: Annotated[int, "of each of the three arrays"] = 32,
    rounds: Annotated[int, "how often; the fastest counts"] = 5,
) -> Stream:
    """The STREAM triad a = b + s c over float64, checked: how many GB/s memory carries."""
    return _stream(processor(), mib, rounds)


@stream.on("gpu", needs=Resources(cpu=1, gpu=1))
def _(mib: int = 32, rounds: int = 5) -> Stream:
    return _stream(_card(), mib, rounds)


@skill(name="bench.load", effect="pure", timeout="1d", takes="seconds", tags=("simulated", "load", "workflow"))
def load(
    ctx: SkillContext,
    seconds: Annotated[float, "how long it takes"] = 0.0,
    spin: Annotated[bool, "keep a core busy for so long, instead of sleeping"] = False,
    sizes: Annotated[list[int], "bytes of each file that it writes"] = [],  # noqa: B006 - a default of the schema
    seed: Annotated[int, "of what it writes: equal seeds write equal files"] = 0,
    inputs: Annotated[list[File], "files that have to be here"] = [],  # noqa: B006
) -> Loaded:
    """A simulated load: takes time on one core, wants files, writes others; computes nothing."""
    began = time.process_time()
    read_bytes = sum(os.path.getsize(path) for path in inputs)
    while spin and time.process_time() - began < seconds:
        if ctx.cancelled:
            break
        sum(range(10_000))
    if not spin and seconds > 0:
        time.sleep(seconds)
    files = []
    for number, size in enumerate(sizes):
        source, made = random.Random(f"{seed}/{number}"), ctx.file(f"{number}.bin")
        with made.open("wb") as file:
            for at in range(0, size, _CHUNK):
                file.write(source.randbytes(min(_CHUNK, size - at)))
        files.append(made)
    return Loaded(files=files, read_bytes=read_bytes)


def _card() -> Engine:
    """The card this attempt sees; where no library reaches one (a simulated card), the processor, and `by` says so."""
    try:
        return card()
    except Unavailable:
        return processor()


def _multiply(engine: Engine, side: int, rounds: int) -> Product:
    if not 0 < side <= _MOST_SIDE:
        raise UsageError(f"a matrix of {side} rows", hint=f"1 to {_MOST_SIDE}")
    kernel = matmul(engine, side)
    seconds = _fastest(kernel, rounds)
    return Product(gflops=kernel.work / seconds / 1e9, seconds=seconds, by=engine.by, device=engine.device, side=side)


def _stream(engine: Engine, mib: int, rounds: int) -> Stream:
    if not 0 < mib <= _MOST_MIB:
        raise UsageError(f"arrays of {mib} MiB", hint=f"1 to {_MOST_MIB}")
    kernel = triad(engine, mib * 131_072)
    seconds = _fastest(kernel, rounds)
    return Stream(gb_s=kernel.work / seconds / 1e9, seconds=seconds, by=engine.by, device=engine.device, mib=mib)


def _fastest(kernel: Kernel, rounds: int) -> float:
    """Seconds of the fastest round. Raises: ArithmeticError when the result is wrong."""
    best = float("inf")
    for _ in range(max(1, rounds)):
        began = time.perf_counter()
        kernel.act()
        best = min(best, time.perf_counter() - began)
    kernel.check()
    return max(best, 1e-9)
