"""A policy from a checkpoint alone: the same actions, in every protocol, in every process."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from toolkit import checkpoint
from toolkit.agents import AGENTS
from toolkit.evaluate import EvalResult, evaluate
from toolkit.learner import Learner
from toolkit.nn import policy as heads
from toolkit.pipeline.material import make_agent
from toolkit.policy import Policy, describe, load_policy, policy_tensors
from toolkit.tasks import Goal, TaskCard, make_env
from toolkit.types import Spec, ToolkitError

FIXED = TaskCard(
    name="umaze-test",
    description="A corner",
    env_id="PointMaze_UMaze-v3",
    env_kwargs={"continuing_task": False},
    max_episode_steps=40,
    goal=Goal(cell=(3, 1)),
)
OBSERVED = FIXED.model_copy(update={"goal": Goal(observed=True)})
MEAN, STD = np.array([0.5, -0.25, 0.1, 0.0], np.float32), np.array([2.0, 1.5, 0.7, 3.0], np.float32)


def make_learner(name: str = "iql", obs_dim: int = 4) -> Learner:
    kind = AGENTS[name]
    spec = Spec(obs_dim, 2, goal_dim=2 * kind.goals, discrete=not kind.continuous, position_dim=2)
    agent = make_agent(name, {"hidden": (32, 24), "fourier": (2.0, 5.0)}, spec)
    learner = Learner(agent, [7, 8, 9], updates=1, compile="off", precision="fp32", device=torch.device("cpu"))
    # larger last layers than at the start of training, so that actions differ
    state = learner.state
    net = next(getattr(state, policy) for policy in ("pi", "mu", "low", "Q") if hasattr(state, policy))
    for key in ("w2", "b2"):
        net.p[key].copy_(0.3 * torch.randn(net.p[key].shape, generator=_generator()))
    return learner


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def parts(name: str = "iql", card: TaskCard = FIXED) -> tuple[Learner, dict[str, Any], dict[str, Any]]:
    obs_dim = 6 if card.goal.observed else 4
    learner = make_learner(name, obs_dim)
    mean, std = (np.concatenate([x, [0.0, 0.0]])[:obs_dim].astype(np.float32) for x in (MEAN, STD + 1))
    std[std == 0] = 1.0
    meta = {"policy": describe(name, learner.agent, card, learner.seeds, [(1, 1), (1, 2)])}
    return learner, policy_tensors(learner.state, mean, std), meta


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with two trained stages, the later one by name the earlier."""
    _, tensors, meta = parts()
    stages = tmp_path / "run" / "stages"
    for name in ("pretrain", "a-finetune"):
        about = copy.deepcopy(meta)
        about["policy"]["far_starts"] = [[3, 3]] if name == "a-finetune" else []
        checkpoint.save(stages / name / "checkpoint", tensors | {"practice/rows": np.zeros(9)}, about | {"step": 1})
    (stages / "evaluate").mkdir()
    text = "name: x\nstages:\n  pretrain: {}\n  a-finetune: {}\n  evaluate: {}\n"
    (tmp_path / "run" / "pipeline.yaml").write_text(text)
    return tmp_path / "run"


def test_a_run_a_stage_and_a_checkpoint(run: Path) -> None:
    assert load_policy(run).far_starts == [(3, 3)]
    assert load_policy(run / "stages" / "pretrain").far_starts == []
    assert load_policy(run / "stages" / "pretrain" / "checkpoint").seeds == [7, 8, 9]
    assert load_policy(run / "stages" / "pretrain" / "checkpoint" / "000001").card == FIXED


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_the_loaded_policy_acts_as_the_trained_one(tmp_path: Path, name: str) -> None:
    learner, tensors, meta = parts(name)
    checkpoint.save(tmp_path, tensors, meta)
    policy = load_policy(tmp_path)
    inputs = np.random.default_rng(0).normal(size=(3, 16, 4)).astype(np.float32)
    normal = torch.as_tensor((inputs - tensors["normalizer/mean"]) / tensors["normalizer/std"]).clone()
    expected = learner.act(normal, torch.zeros(3, 16, learner.agent.act_noise_dim)).numpy()
    assert policy.act(inputs).tobytes() == expected.tobytes()
    assert policy.act(inputs).std() > 0.1
    values = policy.q(inputs, expected)
    assert np.array_equal(values, learner.q(normal, torch.as_tensor(expected)).numpy(), equal_nan=True)
    assert name not in ("iql", "cql", "sac") or np.isfinite(values).all()
    assert name not in ("bc", "filtered_bc") or np.isnan(values).all()


