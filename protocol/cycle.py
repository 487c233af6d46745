"""A cycle among edges, found without recursion: 10,000 in a row must not end a program.

It must not know what the nodes are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def find_cycle(upstream: Mapping[str, Iterable[str]]) -> list[str]:
    """One cycle in the order of its edges, from its first key on, or [] when there is none.

    Linear; sources that are no key are ignored.
    """
    waits: dict[str, int] = {}
    below: dict[str, list[str]] = {}
    for name, sources in upstream.items():
        count = 0
        for source in sources:
            if source in upstream:
                below.setdefault(source, []).append(name)
                count += 1
        waits[name] = count
    ready = [name for name, count in waits.items() if not count]
    while ready:
        for name in below.get(ready.pop(), ()):
            waits[name] -= 1
            if not waits[name]:
                ready.append(name)
    stuck = [name for name, count in waits.items() if count]
    if not stuck:
        return []
    name, trail = stuck[0], dict[str, None]()
    while name not in trail:
        trail[name] = None
        name = next(source for source in sorted(upstream[name]) if waits.get(source))  # the same one for the same patch
    steps = list(trail)
    loop = set(steps[steps.index(name) :])
    first = next(node for node in stuck if node in loop)
    ring = steps[steps.index(name) :][::-1]
    return ring[ring.index(first) :] + ring[: ring.index(first)]
