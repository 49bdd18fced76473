"""Whether the guard saves a run whose policy learns thirty times too fast after the switch.

    PYTHONPATH=. python benchmarks/guard.py                     # the arm of pipelines/fetch.yaml, 3 seeds; half an hour
    PYTHONPATH=. python benchmarks/guard.py --tiny                 # does it run at all?
    PYTHONPATH=. python benchmarks/guard.py --out runs/guard       # keeps the run folders and their reports

The same recording and imitation, then three times online: healthy, with thirty times the policy's learning rate, and
with that and the guard. Writes benchmarks/results/guard.json; fails where the guarded run ends more than 0.05 below the
healthy one, or nothing collapsed without the guard.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from toolkit.log import read_metrics
from toolkit.pipeline.load import load_spec
from toolkit.pipeline.runner import run_pipeline
from toolkit.stats import iqm

RESULTS = Path(__file__).parent / "results" / "guard.json"
PIPELINE = Path(__file__).resolve().parents[1] / "pipelines" / "fetch.yaml"
TIMES = 30
STEPS = ["finetune.env_steps=16_000"]
TINY = [
    "seeds=[0, 1]", "hidden=[16]", "collect.episodes=10", "bc.updates=20", "bc.final_episodes=1",
    "finetune.env_steps=160", "finetune.warmup_steps=100", "finetune.critic_steps=10", "finetune.eval_every=20",
    "finetune.eval_episodes=1", "finetune.final_episodes=1", "finetune.batch_size=16", "evaluate.episodes=1",
]  # fmt: skip


def measure(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The three runs; the later two take over what the first has recorded and imitated."""
    rate = load_spec(PIPELINE, overrides).stages["finetune"].config["lr_policy"]
    unguarded, fast = "finetune.guard=null", f"finetune.config.lr_policy={TIMES * rate:g}"
    found: dict[str, Any] = {}
    for name, changes in {"healthy": [unguarded], "ruined": [unguarded, fast], "guarded": [fast]}.items():
        run = folder / name
        if name != "healthy" and not run.exists():
            shutil.copytree(folder / "healthy", run)
        summary = run_pipeline(PIPELINE, out=run, overrides=[*overrides, *changes], progress="plain")
        rows = [row for row in read_metrics(run / "stages/finetune/metrics.jsonl") if "eval/success" in row]
        found[name] = {
            "success": summary["stages"]["evaluate"]["success"],
            "lowest": min(float(iqm(row["eval/success"])) for row in rows),
            "switch": summary["switch"],
            "guard": summary["stages"]["finetune"].get("guard", []),
            "wall_s": summary["stages"]["finetune"]["wall_s"],
        }
    below = found["healthy"]["success"]["iqm"] - found["guarded"]["success"]["iqm"]
    return {"times": TIMES, "overrides": overrides, **found, "guarded_below_healthy": below}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tiny", action="store_true", help="seconds; its numbers mean nothing and are not kept")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="guard-") as temporary:
        folder = arguments.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(folder, TINY if arguments.tiny else STEPS)
    print(json.dumps(result, indent=1))
    if arguments.tiny:
        return
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    collapsed = result["ruined"]["lowest"] < result["ruined"]["switch"]["before"] - 0.2
    raise SystemExit(0 if collapsed and result["guarded_below_healthy"] <= 0.05 else 1)


if __name__ == "__main__":
    main()