def test_predict_speaks_for_the_chosen_seed() -> None:
    learner, tensors, meta = parts()
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    normal = torch.as_tensor((x - tensors["normalizer/mean"]) / tensors["normalizer/std"])
    for seed in range(3):
        alone = {key: leaf[seed] for key, leaf in learner.state.pi.p.items()}
        action, state = Policy(tensors, meta, seed).predict(x, state=None, episode_start=np.ones(5, bool))
        assert np.allclose(action, heads(alone, learner.agent.features(normal)).mode.numpy(), atol=1e-6)
        assert state is None


def test_single_batch_flat_and_dict_agree() -> None:
    for card in (FIXED, OBSERVED):
        _, tensors, meta = parts(card=card)
        policy = Policy(tensors, meta)
        rng = np.random.default_rng(1)
        observation = {"observation": rng.normal(size=(6, 4)), "achieved_goal": rng.normal(size=(6, 2)),
                       "desired_goal": rng.normal(size=(6, 2))}  # fmt: skip
        batch, _ = policy.predict(observation)
        assert batch.shape == (6, 2)
        assert batch.dtype == np.float32
        assert (np.abs(batch) <= 1).all()
        assert np.array_equal(policy.predict(card.policy_input(observation))[0], batch)
        for i in range(6):
            one, _ = policy.predict({key: value[i] for key, value in observation.items()})
            assert one.shape == (2,)
            assert np.allclose(one, batch[i], atol=1e-6)


def test_of_discrete_actions_it_predicts_the_number() -> None:
    """An agent's one-hot action, or the largest of its numbers, as the task's environment takes it."""
    card = FIXED.model_copy(update={"directions": 8})
    env = make_env(card)
    agent = AGENTS["bc"](AGENTS["bc"].Config(hidden=(16,)), env.sizes)
    learner = Learner(agent, [1, 2], updates=1, compile="off", precision="fp32", device=torch.device("cpu"))
    meta = {"policy": describe("bc", agent, card, learner.seeds)}
    policy = Policy(policy_tensors(learner.state, np.zeros(4, np.float32), np.ones(4, np.float32)), meta)
    inputs = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    batch, _ = policy.predict(inputs)
    assert batch.tolist() == policy.act(np.stack([inputs] * 2))[0].argmax(-1).tolist()
    assert len(set(batch.tolist())) > 1
    one, _ = policy.predict(inputs[0])
    assert one.shape == () and env.action_space.contains(one[()])
    assert -40 <= evaluate_policy(policy, Monitor(env), n_eval_episodes=2)[0] <= 0
    assert (policy.act(np.stack([inputs] * 2)).shape, policy.agent.spec) == (
        (2, 6, 9),
        Spec(4, 9, discrete=True, position_dim=2),
    )


