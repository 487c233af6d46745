"""`predictor stats`: what is known of run times and links, and how far predictions have been from what came true."""

from __future__ import annotations

from typing import Any

import click

from ..client.client import AsyncClient
from . import show
from .option import output_option, server_option, use


@click.command()
@output_option("json")
@server_option
def stats(output: str, server: str | None) -> None:
    """Show what is known of each skill on each class of devices, and of each link, and how well it predicts.

    The error is the median (and the 90th percentile) of what predictions were off by; `within` says how many runs took
    no longer than the predicted 95th percentile. Both are of the last 200 that came true.
    """

    async def main(client: AsyncClient) -> Any:
        return await client.connection.call("predictor")

    answer = use(main, server)
    if output == "json":
        show.json_value(answer)
        return
    if not answer["skills"]:
        show.say("nothing has run yet that could be learned from")
        return
    show.table(
        (
            ("skill", lambda row: row["skill"]),
            ("on", lambda row: row["device_class"]),
            ("runs", lambda row: f"{row['runs']:,}"),
            ("expected", lambda row: show.span(row["run_s"])),
            ("10 to 95 %", lambda row: f"{show.span(row['low_s'])} to {show.span(row['p95_s'])}"),
            ("by", lambda row: row["form"]),
            *_ACCURACY,
        ),
        answer["skills"],
    )
    if answer["links"]:
        click.echo()
        show.table(
            (
                ("link to", lambda row: row["worker"]),
                ("transfers", lambda row: f"{row['transfers']:,}"),
                ("latency", lambda row: show.span(row["latency_s"])),
                ("throughput", lambda row: f"{show.size(round(row['bytes_s']))}/s"),
                *_ACCURACY,
            ),
            answer["links"],
        )
    if answer["tokens"]:
        click.echo()
        show.table(
            (
                ("asks a model", lambda row: row["skill"]),
                ("runs", lambda row: f"{row['runs']:,}"),
                ("tokens in", lambda row: f"{row['tokens_in']:,.0f}"),
                ("out", lambda row: f"{row['tokens_out']:,.0f}"),
                ("out, p90", lambda row: f"{row['tokens_out_p90']:,.0f}"),
            ),
            answer["tokens"],
        )
        click.echo()
        show.table(
            (
                ("model of", lambda row: row["worker"]),
                ("runs", lambda row: f"{row['runs']:,}"),
                ("first token after", lambda row: show.span(row["latency_s"])),
                ("reads", lambda row: "-" if row["reads_s"] is None else f"{row['reads_s']:,.0f} tokens/s"),
                ("writes", lambda row: f"{row['writes_s']:,.0f} tokens/s"),
            ),
            answer["models"],
        )


def accuracy_text(found: dict[str, Any]) -> str:
    """`off by 12% (nine of ten by less than 80%), 95% within p95, 200 judged`."""
    most, within = f"{found['error_p90']:.0%}", f"{found['covered']:.0%}"
    return f"off by {found['error']:.0%} (nine of ten by less than {most}), {within} within p95, {found['n']:,} judged"


_ACCURACY: tuple[show.Column, ...] = (
    ("off by", lambda row: f"{row['accuracy']['error']:.0%}" if row["accuracy"]["n"] else "-"),
    ("p90", lambda row: f"{row['accuracy']['error_p90']:.0%}" if row["accuracy"]["n"] else "-"),
    ("within", lambda row: f"{row['accuracy']['covered']:.0%}" if row["accuracy"]["n"] else "-"),
)
