"""What the toolkit is measured against, each as its own documentation uses it.

d3rlpy pins an older gymnasium and gets an environment of its own; Stable-Baselines3 lives in the toolkit's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from worker import ACTION, BATCH, EPISODE, HIDDEN, OBS, ROWS, Run, serve

D3RLPY = "d3rlpy==2.8.1"
DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"  # as the toolkit chooses


def d3rlpy_python(folder: Path | None) -> Path:
    """The interpreter of d3rlpy's environment, which is made in `folder` (or the user's cache) at the first call."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = folder or caches / "offline2online-toolkit" / "benchmark-peers"
    python, complete = folder / "d3rlpy/bin/python", folder / "d3rlpy/complete"
    if not complete.exists():
        print(f"installing {D3RLPY} into {python.parents[1]}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(python.parents[1])], check=True)
        torch = f"torch=={version('torch').partition('+')[0]}"  # both sides on the same one
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", torch, D3RLPY], check=True, stdout=sys.stderr)
        complete.touch()
    return python


def random_rows(*width: int) -> Any:
    return np.random.Generator(np.random.SFC64(0)).standard_normal((ROWS, *width), np.float32)


def d3rlpy_updates(name: str) -> Run:
    """Updates on sampled batches, as `fit` makes them, without its logging."""
    import d3rlpy

    ends = np.arange(1, ROWS + 1) % EPISODE == 0
    data = d3rlpy.dataset.MDPDataset(
        random_rows(OBS), np.tanh(random_rows(ACTION)), random_rows(), np.zeros(ROWS, np.float32), ends
    )
    encoder = d3rlpy.models.VectorEncoderFactory(list(HIDDEN))
    nets = {"actor_encoder_factory": encoder, "critic_encoder_factory": encoder, "batch_size": BATCH}
    if name == "iql":
        config: Any = d3rlpy.algos.IQLConfig(value_encoder_factory=encoder, **nets)
    else:  # without the Lagrange multiplier, as the toolkit's CQL is by default
        config = d3rlpy.algos.CQLConfig(alpha_learning_rate=0.0, **nets)
    algorithm = config.create(device=DEVICE)
    algorithm.build_with_dataset(data)

    def run() -> float:
        algorithm.update(data.sample_transition_batch(BATCH))
        return 1

    return run


def sb3_uniform() -> Run:
    """Batches of a full flat replay buffer."""
    from gymnasium.spaces import Box
    from stable_baselines3.common.buffers import ReplayBuffer

    buffer = ReplayBuffer(ROWS, Box(-9, 9, (OBS,)), Box(-1, 1, (ACTION,)), device="cpu")
    buffer.observations[:, 0] = buffer.next_observations[:, 0] = random_rows(OBS)
    buffer.actions[:, 0], buffer.rewards[:, 0] = np.tanh(random_rows(ACTION)), random_rows()
    buffer.full = True

    def run() -> float:
        buffer.sample(BATCH)
        return 1

    return run


def sb3_goals() -> Run:
    """Batches of a full hindsight buffer of Fetch, four goals of five drawn anew."""
    import gymnasium
    import gymnasium_robotics
    from stable_baselines3 import HerReplayBuffer
    from stable_baselines3.common.vec_env import DummyVecEnv

    gymnasium.register_envs(gymnasium_robotics)
    env: Any = DummyVecEnv([lambda: gymnasium.make("FetchPickAndPlace-v4")])
    buffer: Any = HerReplayBuffer(ROWS, env.observation_space, env.action_space, env=env, device="cpu")
    for half in (buffer.observations, buffer.next_observations):
        for part in half.values():
            part[:, 0] = random_rows(part.shape[-1])
    buffer.actions[:, 0] = np.tanh(random_rows(4))
    buffer.ep_start[:, 0], buffer.ep_length[:] = np.arange(ROWS) // 50 * 50, 50
    buffer.full = True

    def run() -> float:
        buffer.sample(BATCH)
        return 1

    return run


def sb3_sac() -> Run:
    """Environment steps of SAC in the medium maze, one update a step."""
    from gymnasium.spaces import Box
    from gymnasium.wrappers import TransformObservation
    from stable_baselines3 import SAC

    from toolkit.tasks import load_card, make_env

    card = load_card("pointmaze-medium")
    env: Any = make_env(card)
    flat: Any = TransformObservation(env, card.policy_input, Box(-np.inf, np.inf, (env.sizes.obs_dim,), np.float32))
    policy = {"net_arch": list(HIDDEN)}
    model = SAC("MlpPolicy", flat, batch_size=BATCH, learning_starts=100, policy_kwargs=policy, seed=0, device=DEVICE)
    model.learn(200)

    def run() -> float:
        model.learn(100, reset_num_timesteps=False)
        return 100

    return run


WORKLOADS: dict[str, Callable[[], Run]] = {
    "d3rlpy_iql": lambda: d3rlpy_updates("iql"),
    "d3rlpy_cql": lambda: d3rlpy_updates("cql"),
    "sb3_uniform_sampling": sb3_uniform,
    "sb3_goal_sampling": sb3_goals,
    "sb3_sac": sb3_sac,
}

if __name__ == "__main__":
    serve(WORKLOADS, ("torch", "numpy", "gymnasium", "d3rlpy" if "d3rlpy" in sys.argv[1] else "stable-baselines3"))
