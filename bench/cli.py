"""`asterism demo` and `asterism bench ...`: the tour, and the suites that measure.

Everything they start lives in folders of its own and is gone afterwards. It must not know what a suite measures.
"""

from __future__ import annotations

import sys

import anyio
import click
import msgspec


@click.command()
@click.option(
    "--crash", is_flag=True, help="Also kill the orchestrator in the middle; the run goes on from its journal."
)
@click.option("--keep", is_flag=True, help="Keep the folder with the journal, the report and the logs.")
def demo(crash: bool, keep: bool) -> None:
    """One request, three workers, one real failure; about five seconds.

    Two of the workers are simulated machines; all are processes here. Nothing outside a temporary folder is written.
    """
    from .demo import run_demo

    sys.exit(anyio.run(run_demo, crash, keep))


@click.group()
def bench() -> None:
    """Measure this installation on this machine."""


@bench.command()
@click.option("--quick", is_flag=True, help="Fewer repeats, under 50 seconds on two cores.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def overhead(quick: bool, output: str) -> None:
    """What the fabric itself costs: tasks a second, latency of a hop, memory. Real processes, journal on disk."""
    from .overhead import QUICK, Sizes, overhead
    from .report import document, table

    found = anyio.run(overhead, QUICK if quick else Sizes(), lambda text: click.echo(text, err=True))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(document(found)), indent=2))
    else:
        click.echo(table(found))


@bench.command()
@click.option("--quick", is_flag=True, help="Each fault once or twice, under 50 seconds on two cores.")
@click.option("--repeat", type=click.IntRange(1), default=None, metavar="N", help="Each fault so often, not 100 times.")
@click.option("--case", "cases", multiple=True, metavar="NAME", help="Only this one; may be given several times.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def faults(quick: bool, repeat: int | None, cases: tuple[str, ...], output: str) -> None:
    """Break real processes again and again: what was lost, what was done twice, how fast it was made good.

    Ends with exit code 1 if a result was lost or applied twice. A bound that was missed is marked, and no more: the
    machine may have been busy.
    """
    from .faults.answer import table
    from .faults.suite import faults

    found = anyio.run(faults, cases, repeat, quick, lambda text: click.echo(text, err=True))
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found.document()), indent=2))
    else:
        click.echo(table(found))
    sys.exit(0 if found.sound else 1)
