"""Spawn and join: a skill that splits its work into children of its own, as deep as the data goes.

python examples/tree.py 1 2 3 4 5 6 7 8
"""

import sys
from typing import TypedDict

from asterism import Graph, SkillContext, run, skill


class Total(TypedDict):
    total: float
    parts: int


@skill(name="tree.total", effect="pure", timeout="1m", spawns=True)
def total(ctx: SkillContext, numbers: list[float]) -> Total:
    """Adds numbers up; a long list is cut in two, and each half is a task of its own, on any worker."""
    if len(numbers) <= 2:
        return Total(total=sum(numbers), parts=1)
    middle = len(numbers) // 2
    halves = [ctx.spawn(total, numbers=numbers[:middle]), ctx.spawn(total, numbers=numbers[middle:])]
    left, right = ctx.join(*halves)  # the slot is given to others meanwhile
    return Total(total=left["total"] + right["total"], parts=left["parts"] + right["parts"])


def graph(numbers: list[float]) -> Graph:
    g = Graph(inputs={"numbers": numbers})
    g.output("sum", g.add(total, id="sum", numbers=g.input("numbers")))
    return g


if __name__ == "__main__":
    found = run(graph([float(text) for text in sys.argv[1:]] or [1.0, 2.0, 3.0]))
    print(found["sum"])
