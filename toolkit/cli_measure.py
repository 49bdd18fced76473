"""Commands that judge finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.command import AsJson, Workers, answer, episodes_shown
from toolkit.types import Json

Runs = Annotated[list[Path], typer.Argument(help="Run folders.")]


def mount(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (stitch,):
        app.command()(command)


def stitch(
    runs: Runs,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each seed for each number of stitches.")] = 50,
    workers: Workers = None,
    out: Annotated[Path | None, typer.Option(help="Folder for stitch.json; default: each run's own.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure success against the trajectories that had to be joined, beside a tabular oracle."""

    def call() -> Json:
        from toolkit.pipeline.stitch import stitch_runs

        with episodes_shown("stitch") as show:
            return stitch_runs(runs, episodes, workers, out, show)

    def lines(result: Json) -> list[str]:
        from toolkit.stitch_score import table

        return [line for entry in result["runs"] for line in [entry["run"], *table(entry)]]

    answer(call, as_json, lines)