def test_of_chunks_it_predicts_one_action_after_the_other() -> None:
    """Five from one look; anew where an episode begins, and at every call without the state."""
    _, tensors, meta = parts("qc")
    policy = Policy(tensors, meta)
    x = np.random.default_rng(0).normal(size=(12, 3, 4)).astype(np.float32)
    chunks = np.stack([policy.act(np.stack([look] * 3))[0].reshape(3, 5, 2) for look in x])
    state = None
    for call, look in enumerate(x):
        begins = np.array([call == 0, call in (0, 3), False])
        action, state = policy.predict(look, state, begins)
        looks = [call // 5 * 5, (call - 3) // 5 * 5 + 3 if call >= 3 else 0, call // 5 * 5]
        wanted = [chunks[look, lane, call - look] for lane, look in enumerate(looks)]
        np.testing.assert_allclose(action, wanted, atol=1e-6)
    np.testing.assert_allclose(policy.predict(x[0])[0], chunks[0, :, 0], atol=1e-6)
    assert policy.predict(x[0, 0])[0].shape == (2,)
    with pytest.raises(ToolkitError, match="state of 3 episodes: expected that of the 1 observed"):
        policy.predict(x[0, 0], state)
    assert -40 <= evaluate_policy(policy, Monitor(make_env(FIXED)), n_eval_episodes=2)[0] <= 0


def test_sampling_is_seeded_and_different() -> None:
    _, tensors, meta = parts()
    x = np.zeros((50, 4), np.float32)
    draws = [Policy(tensors, meta).predict(x, deterministic=False)[0] for _ in range(2)]
    assert np.array_equal(*draws)
    assert draws[0].std(0).min() > 0.01
    assert Policy(tensors, meta).predict(x)[0].std(0).max() < 1e-6


def test_stable_baselines3_evaluates_it() -> None:
    _, tensors, meta = parts()
    policy = Policy(tensors, meta)
    env = Monitor(make_env(FIXED))
    mean, _ = evaluate_policy(policy, env, n_eval_episodes=3)
    assert -40 <= mean <= 0
    returns, lengths = evaluate_policy(policy, env, n_eval_episodes=3, return_episode_rewards=True, deterministic=False)
    assert len(returns) == len(lengths) == 3
    flat = gymnasium.wrappers.FilterObservation(make_env(FIXED), ["observation"])
    flat = Monitor(gymnasium.wrappers.FlattenObservation(flat))
    assert -40 <= evaluate_policy(policy, flat, n_eval_episodes=2)[0] <= 0


def test_workers_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.evaluate.WORTH", 1e-9)
    learner, tensors, meta = parts()
    policy = Policy({k: torch.as_tensor(v) for k, v in tensors.items()}, meta)
    assert pickle.loads(pickle.dumps(policy)).agent_name == "iql"
    results = [evaluate(policy.act, FIXED, 3, 80, [(1, 1), (1, 2)], workers=workers) for workers in (1, 2, 4)]

    def trained(x: Any) -> Any:
        normal = torch.as_tensor((x - tensors["normalizer/mean"]) / tensors["normalizer/std"]).clone()
        return learner.act(normal, torch.zeros(3, x.shape[1], 2)).numpy()

    results.append(evaluate(trained, FIXED, 3, 80, [(1, 1), (1, 2)]))  # as a training loop does, in its own process
    for other in results[1:]:
        assert _bytes(other) == _bytes(results[0])
    assert len(np.unique(results[0].path_length)) > 200


def _bytes(result: EvalResult) -> list[bytes]:
    return [np.ascontiguousarray(value).tobytes() for value in vars(result).values() if value is not None]


def test_what_is_wrong_is_said(tmp_path: Path, run: Path) -> None:
    _, tensors, meta = parts()
    for folder, words in ((tmp_path / "none", "no such folder"), (tmp_path, "no checkpoint here")):
        with pytest.raises(ToolkitError, match=words):
            load_policy(folder)
    with pytest.raises(ToolkitError, match="from 0 to 2"):
        load_policy(run, seed=3)
    with pytest.raises(ToolkitError, match="expected 4 numbers"):
        Policy(tensors, meta).predict(np.zeros(5))
    with pytest.raises(ToolkitError, match=r"\(3, 2, 5\): expected 4 numbers .* as the simulator of task .* gave"):
        Policy(tensors, meta).act(np.zeros((3, 2, 5), np.float32))

    def broken(**changes: Any) -> None:
        about = json.loads(json.dumps(meta))
        about["policy"] |= changes
        Policy(tensors, about)

    broken()
    for changes, words in (
        ({"agent": "nonsense"}, "no policy"),
        ({"config": {"expectil": 0.7}}, "does not fit this version.*expectil"),
        ({"config": {"hidden": [8192, 8192]}}, "do not hold networks"),
        ({"config": {"hidden": [50] * 32}}, "do not hold networks"),
        ({"config": {"hidden": [10**6, 10**6]}}, r"not fit this version: hidden\[0\]: expected at most 8192"),
        ({"config": {"hidden": [50] * 10**3}}, "hidden: .*at most 32"),
        ({"seeds": [0, 10**30]}, "no policy"),
        ({"agent": "qrl", "config": {"hidden": [32, 24], "latent_dim": 8 * 10**9}}, "do not hold networks"),
        ({"config": {"hidden": [32]}}, "does not fit"),
        ({"seeds": [1]}, "does not fit"),
        ({"task": {"name": "x"}}, "does not fit this version"),
        ({"spec": {"obs_dim": 4}}, "no policy"),
        ({"spec": {"obs_dim": "4", "action_dim": 2}}, "no policy"),
        ({"spec": {"obs_dim": 4, "action_dim": 2, "goal_dim": 9}}, "no policy"),
        ({"agent": "qc", "config": {"hidden": [32, 24]}}, "2 numbers are no 5 actions in a row"),
    ):
        with pytest.raises(ToolkitError, match=words):
            broken(**changes)
    with pytest.raises(ToolkitError, match="no policy"):
        Policy(tensors, {})
    with pytest.raises(ToolkitError, match="normalizer/mean"):
        Policy({k: v for k, v in tensors.items() if k != "normalizer/mean"}, meta)
