"""Real work of two kinds that tells what a device can do: the matrix product (GEMM) and the STREAM triad.

numpy computes on the processor, torch or cupy on a card, plain Python where there is none of them; `by` says which it
was, always. Libraries are imported when they are asked for and never before: no daemon and no server may load them.
Both kernels check what they computed: a device that computes wrongly is no fast device.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from operator import mul
from typing import Any, Final, Literal

import msgspec

from protocol.errors import Unavailable

from .cpu import usable_cores

By = Literal["numpy", "torch", "cupy", "python"]
_BLOCK: Final = 16_384
"""Numbers of a triad that numpy handles at once: they stay in the cache between its two passes."""
_SCALE: Final = 3.0


class Engine(msgspec.Struct, frozen=True):
    """Who computes, and on what. `library`: its module, None for plain Python."""

    by: By
    device: Literal["cpu", "gpu"]
    library: Any = None
    card: int = 0


class Kernel(msgspec.Struct, frozen=True):
    """One round of work: `act` does it and returns when it is done, `work` is its flops or bytes.

    `check` raises ArithmeticError when the last round's result is wrong.
    """

    act: Callable[[], object]
    work: float
    check: Callable[[], None]


def processor() -> Engine:
    """numpy, or plain Python without it."""
    numpy = _library("numpy")
    return Engine("python", "cpu") if numpy is None else Engine("numpy", "cpu", numpy)


def card(index: int = 0) -> Engine:
    """torch or cupy on the card of that number among those visible. Raises: Unavailable when neither reaches one."""
    torch = _library("torch")
    if torch is not None and torch.cuda.is_available() and index < torch.cuda.device_count():
        return Engine("torch", "gpu", torch, index)
    cupy = _library("cupy")
    if cupy is not None:
        with contextlib.suppress(Exception):  # cupy raises its runtime's own errors where there is no driver
            if index < cupy.cuda.runtime.getDeviceCount():
                return Engine("cupy", "gpu", cupy, index)
    raise Unavailable("no card that can compute", hint="install torch or cupy for CUDA where this worker runs")


def matmul(engine: Engine, side: int) -> Kernel:
    """C = A B of float32 squares: 2 side^3 flops. Plain Python: float64, and thousands of times slower."""
    flops = 2.0 * side**3
    if engine.by == "python":
        rows = [[_left(i, j) for j in range(side)] for i in range(side)]
        columns = [[_right(i, j) for i in range(side)] for j in range(side)]
        made: list[list[float]] = []

        def multiply() -> None:
            made[:] = [[sum(map(mul, row, column)) for column in columns] for row in rows]

        return Kernel(multiply, flops, lambda: _same(sum(map(sum, made)), _product(side), "matmul"))
    library = engine.library
    with _on(engine):
        index = library.arange(side, **_place(engine))
        left = _single(engine, _left(index[:, None], index[None, :]))
        right = _single(engine, _right(index[:, None], index[None, :]))
        product = library.empty_like(left)
        multiply_into = library.mm if engine.by == "torch" else library.matmul

    def act() -> None:
        with _on(engine):
            multiply_into(left, right, out=product)
            _wait(engine)

    return Kernel(act, flops, lambda: _same(float(product.sum()), _product(side), "matmul"))


def triad(engine: Engine, count: int, threads: int = 0) -> Kernel:
    """a = b + s c over float64 of `count` numbers each: 24 count bytes, as STREAM counts. `threads` 0: as allowed."""
    if engine.by == "python":  # an interpreter adds no faster than its cache: a copy, 16 count bytes
        source, target = memoryview(bytearray(b"\1") * (8 * count)), memoryview(bytearray(8 * count))

        def copy() -> None:
            target[:] = source

        return Kernel(copy, 16.0 * count, lambda: _same(target[-1], 1, "copy"))
    library, split = engine.library, threads or allowed_threads()
    with _on(engine):
        b = library.full((count,), 1.0, dtype=library.float64, **_place(engine))
        c = library.full((count,), 2.0, dtype=library.float64, **_place(engine))
        a = library.empty_like(b)
    fused: Callable[[], object] = lambda: _in_threads(library, a, b, c, split)  # noqa: E731
    if engine.by == "torch":
        fused = lambda: library.add(b, c, alpha=_SCALE, out=a)  # noqa: E731
    elif engine.by == "cupy":
        compiled = library.ElementwiseKernel("float64 b, float64 c", "float64 a", f"a = b + {_SCALE} * c", "triad")
        fused = lambda: compiled(b, c, a)  # noqa: E731

    def act() -> None:
        with _on(engine):
            fused()
            _wait(engine)

    return Kernel(act, 24.0 * count, lambda: _same(float(a.sum()), 7.0 * count, "triad"))


def allowed_threads() -> int:
    """What OMP_NUM_THREADS grants this process, else every core that it may use."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    return int(granted) if granted.isdigit() and int(granted) else usable_cores()


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):  # a CUDA library without its driver fails to load with the latter
        return None


def _left(i: Any, j: Any) -> Any:
    return (i * 7 + j * 3) % 11 - 4


def _right(i: Any, j: Any) -> Any:
    return (i * 5 + j) % 7 - 2


def _product(side: int) -> float:
    """The sum of all elements of the product, in side^2 steps."""
    span = range(side)
    return float(sum(sum(_left(i, k) for i in span) * sum(_right(k, j) for j in span) for k in span))


def _same(found: float, expected: float, what: str) -> None:
    if not abs(found - expected) <= 1e-3 * max(1.0, abs(expected)):
        raise ArithmeticError(f"this device computed a wrong {what}: {found:g} instead of {expected:g}")


def _place(engine: Engine) -> dict[str, Any]:
    return {"device": f"cuda:{engine.card}"} if engine.by == "torch" else {}


def _single(engine: Engine, array: Any) -> Any:
    """As float32."""
    single = engine.library.float32
    return array.to(single) if engine.by == "torch" else array.astype(single)


def _on(engine: Engine) -> contextlib.AbstractContextManager[Any]:
    found = engine.library.cuda.Device(engine.card) if engine.by == "cupy" else contextlib.nullcontext()
    return found


def _wait(engine: Engine) -> None:
    if engine.by == "torch":
        engine.library.cuda.synchronize(engine.card)
    elif engine.by == "cupy":
        engine.library.cuda.Device(engine.card).synchronize()


def _in_threads(numpy: Any, a: Any, b: Any, c: Any, threads: int) -> None:
    """numpy has no fused triad: block by block its two passes meet in the cache, so memory sees three streams."""
    bounds = [len(a) * part // threads for part in range(threads + 1)]

    def part(span: Sequence[int]) -> None:
        for at in range(span[0], span[1], _BLOCK):
            end = min(at + _BLOCK, span[1])
            numpy.multiply(c[at:end], _SCALE, out=a[at:end])
            numpy.add(a[at:end], b[at:end], out=a[at:end])

    if threads == 1:
        part(bounds)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, pairwise(bounds)))
