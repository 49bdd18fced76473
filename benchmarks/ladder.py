"""The comparison table: every algorithm on two mazes and three kinds of data, offline and after fine-tuning.

    python benchmarks/ladder.py                                        # every row that is missing, for many hours
    python benchmarks/ladder.py --only iql,awac --mazes pointmaze-medium --data stitch
    python benchmarks/ladder.py --only bc,filtered_bc,awr,awac --mazes pointmaze-medium --data mixture \\
        --set "seeds=[0,1,2,3,4]" --out benchmarks/results/mixture.json
    python benchmarks/ladder.py --page                                 # docs/ladder.md from the rows there are

A row is a part of pipelines/ladder.yaml (or of -goals, -discrete beside it): the recording, the stage that bears the
algorithm's name, the one it goes on from, and the one that goes on from it. It is written into
benchmarks/results/ladder.json as soon as it is known. The same command goes on where it stopped, in the middle of a
stage too; a row that was measured with other settings than the pipeline has now is measured again (recipes
are not among them), so rows with `--set` need a table of their own. What fails is reported, and the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.agents import CONFIGS
from toolkit.log import read_metrics
from toolkit.pipeline.estimate import planned_updates
from toolkit.pipeline.load import load_spec
from toolkit.pipeline.seam import switch_summary
from toolkit.pipeline.spec import OfflineStage, OnlineStage
from toolkit.strict_yaml import parse, render
from toolkit.tasks import load_card

ROOT = Path(__file__).resolve().parents[1]
PIPELINES = [ROOT / "pipelines" / name for name in ("ladder.yaml", "ladder-goals.yaml", "ladder-discrete.yaml")]
RESULTS = ROOT / "benchmarks" / "results" / "ladder.json"
PAGE = ROOT / "docs" / "ladder.md"
MAZES = ("pointmaze-medium", "pointmaze-large")
DATA = ("navigate", "stitch", "mixture")
STITCHED = "stitch"  # in the others some trajectory leads from every cell to the goal
PRACTICE = "_online"
_ABOUT = ("name", "description", "task")  # of a pipeline, what is no setting
INTRODUCTION = """\
# The ladder

Every algorithm on one recording, offline and after 20,000 steps of online fine-tuning. Made by
`python benchmarks/ladder.py --page` from `benchmarks/results/ladder.json`; the settings are those of
`pipelines/ladder.yaml` and the two beside it, which no row was tuned for one by one.

