"""What is expected of a run, in lines: how long, at what price, and what each device would do when.

Honest about what nobody knows: without a measurement there is no estimate. It must not know how one is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from . import show

_WIDTH: Final = 48
_MOST_DEVICES: Final = 12


def lines(forecast: Mapping[str, Any]) -> Iterator[str]:
    """The forecast of `plan` and `run --dry-run`."""
    yield headline(forecast)
    for name in forecast["nowhere"][:5]:
        yield f"  no device may run {name} now"
    for said in forecast["assumed"][:5]:
        yield f"  assumed: {said}"
    if forecast["makespan_s"] is None:
        return  # bars of what is known alone would promise more than that
    until = max((span[2] for lane in forecast["devices"] for span in lane["spans"]), default=0.0)
    lanes = forecast["devices"][:_MOST_DEVICES]
    wide = max((len(_name(lane)) for lane in lanes), default=0)
    for lane in lanes:
        what = f"{show.many(lane['tasks'], 'task')}, busy {show.seconds(lane['busy_s'])}"
        yield f"  {_name(lane):<{wide}}  {bar(lane['spans'], lane['slots'], until)}  {what}"
    if len(forecast["devices"]) > _MOST_DEVICES:
        yield f"  and {len(forecast['devices']) - _MOST_DEVICES} more devices"


def headline(forecast: Mapping[str, Any]) -> str:
    """How long, in one line."""
    least = show.seconds(forecast["least_s"])
    if forecast["unknown"]:
        names = ", ".join(f"{name} ({show.many(n, 'task')})" for name, n in forecast["unknown"].items())
        return f"no estimate yet: nobody knows how long {names} takes; all else takes {least}"
    if forecast["makespan_s"] is None:
        return f"no estimate: not all of it can run now; what can takes {least}"
    found = f"expected: {show.seconds(forecast['makespan_s'])}"
    if forecast["high_s"] > forecast["low_s"] * 1.02:
        found += f", 8 times in 10 between {show.seconds(forecast['low_s'])} and {show.seconds(forecast['high_s'])}"
    if forecast["price"]:
        found += f"; price {forecast['price']:.4g}"
    if forecast["energy_j"]:
        found += f"; {forecast['energy_j']:.4g} J"
    return f"{found} ({forecast['policy']})"


def beside(foretold: Mapping[str, Any]) -> str:
    """What was expected of a run that is over."""
    low, high = show.seconds(foretold["low_s"]), show.seconds(foretold["high_s"])
    return f"expected {show.seconds(foretold['makespan_s'])}" + (f" ({low} to {high})" if low != high else "")


def bar(spans: Sequence[Sequence[Any]], slots: int, until_s: float) -> str:
    """Time from left to right: `#` half of the slots or more are busy, `+` some, `.` none."""
    if until_s <= 0:
        return "." * _WIDTH
    busy = [0.0] * _WIDTH
    step = until_s / _WIDTH
    for _, start, end in spans:
        for cell in range(min(_WIDTH - 1, int(start / step)), min(_WIDTH - 1, int(end / step)) + 1):
            busy[cell] += max(0.0, min(end, (cell + 1) * step) - max(start, cell * step))
    most = slots * step / 2 * (1 - 1e-6)  # what a cell holds is a sum of floats
    return "".join("#" if part >= most else "+" if part > 0 else "." for part in busy)


def _name(lane: Mapping[str, Any]) -> str:
    return f"{lane['worker']} {lane['device']}"
