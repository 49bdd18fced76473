"""Commands that judge finished runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.catalog import DATA
from toolkit.cli_data import Achieved, Dataset, Root, Task
from toolkit.command import AsJson, PolicyPath, Starts, Workers, answer, episodes_shown
from toolkit.files import write_json, write_text
from toolkit.types import Json, ToolkitError

Runs = Annotated[list[Path], typer.Argument(help="Run folders.")]


def mount(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (advise, report, compare, stitch, sweep, ope):
        app.command()(command)


def advise(
    dataset: Dataset,
    root: Root = DATA,
    task: Task = None,
    online: Annotated[bool, typer.Option("--online", help="Add a stage that fine-tunes online, for iql.")] = False,
    trying: Annotated[
        str | None, typer.Option("--try", metavar="TIME", help="Run short pilots for so long (90s, 5m) and rank them.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the pipeline, .yaml, which is named after it.")] = None,
    achieved: Achieved = None,
    as_json: AsJson = False,
) -> None:
    """Recommend an algorithm and a pipeline to start from for a recording, with reasons."""

    def call() -> Json:
        from toolkit.pipeline.pilot import advise_on, parse_seconds
        from toolkit.tasks import load_card

        seconds = None if trying is None else parse_seconds(trying)
        card = None if task is None else load_card(task)
        if out is not None:  # before hours of pilots
            if out.suffix != ".yaml" or out.is_dir():
                raise ToolkitError(f"--out {out}: expected a file, .yaml")
            if out.exists():
                raise ToolkitError(f"--out {out}: is there already, and may have been edited; expected a new name")
            out.parent.mkdir(parents=True, exist_ok=True)
        called = re.sub(r"[^a-z0-9]+", "-", out.stem.lower()).strip("-") if out else ""
        result = advise_on(
            dataset, root, card, online, seconds, achieved, called or "advised",
            str(Path(task).resolve()) if task and Path(task).is_file() else task,
            lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
        if out is not None:
            write_text(out, result["pipeline"])
            result["out"] = str(out)
        return result

    def lines(result: Json) -> list[str]:
        from toolkit.advise import lines

        return lines(result)

    answer(call, as_json, lines)


def report(
    run: Annotated[Path, typer.Argument(help="Run folder, or a folder of runs.")], as_json: AsJson = False
) -> None:
    """Write the report page of a run anew, or an index of all runs below a folder."""

    def call() -> Json:
        from toolkit.report.index import report

        return report(run)

    answer(call, as_json, lambda result: [result["report"]])


def compare(
    runs: Runs,
    out: Annotated[Path | None, typer.Option(help="Page to write, .html; default: print only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put runs of one task side by side: scores, paired tests against the first, curves."""

    def call() -> Json:
        from toolkit.report.compare import compare_runs

        return compare_runs(runs, out)

    def lines(found: Json) -> list[str]:
        from toolkit.report.compare import table

        return table(found) + ([found["page"]] if "page" in found else [])

    answer(call, as_json, lines)


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


def _values(text: str) -> Any:
    return typer.Option(metavar="VALUE,VALUE,...", help=text)


def sweep(
    run: PolicyPath,
    mass: Annotated[str | None, _values("Factors on all masses, such as 0.5,1,2.")] = None,
    friction: Annotated[str | None, _values("Factors on friction.")] = None,
    damping: Annotated[str | None, _values("Factors on the damping of joints.")] = None,
    gain: Annotated[str | None, _values("Factors on the gain of actuators.")] = None,
    noise: Annotated[str | None, _values("Standard deviations of noise on each number of the observation.")] = None,
    delay: Annotated[str | None, _values("Steps by which actions come late.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each seed in each cell of the grid.")] = 50,
    starts: Starts = None,
    workers: Workers = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for sweep.json and the heat map, sweep.html; default: print only.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a trained policy under other physics, along one of these or in a grid of two; others stay as trained."""
    given = {"mass": mass, "friction": friction, "damping": damping, "gain": gain, "noise": noise, "delay": delay}

    def call() -> Json:
        factors = {name: _numbers(name, text) for name, text in given.items() if text is not None}
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)

        from toolkit.report.heat import sweep_page
        from toolkit.sweep import sweep_run

        with episodes_shown("sweep") as show:
            result = sweep_run(run, factors, episodes, starts, workers, show)
        if out is not None:
            write_json(out / "sweep.json", result)
            write_text(out / "sweep.html", sweep_page(result))
        return result

    def lines(result: Json) -> list[str]:
        from toolkit.sweep import table

        return table(result)

    answer(call, as_json, lines)


def ope(
    runs: Runs,
    data: Annotated[str | None, typer.Option(help="Minari data set to judge by; default: each run's own.")] = None,
    updates: Annotated[int, typer.Option(min=1, help="Updates of the fitted Q of each policy.")] = 3_000,
    gamma: Annotated[
        float | None, typer.Option(min=0.0, max=0.9999, help="Discount; default: the largest of the stages.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank the policies of runs by recorded data alone (fitted Q evaluation), beside what the simulator paid."""

    def call() -> Json:
        from toolkit.pipeline.ope import rank_runs

        with episodes_shown("ope", "updates") as show:
            return rank_runs(runs, data, updates, gamma, show)

    def lines(result: Json) -> list[str]:
        from toolkit.pipeline.ope import table

        return table(result)

    answer(call, as_json, lines)


def _numbers(name: str, text: str) -> list[float]:
    """Different numbers, separated by commas."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or len(set(values)) < len(values):
        raise ToolkitError(f"--{name} {text}: expected different numbers with commas between them, such as 0.5,1,2")
    return values
