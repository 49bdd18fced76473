"""`toolkit data`: commands for recorded data of any format. Mounted by `cli`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from toolkit.catalog import DATA
from toolkit.command import AsJson, answer
from toolkit.types import Json, ToolkitError

if TYPE_CHECKING:
    from toolkit.data.imported import Imported
    from toolkit.tasks import TaskCard

app = typer.Typer(help="Look at, check and convert recorded data.", no_args_is_help=True, rich_markup_mode=None)

Dataset = Annotated[str, typer.Argument(help="A file or folder in any known format, or a Minari id below --root.")]
Root = Annotated[Path, typer.Option(help="Folder of Minari datasets.")]
Format = Annotated[str | None, typer.Option("--format", help="Such as d4rl or npz, where its content does not tell.")]
Trust = Annotated[bool, typer.Option("--trust-pickle", help="Open a replay buffer: runs the code inside it.")]
Bounds = Annotated[
    str | None, typer.Option("--action-bounds", metavar="LOW,HIGH", help="Of actions, if not the file's or --task's.")
]
Achieved = Annotated[
    str | None, typer.Option(metavar="FIRST:END", help="Numbers of an observation that are the achieved goal: 0:2.")
]
Part = Annotated[str | None, typer.Option("--filter", help="robomimic: only the demonstrations of this mask.")]
Task = Annotated[str | None, typer.Option(help="Task card, which says what success is and what is paid.")]
For = Annotated[str | None, typer.Option("--task", help="Task card whose environment the dataset is for.")]
Replace = Annotated[bool, typer.Option("--replace", help="Write over what has the same name.")]
Out = Annotated[str, typer.Argument(help="Minari id below --root, such as mine/walk-v0; a file for other formats.")]

_SHOWN = 5  # cases of one rule


@app.command(name="list")
def list_(
    root: Annotated[Path, typer.Argument(help="Folder of Minari datasets.")] = DATA, as_json: AsJson = False
) -> None:
    """Show the Minari datasets below a folder."""

    def call() -> Json:
        from toolkit.recordings import listed

        return {"root": str(root), "datasets": listed(root)}

    def lines(found: Json) -> Iterator[str]:
        if not found["datasets"]:
            yield f"no data sets below {found['root']}"
        width = max((len(entry["id"]) for entry in found["datasets"]), default=0)
        for entry in found["datasets"]:
            if "error" in entry:
                yield f"{entry['id']:{width}}  (not readable: {entry['error']})"
            else:
                counts = (entry[key] or "?" for key in ("total_episodes", "total_steps"))
                yield "{:{width}}  {} episodes, {} transitions".format(entry["id"], *counts, width=width)

    answer(call, as_json, lines)


@app.command()
def show(
    dataset: Dataset,
    root: Root = DATA,
    task: Task = None,
    out: Annotated[Path | None, typer.Option(help="Folder for a picture of a maze's coverage; needs --task.")] = None,
    format: Format = None,
    trust_pickle: Trust = False,
    action_bounds: Bounds = None,
    achieved: Achieved = None,
    part: Part = None,
    as_json: AsJson = False,
) -> None:
    """Show what a dataset holds: shape, lengths, returns, ends, and success where a task says what it is."""

    def call() -> Json:
        from toolkit.data.imported import checked
        from toolkit.recordings import describe, open_data, reading, relabelled

        card = _card(task)
        imported = open_data(dataset, root, format, reading(card, achieved, action_bounds, part, trust_pickle))
        episodes = checked(imported) if card is None else relabelled(checked(imported), card)
        result = describe(imported, episodes, card)
        if out is not None:
            if card is None:
                raise ToolkitError("--out: expected --task too, which says where the walls are")
            from toolkit.report.maze_picture import write_coverage

            result["picture"] = str(write_coverage(out / "coverage.svg", card.maze, card.goal_xy, episodes))
        return result

    def lines(found: Json) -> Iterator[str]:
        yield f"{found['path']}: {found['format']}, {found['episodes']} episodes, {found['transitions']} transitions"
        yield f"observation {found['observation']}, goal {found['goal']}, action {found['action']} numbers"
        for name in ("length", "return"):
            yield f"{name:7} " + ", ".join(f"{key} {value:.6g}" for key, value in found[name].items())
        yield "ends    " + ", ".join(f"{key} {count}" for key, count in found["ends"].items() if count)
        if found["success_share"] is not None:
            yield f"success {found['success_share']:.3f} of the episodes"
        yield from (f"dropped {entry['number']} {entry['what']}: {entry['why']}" for entry in found["dropped"])
        yield from (f"note    {note}" for note in found["notes"])
        if "picture" in found:
            yield found["picture"]

    answer(call, as_json, lines)


@app.command()
def validate(
    dataset: Dataset,
    root: Root = DATA,
    task: Task = None,
    waive: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Leave a rule out; may be repeated.")] = None,
    format: Format = None,
    trust_pickle: Trust = False,
    action_bounds: Bounds = None,
    achieved: Achieved = None,
    part: Part = None,
    as_json: AsJson = False,
) -> None:
    """Look for faults; exit code 2 where there are errors."""

    def call() -> Json:
        from toolkit.data.finding import Finding, errors, without

        without([], waive or [])  # a wrong name is refused before anything is read
        from toolkit.recordings import check, open_data, reading

        card, about = _card(task), {"path": dataset}
        options = reading(card, achieved, action_bounds, part, trust_pickle)
        try:
            imported = open_data(dataset, root, format, options)
            found, about = check(imported, card), imported.source.summary()
        except ToolkitError as error:
            found = [Finding("unreadable", str(error))]
        found = sorted(without(found, waive or []), key=lambda finding: (finding.severity, finding.rule))
        return {
            **about,
            "errors": sum(finding.cases for finding in errors(found)),
            "warnings": sum(finding.cases for finding in found if finding.severity == "warning"),
            "findings": [finding.json() | {"text": str(finding)} for finding in found],
        }

    def lines(found: Json) -> Iterator[str]:
        for rule, group in itertools.groupby(found["findings"], key=lambda finding: finding["rule"]):
            cases = list(group)
            for finding in cases[:_SHOWN]:
                yield f"{finding['severity']:7}  {rule:16}  {finding['text']}"
            if more := sum(finding["cases"] for finding in cases[_SHOWN:]):
                yield f"{cases[0]['severity']:7}  {rule:16}  and {more:,} more; --json has more"
        counts = [f"{found[kind]} {kind[:-1] if found[kind] == 1 else kind}" for kind in ("errors", "warnings")]
        yield f"{found['path']}: {', '.join(counts)}"

    if answer(call, as_json, lines)["errors"]:
        raise typer.Exit(2)


@app.command()
def convert(
    dataset: Dataset,
    out: Out,
    to: Annotated[Literal["minari", "ogbench", "d4rl"], typer.Option(help="Format to write.")] = "minari",
    root: Root = DATA,
    task: For = None,
    replace: Replace = False,
    format: Format = None,
    trust_pickle: Trust = False,
    action_bounds: Bounds = None,
    achieved: Achieved = None,
    part: Part = None,
    as_json: AsJson = False,
) -> None:
    """Write a dataset of any known format as Minari, OGBench .npz or D4RL HDF5."""

    def call() -> Json:
        from toolkit.data.imported import checked
        from toolkit.recordings import open_data, reading, write

        card = _card(task)
        imported = open_data(dataset, root, format, reading(card, achieved, action_bounds, part, trust_pickle))
        episodes, made = checked(imported), _made("convert", [imported])
        path = write([episodes], out, root, to=to, made=made, card=card, replace=replace)
        return {"dataset": str(path), "episodes": len(episodes), "transitions": episodes.transitions, **made}

    answer(call, as_json, lambda result: [result["dataset"]])


@app.command()
def merge(
    out: Out,
    datasets: Annotated[list[str], typer.Argument(help="Two or more datasets.")],
    root: Root = DATA,
    task: For = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Join datasets of one task into one."""

    def call() -> Json:
        from toolkit import recordings
        from toolkit.data.imported import checked

        card = _card(task)
        parts = [recordings.open_data(name, root, options=recordings.reading(card)) for name in datasets]
        episodes = recordings.merge([checked(part) for part in parts])
        path = recordings.write([episodes], out, root, made=_made("merge", parts), card=card, replace=replace)
        return {"dataset": str(path), "episodes": len(episodes), "transitions": episodes.transitions}

    answer(call, as_json, lambda result: [result["dataset"]])


