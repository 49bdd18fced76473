"""The command line: parse, call, print.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 bad input, 130 and
143 interrupted. Imports of the parts that take seconds to load stand inside the commands.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from toolkit import __version__, cli_data, cli_measure
from toolkit.catalog import DATA
from toolkit.command import AsJson, PolicyPath, Starts, View, Workers, answer, episodes_shown
from toolkit.types import Json

app = typer.Typer(
    name="toolkit",
    help="From scripted demonstrations to a fine-tuned, evaluated robot policy, in one YAML file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cli_data.app, name="data")

cli_measure.mount(app)


@app.command()
def pipeline(
    file: Annotated[str, typer.Argument(help="Pipeline: a name from `toolkit list pipelines`, or a path.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder, gone on with if it exists; default: runs/NAME-N.")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME.NAME=VALUE",
            help="Change a value, as in pretrain.config.lr=1e-3; may be repeated.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the plan, write nothing.")] = False,
    start_from: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Run this stage again, and those that follow from it.")
    ] = None,
    progress: Annotated[View, typer.Option(help="auto: a live view on a terminal, else plain lines.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Run a pipeline, or go on where it stopped."""

    def call() -> Json:
        from toolkit.pipeline.load import load_spec

        load_spec(file, override or ())  # refuses a mistake before the runner has loaded torch

        from toolkit.pipeline.runner import run_pipeline

        return run_pipeline(
            file, out=out, overrides=override or (), start_from=start_from, progress=progress, dry_run=dry_run
        )

    answer(call, as_json, lambda summary: summary.get("lines", []))


