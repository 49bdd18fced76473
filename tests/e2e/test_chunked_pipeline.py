"""A policy that decides on several actions at once, from the recording to the report, and stopped between two looks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kill9 import differences, fingerprint
from tests.e2e.stopping import run_whole, stopped_in
from toolkit.assess import evaluate_run
from toolkit.checkpoint import load
from toolkit.pipeline.material import make_agent, prepare, task_sizes
from toolkit.pipeline.runner import run_pipeline
from toolkit.tasks import load_card
from toolkit.types import ToolkitError

pytestmark = pytest.mark.timeout(300)

TRAINING = 'batch_size: 16, compile: "off", eval_episodes: 1, final_episodes: 1, log_every: 20'
PIPELINE = f"""\
name: chunks
task: pointmaze-umaze
seeds: [3, 5]
hidden: [16]
stages:
  collect: {{kind: collect, recipe: stitch, episodes: 40, workers: 1}}
  pretrain: {{kind: offline, agent: qc, updates: 40, config: {{chunk: 7, flow_steps: 2}}, {TRAINING}}}
  finetune: {{kind: online, agent: qc, start: pretrain, config: {{chunk: 7, flow_steps: 2}}, env_steps: 90, envs: 2,
             eval_every: 40, {TRAINING}}}
  explore: {{kind: online, agent: qc_sac, env_steps: 30, config: {{members: 2}}, {TRAINING}}}
  evaluate: {{kind: evaluate, of: [pretrain, finetune, explore], episodes: 1, workers: 1}}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return run_whole(tmp_path_factory.mktemp("chunks"), PIPELINE)


def test_stopped_in_the_middle_of_a_chunk_it_ends_in_the_same_bytes(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, run = whole
    copy = stopped_in("finetune", file, run, tmp_path / "run", monkeypatch)
    tensors, meta = load(copy / "stages/finetune/checkpoint")
    assert meta["step"] == 40
    assert {len(tensors[f"practice/history{lane}"]) % 7 for lane in range(4)} == {6}  # 20 steps, the look at the 14th
    assert tensors["practice/pending"].shape == (4, 14)
    run_pipeline(file, out=copy, progress="none")
    assert differences(fingerprint(run), fingerprint(copy)) == []


def test_what_reads_a_policy_or_its_values_takes_chunks(whole: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (whole[1] / "stages/finetune/metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if "eval/success" in row]
    assert [row["step"] for row in evaluations] == [0, 40, 80, 90]
    assert all(np.isfinite(row[name]).all() for row in evaluations for name in ("q_data", "q_policy", "q_start"))
    summary = evaluate_run(whole[1] / "stages/finetune", episodes=1, workers=1, video=tmp_path / "film.gif")
    assert Path(summary["video"]).stat().st_size > 1000
    assert (whole[1] / "report.html").is_file()


def test_a_chunk_longer_than_all_that_was_recorded(whole: tuple[Path, Path]) -> None:
    card, dataset = load_card("pointmaze-umaze"), whole[1] / "data/pointmaze/umaze-stitch-v0"
    agent = make_agent("qc", {"chunk": 151, "hidden": [8]}, task_sizes(card))
    with pytest.raises(ToolkitError, match=r"expected a config\.chunk of at most the longest episode, \d+ steps"):
        prepare(card, dataset, agent, 0.99, whole=True)