@app.command()
def split(
    dataset: Dataset,
    out: Out,
    rest: Annotated[str | None, typer.Argument(help="Minari id for the episodes that were not chosen.")] = None,
    episodes: Annotated[str | None, typer.Option(metavar="FIRST:END", help="Choose by place, from 0.")] = None,
    share: Annotated[float | None, typer.Option(min=0, max=1, help="Choose this share of them at random.")] = None,
    success: Annotated[
        bool | None, typer.Option("--success/--failure", help="Choose those that terminate as recorded, or do not.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice.")] = 0,
    root: Root = DATA,
    task: For = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Write some episodes of a dataset to one, and the others to another."""

    def call() -> Json:
        import numpy as np

        from toolkit import recordings
        from toolkit.data.imported import checked

        card, names = _card(task), [out, rest] if rest else [out]
        recordings.free(names, root, replace)
        imported = recordings.open_data(dataset, root, options=recordings.reading(card))
        whole, made = checked(imported), _made("split", [imported])
        chosen = recordings.choose(whole, episodes, share, success, seed)
        parts = dict(zip(names, (chosen, np.setdiff1d(np.arange(len(whole)), chosen)), strict=False))
        how: Json = {"made": made, "card": card, "replace": replace}
        paths = [recordings.write([whole.select(index)], name, root, **how) for name, index in parts.items()]
        return {"datasets": [str(path) for path in paths], "episodes": [len(index) for index in parts.values()]}

    answer(call, as_json, lambda result: result["datasets"])


@app.command()
def relabel(
    dataset: Dataset,
    out: Out,
    task: Annotated[str, typer.Option(help="Task card whose goal, reward and ends the data gets.")],
    root: Root = DATA,
    replace: Replace = False,
    format: Format = None,
    trust_pickle: Trust = False,
    action_bounds: Bounds = None,
    achieved: Achieved = None,
    part: Part = None,
    as_json: AsJson = False,
) -> None:
    """Write a dataset anew under a task card's goal, reward and ends; a log of MuJoCo states is played for that."""

    def call() -> Json:
        from toolkit.data.imported import checked
        from toolkit.mujoco_log import is_log, replay
        from toolkit.recordings import open_data, reading, relabelled, write
        from toolkit.tasks import load_card

        card = load_card(task)
        log, options = Path(dataset), reading(card, achieved, action_bounds, part, trust_pickle)
        imported = replay(log, card, options) if is_log(log) else open_data(dataset, root, format, options)
        episodes = relabelled(checked(imported), card)
        made = _made("relabel", [imported]) | {"task": card.name}
        path = write([episodes], out, root, made=made, card=card, replace=replace)
        notes = list(imported.source.notes)
        return {"dataset": str(path), "episodes": len(episodes), "transitions": episodes.transitions, "notes": notes}

    answer(call, as_json, lambda result: [result["dataset"], *(f"note    {note}" for note in result["notes"])])


def _card(name: str | None) -> TaskCard | None:
    from toolkit.tasks import load_card

    return None if name is None else load_card(name)


def _made(command: str, parts: list[Imported]) -> Json:
    """How a data set came about, for its metadata."""
    from toolkit.recordings import provenance

    return provenance(command, [part.source for part in parts])
