"""Whether `toolkit advise` picks well: what it recommends for new recordings, against the best row of the ladder.

    PYTHONPATH=. python benchmarks/advice.py                  # six recordings; ten minutes
    PYTHONPATH=. python benchmarks/advice.py --tiny           # does it run at all?

The ladder's six recordings (benchmarks/ladder.py) are made again with another seed, the advice is asked for each, and
its choice trained as its recipe says. The best is that of the rows in benchmarks/results/ladder.json on the same maze
and recipe: before a recording's rows are there, there is nothing to compare with.
Writes benchmarks/results/advice.json; fails where fewer than five of six choices come within 0.1 of the best.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import ladder
from toolkit.collect import dataset_id
from toolkit.controllers import load_recipe
from toolkit.pipeline.pilot import advise_on
from toolkit.pipeline.runner import run_pipeline
from toolkit.strict_yaml import parse, render
from toolkit.tasks import load_card

RESULTS = Path(__file__).parent / "results" / "advice.json"
SEED = 1  # the ladder's recordings have 0
NEAR, ENOUGH = 0.1, 5
TINY = ["seeds=[0, 1]", "hidden=[16]"]


def measure(maze: str, data: str, folder: Path, tiny: bool = False) -> dict[str, Any]:
    """What the advice chooses for one recording, and how well that does."""
    card, collected = load_card(maze), folder / "collected"
    row = next(ladder.planned([maze], [data], ["bc"]))
    recording = row.pipeline["stages"]["collect"] | {"seed": SEED} | ({"episodes": 60} if tiny else {})
    run_pipeline(write(folder, {"task": maze, "stages": {"recording": recording}}), out=collected, progress="plain")
    told = advise_on(dataset_id(load_recipe(data), card), collected / "data", card)
    choice = next(one for one in told["advice"] if one["role"] == "choice")
    pipeline = parse(told["pipeline"], "the advice").value
    stage = pipeline["stages"][choice["agent"]] | ({"updates": 20, "final_episodes": 2} if tiny else {})
    pipeline["stages"] = {"recording": pipeline["stages"]["recording"], "choice": stage}
    summary = run_pipeline(
        write(folder, pipeline), out=folder / "run", overrides=TINY if tiny else [], progress="plain"
    )
    return {
        "task": maze,
        "data": data,
        "choice": choice,
        "stage": stage,
        "seeds": summary["seeds"],
        "success": summary["stages"]["choice"]["success"],
        "wall_s": summary["wall_s"],
    }


def write(folder: Path, pipeline: dict[str, Any]) -> Path:
    file = folder / "pipeline.yaml"
    file.write_text(render({"name": "advice", "description": "The advice, followed"} | pipeline), encoding="utf-8")
    return file


def best(rows: list[dict[str, Any]], maze: str, data: str) -> dict[str, Any] | None:
    """The ladder's best offline row on the same task and recipe."""
    found = [row for row in rows if row["task"] == maze and row["data"] == data and row["offline"] is not None]
    return max(found, key=lambda row: row["offline"], default=None)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tiny", action="store_true", help="seconds; its numbers mean nothing and are not kept")
    tiny = parser.parse_args().tiny
    rows, found = ladder.read(ladder.RESULTS), []
    for maze in ladder.MAZES:
        for data in ladder.DATA:
            with tempfile.TemporaryDirectory(prefix="advice-") as temporary:
                one = measure(maze, data, Path(temporary), tiny)
            if other := best(rows, maze, data):
                one |= {"best": {key: other[key] for key in ("agent", "offline", "commit")}}
                one |= {"behind": round(other["offline"] - one["success"]["iqm"], 4)}
            found.append(one)
            print(json.dumps(one), flush=True)
    near = sum("behind" in one and one["behind"] <= NEAR for one in found)
    if tiny:
        return
    result = {"near": near, "of": len(found), "within": NEAR, "seed": SEED, "recordings": found}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(0 if near >= ENOUGH else 1)


if __name__ == "__main__":
    main()