@app.command()
def collect(
    recipe: Annotated[str, typer.Argument(help="Recipe: a name from `toolkit list datasets`, or a path.")],
    task: Annotated[str | None, typer.Option(help="Task card; default: the recipe's.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of Minari datasets to write into.")] = DATA,
    episodes: Annotated[int | None, typer.Option(min=1, help="Episodes; default: the recipe's number.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything drawn.")] = 0,
    workers: Workers = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a dataset of the same name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Record scripted demonstrations as a Minari dataset."""

    def call() -> Json:
        from toolkit.controllers import load_recipe

        chosen = load_recipe(recipe)
        if episodes is not None:
            chosen = chosen.model_copy(update={"episodes": episodes})

        from toolkit.collect import collect
        from toolkit.data.minari import read_metadata
        from toolkit.processes import cores
        from toolkit.tasks import load_card

        card = load_card(task or chosen.task)
        with episodes_shown("collect") as show:
            dataset = collect(chosen, card, out, seed, workers or cores(), show, replace)
        kept = read_metadata(dataset)["total_episodes"]
        return {"dataset": str(dataset), "recipe": chosen.name, "task": card.name, "episodes": kept}

    answer(call, as_json, lambda result: [result["dataset"]])


@app.command()
def evaluate(
    run: PolicyPath,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each seed.")] = 100,
    starts: Starts = None,
    until_ci: Annotated[
        float | None,
        typer.Option(
            "--until-ci",
            min=0.001,
            max=0.5,
            help="Stop early, once the 95 % interval of success is within plus or minus this.",
        ),
    ] = None,
    workers: Workers = None,
    every: Annotated[
        bool, typer.Option("--all", help="All checkpoints that a stage keeps, two at most, in the order of training.")
    ] = False,
    video: Annotated[
        Path | None, typer.Option(help="Film of each seed's best, median and worst episode, .mp4 or .gif.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for evaluation.json, with --all a page too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a trained policy: success, return, steps, routes."""

    def call() -> Json:
        from toolkit.assess import evaluate_all, evaluate_run
        from toolkit.types import ToolkitError

        if every and video is not None:
            raise ToolkitError("--video films one policy; expected it without --all, for a run or one of its stages")
        with episodes_shown("evaluate") as show:
            if every:
                found = evaluate_all(run, episodes, starts, workers, out, show, until_ci)
                if out is not None:
                    from toolkit.report.evaluation import write_curve

                    found["page"] = str(write_curve(found, out))
                return found
            return evaluate_run(run, episodes, starts, workers, out, video, show, until_ci)

    def lines(summary: Json) -> list[str]:
        from toolkit.assess import curve, table

        return curve(summary) if every else table(summary)

    answer(call, as_json, lines)


@app.command()
def export(
    run: PolicyPath,
    to: Annotated[Literal["torchscript", "onnx", "safetensors", "sb3"], typer.Option(help="Format to write.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write into; default: export/FORMAT in RUN.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which of the run's seeds: 0 is the first in its list.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a policy for other programs, checked against the original, with a model card beside it."""

    def call() -> Json:
        from toolkit.export import export_run

        return export_run(run, to, out, seed)

    def lines(found: Json) -> Iterator[str]:
        yield found["file"]
        yield found["card"]
        acts = f"acts as the policy of seed {found['seed']} on {found['observations']:,} observations"
        yield f"{acts}; largest difference {found['largest_difference']:.1e}"

    answer(call, as_json, lines)


@app.command(name="list")
def list_(
    kind: Annotated[
        Literal["envs", "datasets", "pipelines", "agents"] | None, typer.Argument(help="One kind only.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show tasks, recipes, pipelines and algorithms."""

    def call() -> Json:
        from toolkit import catalog

        found: Json = {}
        for name in catalog.KINDS:
            if kind in (None, name):
                rows = catalog.entries(name)
                found[name] = [{"name": row.name, "path": str(row.path), "summary": row.summary} for row in rows]
        if kind in (None, "agents"):
            from toolkit.agents import AGENTS

            found["agents"] = [{"name": name, **agent.about()} for name, agent in AGENTS.items()]
        return found

    def lines(found: Json) -> Iterator[str]:
        width = max((len(row["name"]) for rows in found.values() for row in rows), default=0)
        for name, rows in found.items():
            yield f"{name}:"
            yield from (f"  {row['name']:{width}}  {_uses(row)}{row['summary']}" for row in rows)

    answer(call, as_json, lines)


@app.command()
def settings(
    kind: Annotated[
        str, typer.Argument(help="An agent, a stage's kind (such as online), or pipeline, task or recipe.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show what can be set: names as --set takes them, defaults, meanings."""

    def call() -> Json:
        from toolkit.pipeline.settings import settings

        return {"kind": kind, "settings": [setting._asdict() for setting in settings(kind)]}

    def lines(found: Json) -> Iterator[str]:
        from toolkit.pipeline.settings import Setting, lines

        yield from lines([Setting(**setting) for setting in found["settings"]])

    answer(call, as_json, lines)


def _uses(row: Json) -> str:
    """Of an algorithm: where it learns, and on what tasks."""
    words = [word for word in ("offline", "online", "goals") if row.get(word)]
    words += ["discrete" if row["continuous"] else "discrete only"] if row.get("discrete") else []
    return f"[{', '.join(words)}] " if words else ""


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"toolkit {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the console script."""
    listen()
    atexit.register(gc.freeze)  # else the interpreter spends seconds tidying away what the compiler left
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a letter is no reason to fail
    app()


def listen() -> None:
    """From now on SIGTERM ends the process as Ctrl-C does, and neither of them is lost."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.unraisablehook = _unraisable


def _terminated(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one does not wait
    raise SystemExit(143)


def _unraisable(ignored: Any) -> None:
    """A signal that arrives in a callback of a weak reference comes again: Python ignores what is raised there."""
    if not isinstance(ignored.exc_value, KeyboardInterrupt | SystemExit):
        sys.__unraisablehook__(ignored)
        return
    number = signal.SIGINT if isinstance(ignored.exc_value, KeyboardInterrupt) else signal.SIGTERM
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)
    threading.Timer(0.01, os.kill, (os.getpid(), number)).start()