Success is the interquartile mean over seeds of 100 episodes each, with its 95 % interval ([statistics](statistics.md)).
On `stitch` episodes begin in the far cells, which no single recorded trajectory joins to the goal; on `navigate` and
`mixture` there are none, and they begin anywhere. Imitation on Medium's `mixture` was measured
[with five seeds](../benchmarks/results/mixture.json) too: weights and filters beat plain cloning there by more than all
intervals. Dip and regret are [the switch's](seam.md); without an offline stage there is no dip. Updates are those of
all seeds together, with what the stage spends on compiling and evaluating; rows were measured on machines of different
speed, some beside other work, so only large differences mean something.

## What it shows

On `stitch` imitation mostly fails, be it of all recordings (`bc`), of the good ones (`filtered_bc`) or by their whole
return (`awr`). Values that are backed up step by step join the pieces, those of `iql`, `ivl` and `fql` best. Where some
recordings among many show the whole way (`mixture`), a choice by return does nearly as well.

Practice brings nearly all of them to 1.00, clones too. What differs is the price. With values from the recording regret
is mostly below a tenth, and the switch costs little; after cloning it is up to 0.52. `wsrl`, which throws the recording
away at the switch, pays hardly more. `rlpd` needs no pretraining, for half of each batch is the recording, and pays
about what a plain clone does. Without either (`sac`, `td3`) half of the runs on Medium and none on Large find the goal
every time after 20,000 steps, and gradients on policy (`reinforce` to `gae`) need far more.

`hiql` and `qrl`, made for stitching, vary between seeds, most of all on Large, and practice does not always help there;
[lessons](lessons.md) has what we tried."""


class Row(NamedTuple):
    """What is to be measured, and the part of a pipeline that does."""

    agent: str
    task: str
    data: str
    pipeline: dict[str, Any]

    @property
    def last(self) -> str:
        """The stage after which the algorithm is done."""
        return self.agent + PRACTICE if self.agent + PRACTICE in self.pipeline["stages"] else self.agent

    def settings(self, overrides: list[str]) -> dict[str, Any]:
        """What is measured again when it changes."""
        return {name: value for name, value in self.pipeline.items() if name not in _ABOUT} | {"set": overrides}


def main() -> None:
    options = parse_arguments()
    if options.page:
        PAGE.write_text(page(read(options.out)), encoding="utf-8")
        return
    if options.set and options.out.resolve() == RESULTS.resolve():
        sys.exit("with --set rows would take the place of those in ladder.json; name another table with --out")
    failed = []
    for row in planned(options.mazes, options.data, options.only):
        settings = row.settings(options.set)
        if any(done["settings"] == settings for done in read(options.out) if _key(done) == row[:3]):
            continue
        try:
            result = measure(row, options.set, options.runs) | {"settings": settings}
        except subprocess.CalledProcessError as error:
            failed.append(f"{' '.join(row[:3])}: ended with status {error.returncode}")
            print(failed[-1], file=sys.stderr, flush=True)
            continue
        write(options.out, result)
        print(f"{' '.join(row[:3])}: {_share(result, 'offline')} -> {_share(result, 'online')}", flush=True)
    if failed:
        sys.exit("\n".join(["without a result, see above:", *failed]))


def parse_arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CONFIGS), type=_some_of(CONFIGS), help="algorithms, with commas")
    parser.add_argument("--mazes", default=",".join(MAZES), type=_some_of(MAZES), help="mazes, with commas between")
    parser.add_argument("--data", default=",".join(DATA), type=_some_of(DATA), help="recipes, with commas between")
    parser.add_argument("--set", action="append", default=[], help="override of the pipeline, as in toolkit pipeline")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table to add to")
    parser.add_argument("--runs", type=Path, default=Path("runs/ladder"), help="folder of unfinished work")
    parser.add_argument("--page", action="store_true", help="only write docs/ladder.md")
    return parser.parse_args()


def planned(mazes: Any = MAZES, data: Any = DATA, agents: Any = tuple(CONFIGS)) -> Iterator[Row]:
    """All rows, a recording after the other."""
    files = [parse(path.read_text(encoding="utf-8"), path.name).value for path in PIPELINES]
    for maze in mazes:
        for kind in data:
            for whole in files:
                for agent in filter(agents.__contains__, whole["stages"]):
                    yield Row(agent, whole["task"].replace(MAZES[0], maze), kind, cut(whole, agent, maze, kind))


def cut(whole: dict[str, Any], agent: str, maze: str, data: str) -> dict[str, Any]:
    """The part of a pipeline that one algorithm needs, for a maze and a recipe."""
    stages = whole["stages"]
    needed = {"collect", agent, agent + PRACTICE, stages[agent].get("start")}
    kept = {name: dict(stage) for name, stage in stages.items() if name in needed}
    kept["collect"]["recipe"] = data
    for stage in kept.values():
        if data != STITCHED:
            stage.pop("starts", None)
    return whole | {"task": whole["task"].replace(MAZES[0], maze), "stages": kept}


def measure(row: Row, overrides: list[str], runs: Path) -> dict[str, Any]:
    """Run one row's stages, or what is left of them; rows that need the same recording share a run folder."""
    runs.mkdir(parents=True, exist_ok=True)
    run = (runs / f"{row.task}-{row.data}").resolve()
    file = run.with_suffix(".yaml")
    file.write_text(render(row.pipeline), encoding="utf-8")
    command = [sys.executable, "-m", "toolkit", "pipeline", str(file), "--json"]
    command += ["--out", str(run), *[part for text in overrides for part in ("--set", text)]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # a process for each: what one has compiled is of no use to the next
    done = subprocess.run(command, cwd=runs, env=environment, stdout=subprocess.PIPE, check=True)
    spec = load_spec(file, overrides)
    result = result_of(row, spec, json.loads(done.stdout), run)
    for name in spec.stages:
        if name != "collect":  # only the numbers are wanted of the others, and the disk for those to come
            shutil.rmtree(run / "stages" / name)
    shutil.rmtree(run / "tensorboard", ignore_errors=True)
    return result


def result_of(row: Row, spec: Any, summary: dict[str, Any], run: Path) -> dict[str, Any]:
    """What a finished run says of one algorithm."""
    own, last = spec.stages[row.agent], spec.stages[row.last]
    before = row.agent if isinstance(own, OfflineStage) else own.start
    practised = isinstance(last, OnlineStage)
    switch = switch_summary(read_metrics(run / "stages" / row.last / "metrics.jsonl")) if practised else {}
    scores = {
        "offline": summary["stages"][before]["success"] if before else None,
        "online": summary["stages"][row.last]["success"] if practised else None,
    }
    manifest = json.loads((run / "stages" / row.agent / "manifest.json").read_text(encoding="utf-8"))
    updates = planned_updates(own, load_card(row.task)) if isinstance(own, OnlineStage) else own.updates
    trained = [name for name in summary["stages"] if name != "collect"]
    return {
        "agent": row.agent,
        "task": row.task,
        "data": row.data,
        "practised_with": last.agent if practised else None,
        "seeds": summary["seeds"],
        **{phase: score["iqm"] if score else None for phase, score in scores.items()},
        "ci95": {phase: score["ci95"] if score else None for phase, score in scores.items()},
        "per_seed": {phase: score["per_seed"] if score else None for phase, score in scores.items()},
        "dip": switch.get("dip") if before else None,
        "regret": switch.get("regret"),
        "updates_per_s": round(updates * len(summary["seeds"]) / manifest["wall_s"], 1),
        "wall_s": round(sum(summary["stages"][name]["wall_s"] for name in trained), 1),
        "commit": commit(),
        "versions": summary["versions"],
    }


def commit() -> str:
    """Of the source measured; `-dirty` where it has changes of its own."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def read(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["rows"]) if path.exists() else []


def write(path: Path, row: dict[str, Any]) -> None:
    """Add a row, in the place of an older one; one line each, the file whole at every moment."""
    rows = sorted([old for old in read(path) if _key(old) != _key(row)] + [row], key=_key)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text('{"rows": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n", encoding="utf-8")
    beside.replace(path)


def page(rows: list[dict[str, Any]]) -> str:
    """The table as a page: a part for each maze and recipe, the best first."""
    lines = INTRODUCTION.splitlines()
    for maze in MAZES:
        for data in DATA:
            part = [row for row in rows if row["task"].startswith(maze) and row["data"] == data]
            if not part:
                continue
            lines += ["", f"## {maze}, {data}", ""]
            lines += ["| agent | offline | online with | after 20,000 steps | dip | regret | updates/s |"]
            lines += ["|---|---|---|---|---|---|---|"]
            part.sort(key=lambda row: (-(row["online"] or 0.0), -(row["offline"] or 0.0), row["agent"]))
            lines += [_line(row, maze) for row in part]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any], maze: str) -> str:
    name = f"`{row['agent']}`" + ("" if row["task"] == maze else f" (`{row['task']}`)")
    numbers = ["" if row[key] is None else f"{row[key]:.2f}" for key in ("dip", "regret")]
    cells = [name, _share(row, "offline"), row["practised_with"] or "", _share(row, "online"), *numbers]
    return f"| {' | '.join(cells)} | {row['updates_per_s']:,.0f} |"


def _share(row: dict[str, Any], phase: str) -> str:
    if row[phase] is None:
        return ""
    low, high = row["ci95"][phase]
    return f"{row[phase]:.2f} ({low:.2f} to {high:.2f})"


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["agent"], row["task"], row["data"]


def _some_of(known: Any) -> Any:
    def names(text: str) -> list[str]:
        if unknown := [name for name in text.split(",") if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected some of {', '.join(known)}")
        return text.split(",")

    return names


if __name__ == "__main__":
    main()
