"""Whether a schedule keeps the rules of its problem: looked at from outside, by nobody who makes schedules.

Seconds are compared to 1e-9 of the makespan. It must not know how a schedule was found.
"""

from __future__ import annotations

from itertools import pairwise

from orchestrator.placement.problem import Problem, Schedule, near


def faults(problem: Problem, schedule: Schedule) -> list[str]:
    """Every rule that is broken, in words; empty if it is sound."""
    slack = 1e-9 * max(1.0, schedule.makespan_s)
    latency, pace = problem.latency(), problem.pace()
    found: list[str] = []
    lanes: dict[tuple[int, int], list[tuple[float, float, int]]] = {}
    for task, site in enumerate(schedule.site):
        if task in problem.placed:
            continue
        start, finish = schedule.start_s[task], schedule.finish_s[task]
        if site < 0 or abs(start + problem.run(task, site) - finish) > slack:
            found.append(f"task {task} runs from {start} to {finish} on site {site}")
            continue
        early = max(problem.now_s, problem.release_s[task] if problem.release_s else 0.0)
        for parent, size in problem.parents[task]:
            early = max(early, _there(problem, schedule, parent, site, size, latency, pace))
        if start < early - slack:
            found.append(f"task {task} starts at {start}, before {early}")
        if finish > start:  # what takes no time takes no slot
            lanes.setdefault((site, schedule.slot[task]), []).append((start, finish, task))
    for (site, slot), spans in sorted(lanes.items()):
        where = problem.sites[site]
        spans.sort()
        if not 0 <= slot < where.slots or (where.free_s and spans[0][0] < where.free_s[slot] - slack):
            found.append(f"slot {slot} of site {site} isn't free for task {spans[0][2]}")
        found += [f"tasks {a[2]} and {b[2]} overlap on site {site}" for a, b in pairwise(spans) if b[0] < a[1] - slack]
    return found + _crowded(problem, schedule, slack)


def _there(
    problem: Problem,
    schedule: Schedule,
    parent: int,
    site: int,
    size: float,
    latency: list[list[float]],
    pace: list[list[float]],
) -> float:
    """When the parent's output is at the site, by the rules of the Problem."""
    sites, source, end = problem.sites, schedule.site[parent], schedule.finish_s[parent]
    if near(sites[source], sites[site]):
        return end
    if parent in problem.placed:
        sent = [at for (task, to), at in problem.sent.items() if task == parent and near(sites[to], sites[site])]
        if sent:
            return min(sent)
        end = max(end, problem.now_s)
    return end + latency[source][site] + size * pace[source][site]


def _crowded(problem: Problem, schedule: Schedule, slack: float) -> list[str]:
    """Sites whose memory is ever exceeded by what runs there at once."""
    changes: dict[int, list[tuple[float, float]]] = {}
    for task, site in enumerate(schedule.site):
        if problem.memory and site >= 0 and task not in problem.placed:
            begin, end = schedule.start_s[task] + slack, schedule.finish_s[task] - slack
            if begin < end:
                changes.setdefault(site, []).extend([(begin, problem.memory[task]), (end, -problem.memory[task])])
    found = []
    for site, steps in sorted(changes.items()):
        held = 0.0
        for at, change in sorted(steps):
            held += change
            if held > problem.sites[site].memory * (1 + 1e-9):
                found.append(f"site {site} holds {held} bytes at {at}")
                break
    return found
