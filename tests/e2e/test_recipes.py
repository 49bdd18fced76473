"""The catalogue's ways from offline to online, each from its first stage to its last with tiny numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.checkpoint import load
from toolkit.data.replay import Sampler
from toolkit.pipeline.load import load_spec
from toolkit.pipeline.runner import run_pipeline
from toolkit.pipeline.spec import CollectStage, EvaluateStage, OfflineStage

pytestmark = pytest.mark.timeout(300)

TRAINING = {"batch_size": 16, "eval_episodes": 1, "final_episodes": 1, "log_every": 20, "compile": "off"}
TINY: dict[str, dict[str, Any]] = {
    "collect": {"episodes": 60, "workers": 1},
    "offline": {"updates": 30, "eval_every": 30} | TRAINING,
    "online": {"env_steps": 60, "warmup_steps": 20, "critic_steps": 10, "eval_every": 30} | TRAINING,
    "evaluate": {"episodes": 1, "workers": 1},
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool, int]]:
    """Of every draw: whether there was a recording, whether there was a buffer, rows from the recording."""
    seen: list[tuple[bool, bool, int]] = []
    draw = Sampler.draw

    def watched(self: Sampler, step: int, offline: Any, online: Any, rows: Any, *more: Any) -> Any:
        seen.append((offline is not None, online is not None, int(np.max(rows))))
        return draw(self, step, offline, online, rows, *more)

    monkeypatch.setattr(Sampler, "draw", watched)
    return seen


@pytest.mark.parametrize("name", ["calql", "rlpd", "wsrl", "pex", "bc-reuse"])
def test_a_recipe_runs_to_its_end(name: str, tmp_path: Path, drawn: list[tuple[bool, bool, int]]) -> None:
    spec = load_spec(name)
    sets = ["seeds=[0]", "hidden=[16]"]
    for stage_name, stage in spec.stages.items():
        sets += [f"{stage_name}.{key}={value}" for key, value in TINY[stage.kind].items()]
    summary = run_pipeline(name, out=tmp_path / "run", overrides=sets, progress="none")
    trained = [n for n, stage in spec.stages.items() if not isinstance(stage, CollectStage | EvaluateStage)]
    assert list(summary["stages"]["evaluate"]["of"]) == trained[-2:]
    in_practice = [(recording, rows) for recording, buffer, rows in drawn if buffer]
    assert set(in_practice) == ({(False, 0)} if name == "wsrl" else {(True, 8)})
    before, after = (load(tmp_path / "run" / "stages" / n / "checkpoint")[0] for n in (trained[0], trained[-1]))
    if name == "pex":
        kept = {key: leaf for key, leaf in after.items() if "/pi_old/p/" in key}
        assert kept
        assert all(bool((leaf == before[key.replace("pi_old", "pi")]).all()) for key, leaf in kept.items())
    assert any(isinstance(stage, OfflineStage) for stage in spec.stages.values()) == bool(summary["switch"])
