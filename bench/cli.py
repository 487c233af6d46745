"""`asterism demo` and `asterism bench ...`: the tour, and the suites that measure.

Everything they start lives in folders of its own and is gone afterwards. It must not know what a suite measures.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio
import click
import msgspec

if TYPE_CHECKING:
    from .sweep import Sweep


@click.command()
@click.option(
    "--crash", is_flag=True, help="Also kill the orchestrator in the middle; the run goes on from its journal."
)
@click.option("--keep", is_flag=True, help="Keep the folder with the journal, the report and the logs.")
@click.option("--live", is_flag=True, help="Let your own model write the plan: OPENAI_BASE_URL, OPENAI_API_KEY.")
def demo(crash: bool, keep: bool, live: bool) -> None:
    """One request, a plan that is streamed, three workers, one real failure; under ten seconds.

    A scripted model plays a recorded plan, tasks run while it is being written. Two of the workers are simulated
    machines; all are processes here. Nothing outside a temporary folder is written.
    """
    from .demo import run_demo

    sys.exit(anyio.run(run_demo, crash, keep, live))


@click.group()
def bench() -> None:
    """Measure this installation on this machine."""


@bench.command()
@click.option("--quick", is_flag=True, help="Fewer repeats, under 50 seconds on two cores.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="Beside other runtimes, where installed.")
@click.option("--out", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Also a page of charts.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def overhead(quick: bool, peers: bool, out: Path | None, output: str) -> None:
    """What the fabric itself costs: tasks a second, latency of a hop, memory. Real processes, journal on disk.

    Other runtimes do the same work in the same call where `make peers` has installed them; --quick leaves those out
    for which it has no time.
    """
    from .overhead import QUICK, Sizes, overhead
    from .report import document, table

    found = anyio.run(overhead, QUICK if quick else Sizes(), lambda text: click.echo(text, err=True), peers)
    if out is not None:
        from .overhead_page import write_overhead

        write_overhead(found, out)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(document(found)), indent=2))
    else:
        click.echo(table(found))


@bench.command()
@click.option("--quick", is_flag=True, help="Fewer sizes, each once, under 50 seconds on two cores.")
@click.option("--core", is_flag=True, help="Only the orchestrator's own parts: no streams, no journal, no watcher.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also a page of charts, in HTML.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def scale(quick: bool, core: bool, out: Path | None, output: str) -> None:
    """What a task costs among up to 100,000, and on up to 1,000 simulated workers, and the fit.

    A whole server with its journal on the disk and all its workers in one process, over loopback instead of sockets.
    """
    from .scale import scale as measure
    from .scale import table, write_scale

    found = measure(quick, lambda text: click.echo(text, err=True), core=core)
    if out is not None:
        write_scale(found, out)
    if output == "json":
        body = {"schema": "asterism/v1", "bench": "scale", **msgspec.to_builtins(found)}
        click.echo(msgspec.json.format(msgspec.json.encode(body), indent=2))
    else:
        click.echo(table(found))


@bench.command()
@click.option("--quick", is_flag=True, help="Fewer repeats, under 50 seconds on two cores.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def tls(quick: bool, output: str) -> None:
    """What mutual TLS costs: a handshake, a hop, throughput, with and without it on loopback."""
    from .tls import QUICK, Sizes, tls_cost

    found = anyio.run(tls_cost, QUICK if quick else Sizes(), lambda text: click.echo(text, err=True))
    if output == "json":
        body = {"schema": "asterism/v1", **msgspec.to_builtins(found)}
        click.echo(msgspec.json.format(msgspec.json.encode(body), indent=2))
    else:
        for what, plain, secure in (("", "plain", "TLS"), *found.rows()):
            click.echo(f"{what:<32} {plain:>10} {secure:>10}")


@bench.command()
@click.option("--quick", is_flag=True, help="Each fault once, under 50 seconds on two cores.")
@click.option("--repeat", type=click.IntRange(1), default=None, metavar="N", help="Each fault so often, not 100 times.")
@click.option("--case", "cases", multiple=True, metavar="NAME", help="Only this one; may be given several times.")
@click.option("--soak", type=click.FloatRange(1), metavar="SECONDS", help="How long the soak takes, not 300 seconds.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def faults(quick: bool, repeat: int | None, cases: tuple[str, ...], soak: float | None, output: str) -> None:
    """Break real processes again and again: what was lost, what was done twice, how fast it was made good.

    Ends with exit code 1 if a result was lost or applied twice. A bound that was missed is marked, and no more: the
    machine may have been busy.
    """
    from .faults.answer import table
    from .faults.suite import faults

    found = anyio.run(faults, cases, repeat, quick, lambda text: click.echo(text, err=True), soak)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found.document()), indent=2))
    else:
        click.echo(table(found))
    sys.exit(0 if found.sound else 1)


@bench.command()
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--profile", default="openai", show_default=True, help="In whose manner: openai, vllm, llama.cpp, ...")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="On this port of loopback, not on a free one.")
@click.option("--key", default="", help="What a client has to show; any will do if left out.")
def model(script: Path, profile: str, port: int, key: str) -> None:
    """Play SCRIPT as an OpenAI-compatible model server on loopback, until it is interrupted.

    No model is behind it. The first line tells the variables by which a program finds it.
    """
    from .model import serve

    anyio.run(serve, script, profile, port, key)


@bench.command()
@click.option("--quick", is_flag=True, help="Fewer repeats, under 50 seconds on two cores.")
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Where AsyncHow's plans are."
)
@click.option("--live", is_flag=True, help="Ask the model that the environment names instead of a scripted one.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def planner(quick: bool, data: Path | None, live: bool, output: str) -> None:
    """How fast a plan becomes work, what harmed plans and broken servers come to, and what the catalog leaves alone.

    A scripted server plays the model over real HTTP; orchestrator and worker are real processes. Ends with exit code 1
    if something wrong was accepted, something good lost, or a call did not end as it may.
    """
    from .planner import answer, suite
    from .planner import live as real

    if live:
        rows = anyio.run(real.live, os.environ)
        body, text, sound = answer.live_document(rows), answer.live_table(rows), True
    else:
        sizes = suite.QUICK if quick else suite.Sizes()
        found = anyio.run(suite.planner, sizes, data, lambda text: click.echo(text, err=True))
        body, text, sound = found.document(), answer.table(found), found.sound
    click.echo(msgspec.json.format(msgspec.json.encode(body), indent=2) if output == "json" else text)
    sys.exit(0 if sound else 1)


@bench.command("cross-device")
@click.option(
    "--mode", type=click.Choice(["gold", "catalog", "llm"]), default="gold", show_default=True, help="Who plans."
)
@click.option("--quick", is_flag=True, help="A few cases of each category, under 50 seconds on two cores.")
@click.option("--select", multiple=True, metavar="KIND:WORD", help="Only category:, tag: or machine: (repeatable).")
@click.option("--task", "names", multiple=True, metavar="NAME", help="Only this one (repeatable).")
@click.option("--repeat", type=click.IntRange(1), default=1, show_default=True, help="Each so often; medians are told.")
@click.option("--faults", metavar="NAME,...", default="", help="Also under these faults; all is every one.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of all data and all blows.")
@click.option("--tasks", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Cases of your own.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Keep plays and report there, and go on there."
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def cross_device(
    mode: Literal["gold", "catalog", "llm"],
    quick: bool,
    select: tuple[str, ...],
    names: tuple[str, ...],
    repeat: int,
    faults: str,
    seed: int,
    tasks: Path | None,
    out: Path | None,
    output: str,
) -> None:
    """Tasks across five unlike machines: what is reached, and how much sooner than one after the other.

    gold: a scripted model says each task's own plan; catalog: no model at all; llm: the model that the environment
    names. Checks look at the real outcome. Ends with exit code 1 if something was not reached, 3 if something could
    not be played.
    """
    from .cross_device.answer import answer, document
    from .cross_device.case import FOLDER, load_cases
    from .cross_device.fault import faults_named
    from .cross_device.page import keep
    from .cross_device.progress import Progress
    from .cross_device.store import Store
    from .cross_device.suite import Order, suite
    from .cross_device.table import table

    order = Order(mode, seed, repeat, faults_named(faults), quick)
    loaded = load_cases(tasks or FOLDER, select, names)
    store = Store(out, order.settings())
    try:
        with Progress() as watch:
            found = answer(anyio.run(suite, order, loaded, store, watch))
    except (KeyboardInterrupt, BaseExceptionGroup):
        if out is not None:
            click.echo(f"{len(store.plays)} plays are kept in {out}: the same command goes on there", err=True)
        raise
    if out is not None:
        keep(found, out)
    click.echo(
        msgspec.json.format(msgspec.json.encode(document(found)), indent=2) if output == "json" else table(found)
    )
    sys.exit(3 if not found.suite.whole else 0 if found.suite.succeeded and not found.wrong else 1)


@bench.command()
@click.option("--quick", is_flag=True, help="A shorter search and fewer futures, under 50 seconds on two cores.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="A folder with workflows (taskdag/1 or WfFormat 1.5), fleets.json and perhaps reference.json.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the answer as a page, in HTML."
)
def schedule(quick: bool, data: Path, output: str, out: Path | None) -> None:
    """How good placement is on recorded workflows: makespans against bounds, wrong predictions, bytes moved.

    The placement's own code plays each workflow on a virtual clock; only what hedging wins is measured with real
    processes, too, and that without --quick.
    """
    from .placement import answer, page, suite

    sizes = suite.QUICK if quick else suite.Sizes()
    found = suite.schedule(data, sizes, lambda text: click.echo(text, err=True))
    if out is not None:
        page.write_schedule(found, out)
    body = found.document()
    click.echo(msgspec.json.format(msgspec.json.encode(body), indent=2) if output == "json" else answer.table(found))


@bench.command()
@click.option("--suite", required=True, metavar="NAME", help="overhead, schedule, scale or cross-device.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE,...", help="Values of one param; for several.")
@click.option("--task", "names", multiple=True, metavar="NAME", help="cross-device: only this task (repeatable).")
@click.option("--select", multiple=True, metavar="KIND:WORD", help="cross-device: only category:, tag: or machine:.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option("--repeat", type=click.IntRange(1), default=1, show_default=True, help="So many seeds at each point.")
@click.option("--quick", is_flag=True, help="Smaller runs, and none that would begin after 40 seconds.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also a page of charts, in HTML.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def sweep(
    suite: str,
    params: tuple[str, ...],
    names: tuple[str, ...],
    select: tuple[str, ...],
    seed: int,
    repeat: int,
    quick: bool,
    out: Path | None,
    output: str,
) -> None:
    """Run a suite at every point of a grid of settings, with the same seeds at each, and fit what it levels off at.

    A param that the suite doesn't know is refused with those it knows. Ends with exit code 1 if some point failed or
    was left out.
    """
    from .sweep import QUICK_S, read_grid
    from .sweep import sweep as play
    from .sweep_page import table, write_sweep
    from .sweep_suite import suite_named

    one = suite_named(suite, quick, select, names)
    grid = read_grid(one, params)

    async def played() -> Sweep:
        return await play(
            one,
            grid,
            seed=seed,
            repeat=repeat,
            say=lambda text: click.echo(text, err=True),
            until_s=QUICK_S if quick else 0.0,
        )

    found = anyio.run(played)
    if out is not None:
        write_sweep(found, out)
    body = found.document()
    click.echo(msgspec.json.format(msgspec.json.encode(body), indent=2) if output == "json" else table(found))
    sys.exit(0 if found.whole else 1)


@bench.command()
@click.argument("count", type=click.IntRange(1), default=1000)
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@click.option("--processes", type=click.IntRange(0), default=0, help="How many; 0 is one a core.")
@click.option("--seed", type=click.IntRange(0), default=None, help="Only this schedule, with its story if it fails.")
@click.option("--steps", type=click.IntRange(1), default=None, help="With --seed: heal after so many decisions.")
@click.option("--without", default="", metavar="PARTS", help="With --seed: leave these parts of the schedule out.")
def simulate(count: int, first: int, processes: int, seed: int | None, steps: int | None, without: str) -> None:
    """Play COUNT drawn schedules of faults against the real core, worker and link on a virtual clock.

    Ends with exit code 1 and the story of the smallest failure, made smaller, if anything was lost, done twice or
    stuck. Nothing outside this process is touched.
    """
    from .farm import reap
    from .schedule import draw
    from .shrink import narrow, shrink
    from .simulation import simulate

    if seed is not None:
        outcome = simulate(narrow(draw(seed), frozenset(filter(None, without.split(","))), steps))
        click.echo(
            f"{outcome.error}\n\n{outcome.story}" if outcome.error else f"sound; its history is {outcome.digest}"
        )
        sys.exit(bool(outcome.error))
    found = reap(range(first, first + count), processes, lambda text: click.echo(text, err=True))
    click.echo(found.table())
    if found.failures:
        click.echo(f"\nfailed: {', '.join(str(one.seed) for one in found.failures)}; the smallest, made smaller:\n")
        shrunk = shrink(draw(found.failures[0].seed), found.failures[0])
        click.echo(f"{shrunk.outcome.error}\n\n{shrunk.outcome.story}\nsee it again: {shrunk.command}")
    sys.exit(bool(found.failures))


@bench.command()
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True, help="Each must fall within so many.")
def mutants(seeds: int) -> None:
    """Take one rule at a time out of the real code and see that the simulation notices.

    Ends with exit code 1 if one survives.
    """
    from .mutant import MUTANTS, killed

    survived = 0
    for mutant in MUTANTS:
        outcome = killed(mutant, range(seeds))
        survived += outcome is None
        seed = "-" if outcome is None else str(outcome.seed)
        click.echo(f"{mutant.title:40} {seed:>5}  {'SURVIVES' if outcome is None else outcome.error[:110]}")
    sys.exit(bool(survived))
