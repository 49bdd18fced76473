"""Exported policies act as the original does, whatever the agent, and say what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.utils import _pytree

from toolkit import checkpoint
from toolkit.agents import AGENTS
from toolkit.export import export_run
from toolkit.export.formats import load_safetensors
from toolkit.export.run import TOLERANCE, differs, draw
from toolkit.pipeline.material import make_agent
from toolkit.policy import describe, load_policy, policy_tensors
from toolkit.tasks import Goal, TaskCard, load_card, make_env
from toolkit.types import Spec, ToolkitError

CARD = TaskCard(
    name="corner",
    description="A corner <b>",
    env_id="PointMaze_UMaze-v3",
    max_episode_steps=30,
    goal=Goal(cell=(3, 1), observed=True),
)
GAUSSIAN = ["bc", "iql", "sac", "cql", "td3_bc", "gae"]


def save(folder: Path, name: str, card: TaskCard = CARD, spec: Spec | None = None, **config: Any) -> Path:
    """A checkpoint of two seeds whose weights are drawn so that actions vary."""
    kind = AGENTS[name]
    spec = spec or Spec(6, 2 if kind.continuous else 5, 2, discrete=not kind.continuous, position_dim=2)
    random = torch.Generator().manual_seed(1)
    agent = make_agent(name, {"hidden": (16, 16), **config}, spec)
    states = [agent.init(random) for _ in range(2)]
    state = _pytree.tree_map(lambda *leaves: torch.stack(leaves), *states)
    state = _pytree.tree_map(lambda leaf: leaf + 0.3 * torch.randn(leaf.shape, generator=random), state)
    mean, std = torch.linspace(-3, 2, spec.obs_dim), torch.linspace(0.1, 2, spec.obs_dim)
    about = describe(name, agent, card, [3, 5])
    result = {"success": {"iqm": 0.5, "ci95": [0.25, 0.75], "per_seed": [0.375, 0.625], "episodes": 8}}
    meta = {"policy": about, "result": result}
    checkpoint.save(folder, policy_tensors(state, mean, std), meta)
    return folder


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_as_torchscript(tmp_path: Path, name: str) -> None:
    run = save(tmp_path / "run", name)
    found = export_run(run, "torchscript", tmp_path, seed=1)
    assert (found["agent"], found["seed"], found["observations"]) == (name, 5, 1000)
    assert found["largest_difference"] <= TOLERANCE
    script, policy = torch.jit.load(tmp_path / "policy.pt"), load_policy(run, seed=1)
    for rows in (1, 7):
        inputs = draw(policy)[:rows]
        assert differs(script(torch.from_numpy(inputs)).numpy(), policy.decide(inputs)) <= TOLERANCE
    assert found["bytes"] < 60_000


@pytest.mark.parametrize("to", ["torchscript", "onnx", "safetensors"])
def test_fourier_features_go_along(tmp_path: Path, to: str) -> None:
    run = save(tmp_path / "run", "iql", fourier=(0.5, 1.0))
    assert export_run(run, to, tmp_path)["largest_difference"] <= TOLERANCE


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_as_onnx(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnx", reason="needs the export extra")
    runtime = pytest.importorskip("onnxruntime", reason="needs the export extra")
    run = save(tmp_path / "run", name)
    assert export_run(run, "onnx", tmp_path)["largest_difference"] <= TOLERANCE
    session = runtime.InferenceSession(tmp_path / "policy.onnx")
    action = session.run(None, {"observation": np.zeros((1, 6), np.float32)})[0]
    assert differs(action, load_policy(run).decide(np.zeros((1, 6), np.float32))) <= TOLERANCE


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_as_safetensors(tmp_path: Path, name: str) -> None:
    run = save(tmp_path / "run", name)
    export_run(run, "safetensors", tmp_path, seed=1)
    policy, again = load_policy(run, seed=1), load_safetensors(tmp_path / "policy.safetensors")
    assert (again.agent_name, again.seeds, again.card) == (name, [5], policy.card)
    assert np.array_equal(again.predict(draw(policy))[0], policy.predict(draw(policy))[0])
    inputs, action = np.ones((2, 3, 6), np.float32), np.zeros((2, 3, policy.agent.spec.action_dim), np.float32)
    ours, theirs = policy.q(inputs, action)[1], again.q(inputs[:1], action[:1])[0]
    assert np.allclose(ours, theirs, atol=1e-5, equal_nan=True), "critics come along"


@pytest.mark.parametrize("name", GAUSSIAN)
def test_gaussian_policies_as_sb3(tmp_path: Path, name: str) -> None:
    assert export_run(save(tmp_path / "run", name), "sb3", tmp_path)["largest_difference"] <= TOLERANCE


def test_sb3_plays_and_trains_on(tmp_path: Path) -> None:
    from stable_baselines3 import SAC

    run = save(tmp_path / "run", "sac")
    export_run(run, "sb3", tmp_path)
    policy, env = load_policy(run), make_env(CARD)
    model = SAC.load(tmp_path / "policy.zip", env=env, learning_starts=0, device="cpu")
    observation, _ = env.reset(seed=0)
    assert np.allclose(model.predict(observation, deterministic=True)[0], policy.predict(observation)[0], atol=1e-5)
    inputs, action = draw(policy)[:5], np.full((5, 2), 0.3, np.float32)
    seen = {"achieved_goal": np.zeros((5, 2)), "desired_goal": inputs[:, 4:], "observation": inputs[:, :4]}
    parts = {key: torch.as_tensor(value, dtype=torch.float32) for key, value in seen.items()}
    qs = torch.stack(model.critic(parts, torch.from_numpy(action))).squeeze(-1).amin(0)
    ours = policy.q(np.stack([inputs] * 2), np.stack([action] * 2))[0]
    assert np.allclose(qs.detach().numpy(), ours, rtol=1e-4, atol=1e-4), "critics are the agent's own"
    model.learn(3)


@pytest.mark.parametrize(
    ("name", "config", "why"),
    [
        ("pex", {}, "not the tanh of its policy's mean alone"),
        ("hiql", {}, "no single network"),
        ("fql", {}, "no single network"),
        ("qc_sac", {}, "it decides on several actions at once"),
        ("discrete_cql", {}, "choices"),
        ("sac", {"policy_layer_norm": True}, "LayerNorm"),
        ("sac", {"fourier": (3.0,)}, "Fourier"),
    ],
)
def test_sb3_refuses_what_sac_is_not(tmp_path: Path, name: str, config: dict[str, Any], why: str) -> None:
    run = save(tmp_path / "run", name, **config)
    with pytest.raises(ToolkitError, match=why):
        export_run(run, "sb3", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    card = load_card("pendulum")
    run = save(tmp_path / "run", "iql", card, Spec(3, 1))
    found = export_run(run, "safetensors", seed=1)
    assert found["file"] == str(run / "export" / "safetensors" / "policy.safetensors")
    assert found["card"] == found["file"] + ".md"
    text = Path(found["card"]).read_text()
    assert text.startswith("# iql on pendulum\n")
    assert "| success | 0.50 | 0.25 to 0.75 | 0.62 |" in text
    assert "stand for [-2.0] to [2.0] in the simulator" in text
    assert "expectile: 0." in text
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    chunked = export_run(save(tmp_path / "chunked", "qc", card, Spec(3, 1)), "safetensors")
    assert "- These are 5 actions of 1 numbers, to be played one after the other" in Path(chunked["card"]).read_text()


def test_the_card_names_what_a_recorded_stage_learned_from(tmp_path: Path) -> None:
    """Not what lies behind the recorded stage."""
    sizes = {"episodes": 40, "transitions": 1000}
    stages: dict[str, Any] = {
        "demos": {"result": {**sizes, "dataset": "data/demos"}, "config": {"recipe": "stitch"}},
        "clone": {"inputs": ["demos"], "result": {}, "config": {}},
        "played": {
            "inputs": ["clone"], "result": {**sizes, "dataset": "data/recorded/played-v0"}, "config": {"of": "clone"},
        },
        "pretrain": {"inputs": ["played"], "result": {}, "config": {}},
    }  # fmt: skip
    for name, manifest in stages.items():
        (tmp_path / "stages" / name).mkdir(parents=True)
        (tmp_path / "stages" / name / "manifest.json").write_text(json.dumps(manifest))
    run = save(tmp_path / "stages/pretrain/checkpoint", "iql", load_card("pendulum"), Spec(3, 1))
    text = Path(export_run(run, "safetensors", tmp_path)["card"]).read_text()
    assert "- stage clone: 40 episodes, 1,000 transitions (`data/recorded/played-v0`)" in text
    assert "data/demos" not in text


@pytest.mark.parametrize("to", ["torchscript", "safetensors", "sb3"])
def test_what_the_card_shows_works(tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_card("pointmaze-umaze")
    run = save(tmp_path / "run", "iql", card, Spec(4, 2))
    text = Path(export_run(run, to, tmp_path)["card"]).read_text()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert np.asarray(names["action"]).shape[-1] == 2


def test_a_file_that_acts_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = save(tmp_path / "run", "bc")
    monkeypatch.setattr("toolkit.export.run.TOLERANCE", -1.0)
    with pytest.raises(ToolkitError, match="read again its actions differ by"):
        export_run(run, "torchscript", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ToolkitError, match="expected one of torchscript"):
        export_run(run, "keras")


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ToolkitError, match="expected a file of `toolkit export"):
        load_safetensors(tmp_path / "x.safetensors")
    safetensors.torch.save_file({"pi/w0": torch.zeros(2)}, tmp_path / "y.safetensors", metadata={"policy": "{}"})
    with pytest.raises(ToolkitError, match=r"expected a file of `toolkit export.*normalizer/mean"):
        load_safetensors(tmp_path / "y.safetensors")
