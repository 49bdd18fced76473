"""Metrics files: deterministic bytes, truncation on resume, and what TensorBoard reads back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit.log import MetricsLog, TensorBoardLog, read_metrics, series, tensorboard_tag
from toolkit.types import ToolkitError


def test_a_line_is_one_sorted_json_object_with_short_floats(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"
    with MetricsLog(path) as log:
        values = {"loss/V": torch.tensor([0.3, 1e-8]), "eval/success": np.array([1.0, 0.5]), "count": np.int64(3)}
        log.write("offline", 500, values | {"third": 1 / 3, "bad": [math.nan, math.inf]})
    assert path.read_text() == (
        '{"bad": [null, null], "count": 3, "eval/success": [1.0, 0.5], "loss/V": [0.3, 1e-08], '
        '"phase": "offline", "step": 500, "third": 0.3333333333333333}\n'
    )


def test_single_precision_survives_the_round_trip(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(200).astype(np.float32) * np.float32(1e3)
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.write("offline", 0, {"x": values})
    read = read_metrics(tmp_path / "m.jsonl")[0]["x"]
    assert np.array_equal(np.array(read, np.float32), values)


def test_resume_leaves_the_bytes_of_an_uninterrupted_run(tmp_path: Path) -> None:
    def rows(log: MetricsLog, first: int, last: int) -> None:
        for step in range(first, last):
            log.write("online", step, {"loss/Q": [math.sin(step), math.cos(step)]})

    with MetricsLog(tmp_path / "whole.jsonl") as log:
        rows(log, 0, 50)
    with MetricsLog(tmp_path / "cut.jsonl") as log:
        rows(log, 0, 20)
        offset = log.offset
        rows(log, 20, 33)
    with open(tmp_path / "cut.jsonl", "ab") as file:
        file.write(b'{"phase": "onl')  # what a kill leaves
    assert len(read_metrics(tmp_path / "cut.jsonl")) == 33
    with MetricsLog(tmp_path / "cut.jsonl", offset=offset) as log:
        assert log.offset == offset
        rows(log, 20, 50)
    assert (tmp_path / "cut.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_kill_loses_no_line_that_was_written(tmp_path: Path) -> None:
    code = (
        "import os, sys; from toolkit.log import MetricsLog\n"
        "log = MetricsLog(sys.argv[1]); log.write('eval', 1, {'x': 2.0}); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "m.jsonl"], check=False)
    assert read_metrics(tmp_path / "m.jsonl") == [{"phase": "eval", "step": 1, "x": 2.0}]


def test_a_new_log_starts_empty_and_a_short_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("old\n")
    with pytest.raises(ToolkitError, match=r"m\.jsonl: holds 4 bytes, its checkpoint recorded 100"):
        MetricsLog(path, offset=100)
    assert path.read_text() == "old\n"
    MetricsLog(path).close()
    assert path.read_bytes() == b""


def test_reserved_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="step"):
        MetricsLog(tmp_path / "m.jsonl").write("eval", 0, {"step": 1.0})


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"phase": "eval"}', '{"phase": 1, "step": 2}'])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"phase": "eval", "step": 0}\n' + line + "\n")
    with pytest.raises(ToolkitError, match=r"m\.jsonl:2: expected a JSON object"):
        read_metrics(path)


def test_series_collects_what_was_measured(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none.jsonl") == []
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.write("offline", 10, {"a": [1.0, 2.0]})
        log.write("offline", 20, {"b": 5.0})
        log.write("offline", 30, {"a": [3.0, math.nan]})
    rows = read_metrics(tmp_path / "m.jsonl")
    steps, values = series(rows, "a")
    assert steps.tolist() == [10, 30]
    np.testing.assert_array_equal(values, [[1.0, 2.0], [3.0, np.nan]])
    assert series(rows, "b")[1].shape == (1, 1)
    assert series(rows, "c")[1].shape == (0, 0)


def test_metric_lines_are_json_for_other_tools(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.write("eval", 0, {"x": [float("nan"), 3.5e38, 1e300, True]})
    assert json.loads((tmp_path / "m.jsonl").read_text())["x"] == [None, 3.5e38, 1e300, 1]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def test_tensorboard_reads_sb3_tags_for_every_seed(tmp_path: Path) -> None:
    online = {
        "eval/success": [0.25, 1.0],
        "eval/return": [-50, -40],
        "eval/steps": [120, 80],
        "rollout/success": [0.5, 0.5],
        "rollout/return": [-1, -2],
        "rollout/steps": [7, 8],
        "loss/pi": torch.tensor([1.0, 2.0]),
        "loss/Q": [3.0, math.nan],
        "loss/V": [4.0, 4.0],
        "temperature": [0.5, 0.25],
        "q_data": [-30.0, -31.0],
    }
    with TensorBoardLog(tmp_path, "online", "finetune", seeds=[4, 7]) as board:
        board.write(1000, online)
    with TensorBoardLog(tmp_path, "offline", "pretrain", seeds=[4, 7]) as board:
        board.write(10, {"loss/V": [1.0, 2.0]})
    assert {p.name for p in tmp_path.iterdir()} == {"offline", "online"}
    second = scalars(tmp_path / "online" / "finetune" / "seed7")
    assert second == {
        "eval/success_rate": [(1000, 1.0)],
        "eval/mean_reward": [(1000, -40.0)],
        "eval/mean_ep_length": [(1000, 80.0)],
        "rollout/success_rate": [(1000, 0.5)],
        "rollout/ep_rew_mean": [(1000, -2.0)],
        "rollout/ep_len_mean": [(1000, 8.0)],
        "train/actor_loss": [(1000, 2.0)],
        "train/V_loss": [(1000, 4.0)],
        "train/ent_coef": [(1000, 0.25)],
        "train/q_data": [(1000, -31.0)],
    }
    assert scalars(tmp_path / "online" / "finetune" / "seed4")["train/critic_loss"] == [(1000, 3.0)]
    assert scalars(tmp_path / "offline" / "pretrain" / "seed4") == {"train/V_loss": [(10, 1.0)]}


def test_tensorboard_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path, "offline", "pretrain", seeds=[0]) as board:
        for step in (100, 200, 300, 400):
            board.write(step, {"loss/Q": [step]})
    for resume in (250, 350):
        with TensorBoardLog(tmp_path, "offline", "pretrain", seeds=[0], purge_step=resume) as board:
            board.write(resume, {"loss/Q": [-resume]})
    found = scalars(tmp_path / "offline" / "pretrain" / "seed0")["train/critic_loss"]
    assert found == [(100, 100.0), (200, 200.0), (250, -250.0), (350, -350.0)]


def test_tags_keep_names_that_already_have_a_place() -> None:
    assert tensorboard_tag("eval/path_ratio") == "eval/path_ratio"
    assert tensorboard_tag("loss/alpha") == "train/alpha_loss"
    assert tensorboard_tag("q_policy") == "train/q_policy"


def test_writing_tensorboard_needs_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from toolkit.log import TensorBoardLog\n"
        "TensorBoardLog(sys.argv[1], 'offline', 'x', [0]).write(1, {'a': 1.0})\n"
        "assert 'tensorflow' not in sys.modules and 'torch.utils.tensorboard' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
