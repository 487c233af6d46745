"""Problems of placement as hypothesis draws them: few tasks, unlike sites, links, memory, perhaps a past."""

from __future__ import annotations

from hypothesis import strategies as st

from orchestrator.placement.problem import INF, Placed, Problem, Site

FEW = st.integers(0, 5).map(float)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Some tasks, some sites, and perhaps a past."""
    size = draw(st.integers(1, 12))
    kinds = draw(st.integers(1, 3))
    sites = []
    for n in range(draw(st.integers(1, 4))):
        slots = draw(st.integers(1, 3))
        free = draw(st.one_of(st.just(()), st.tuples(*[FEW] * slots)))
        bandwidth, latency = draw(st.sampled_from([1.0, 10.0, INF])), draw(FEW)
        worker, memory = draw(st.integers(-1, 2)), draw(st.sampled_from([2.0, 5.0, INF]))
        kind = draw(st.integers(0, kinds - 1))
        sites.append(Site(f"s{n}", kind, worker, slots=slots, bandwidth=bandwidth, latency_s=latency,
                          memory=memory, free_s=free))  # fmt: skip
    run = st.one_of(FEW, st.floats(0.1, 9.0), st.just(INF))
    run_s = [[draw(run) for _ in range(kinds)] for _ in range(size)]
    parents: list[list[tuple[int, float]]] = [[] for _ in range(size)]
    children: list[list[tuple[int, float]]] = [[] for _ in range(size)]
    index = draw(st.permutations(range(size)))
    for at in range(1, size):
        for above in sorted(draw(st.sets(st.integers(0, at - 1), max_size=3))):
            child, parent, data = index[at], index[above], draw(FEW)
            parents[child].append((parent, data))
            children[parent].append((child, data))
    past = draw(st.integers(0, size // 2))
    placed = {task: Placed(draw(st.integers(0, len(sites) - 1)), draw(FEW)) for task in index[:past]}
    sent = {(task, draw(st.integers(0, len(sites) - 1))): placed[task].finish_s + draw(FEW) for task in placed}
    return Problem(
        sites=tuple(sites),
        run_s=run_s,
        parents=parents,
        children=children,
        memory=draw(st.one_of(st.just([]), st.lists(FEW, min_size=size, max_size=size))),
        release_s=draw(st.one_of(st.just([]), st.lists(FEW, min_size=size, max_size=size))),
        placed=placed,
        sent=sent,
        now_s=draw(FEW),
    )
